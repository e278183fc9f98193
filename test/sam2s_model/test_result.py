"""What a step returns: pictures at source size, made when asked for, that agree with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import clip, lively_model, prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sam2s_model import FrameResult, StreamTracker, TargetResult, TrackState


def result(logits: Tensor, size: tuple[int, int], score: float = 3.0) -> TargetResult:
    return TargetResult("a", logits, size, 0.8, score, TrackState.TRACKING, "unknown", {})


def rectangle(size: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> Tensor:
    logits = torch.full(size, -4.0)
    logits[y0:y1, x0:x1] = 4.0
    return logits


def test_a_rectangle_has_its_area_and_box() -> None:
    target = result(rectangle((16, 16), 3, 5, 9, 12), (16, 16))
    assert target.box == (3, 5, 9, 12)
    assert target.area == 6 * 7
    assert target.mask.dtype == np.bool_
    assert target.logits.dtype == np.float32


def test_the_box_spans_separate_pieces() -> None:
    logits = rectangle((16, 16), 1, 12, 3, 14)
    logits[2, 10] = 1.0
    assert result(logits, (16, 16)).box == (1, 2, 11, 14)


def test_a_mask_may_fill_the_frame_or_a_corner() -> None:
    assert result(torch.ones(16, 16), (30, 20)).box == (0, 0, 20, 30)
    assert result(rectangle((16, 16), 15, 15, 16, 16), (16, 16)).box == (15, 15, 16, 16)


def test_an_empty_mask_has_no_box() -> None:
    target = result(torch.full((16, 16), -1024.0), (20, 30))
    assert (target.area, target.box) == (0, None)
    assert target.mask.shape == (20, 30)


def test_zero_is_outside() -> None:
    assert result(torch.zeros(16, 16), (16, 16)).area == 0


def test_masks_scale_with_the_frame() -> None:
    target = result(rectangle((16, 16), 4, 8, 12, 12), (160, 320))
    assert target.mask.shape == (160, 320)
    assert target.box is not None
    assert np.abs(np.array(target.box) - [80, 80, 240, 120]).max() <= 6


@pytest.mark.parametrize("score", [-40.0, -0.5, 0.0, 2.0, 40.0])
def test_presence_is_a_probability(score: float) -> None:
    presence = result(torch.zeros(4, 4), (4, 4), score).presence
    assert presence == pytest.approx(1 / (1 + math.exp(-score)))
    assert 0 <= presence <= 1


@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_pictures_agree_whatever_the_size(height: int, width: int, seed: int) -> None:
    low = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) - 1
    target = result(low, (height, width))
    full = F.interpolate(low[None, None], size=(height, width), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(target.logits, full, atol=1e-4)
    assert np.array_equal(target.mask, target.logits > 0)
    assert target.area == int(target.mask.sum())
    if target.box is None:
        assert target.area == 0
        return
    x0, y0, x1, y1 = target.box
    assert target.mask[y0:y1, x0:x1].sum() == target.area
    assert target.mask[y0].any()
    assert target.mask[y1 - 1].any()
    assert target.mask[:, x0].any()
    assert target.mask[:, x1 - 1].any()


def test_a_frame_result_is_a_mapping_of_targets() -> None:
    tracker = StreamTracker(lively_model())
    for name, prompt in prompts().items():
        tracker.add_target(name, prompt)
    first, second = (tracker.step(frame) for frame in clip(2))
    assert isinstance(second, FrameResult)
    assert list(first) == list(second) == list(prompts())
    assert len(second) == 5
    assert "nobody" not in second
    for name, target in second.items():
        assert target.name == name
        assert target.source_size == (60, 80)
        assert np.array_equal(target.mask, target.logits > 0)
        assert 0 <= target.iou <= 1


def test_a_result_stays_as_it_was_while_tracking_goes_on() -> None:
    """Pictures may be asked for later than the next step."""
    frames = clip(4)
    lazy, eager = StreamTracker(lively_model()), StreamTracker(lively_model())
    for tracker in (lazy, eager):
        tracker.add_target("a", prompts()["box"])
    later = [lazy.step(frame)["a"] for frame in frames]
    at_once = [eager.step(frame)["a"].logits for frame in frames]
    for target, logits in zip(later, at_once, strict=True):
        assert np.array_equal(target.logits, logits)
        assert target.logits is target.logits  # made once
