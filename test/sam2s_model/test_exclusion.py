"""Targets that share no pixel: the arithmetic by hand, and what the tracker makes of it."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import clip, lively_model
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2s_model import FrameResult, Prompt, StreamTracker
from sam2s_model.config import TrackSettings
from sam2s_model.exclusion import apart, contested, lead_of

FRAMES = 6
EXCLUSIVE = TrackSettings(exclusive=True)


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values)[None, None]


def test_a_pixel_goes_to_the_most_certain_target() -> None:
    logits = torch.stack([row(3, 1, 2, -1, -1024), row(1, 2, 2, -3, -1), row(-5, 4, 0, -4, 6)])
    lead = lead_of(logits)
    assert lead[:, 0, 0].tolist() == [
        [2, -3, 0, 2, -1030],
        [-2, -2, 0, -2, -7],
        [-8, 2, -2, -3, 7],
    ]
    assert apart(logits, lead)[:, 0, 0].tolist() == [
        [2, -3, 0, -1, -1030],
        [-2, -2, 0, -3, -7],
        [-8, 2, -2, -4, 6],
    ]


def test_only_neighbours_are_contested() -> None:
    logits = torch.full((4, 1, 8, 8), -9.0)
    logits[0, 0, 1, 1] = logits[1, 0, 2, 2] = 1.0  # one cell's corner is the other's
    logits[2, 0, 4, 4] = logits[3, 0, 7, 7] = 1.0
    assert contested(logits, lead_of(logits)) == [True, True, False, False]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**16), shift=st.floats(0, 4))
def test_masks_that_meet_between_cells_are_contested(seed: int, shift: float) -> None:
    logits = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) - shift
    lead = lead_of(logits)
    mine, others = (
        F.interpolate(part, size=(88, 88), mode="bilinear") > 0 for part in (logits, logits - lead)
    )
    meets = (mine & others).flatten(1).any(1).tolist()
    for said, true in zip(contested(logits, lead), meets, strict=True):
        assert said or not true


def track(
    track_settings: TrackSettings, names: str = "abc", frames: int = FRAMES
) -> list[FrameResult]:
    tracker = StreamTracker(lively_model(), track=track_settings)
    for n, name in enumerate(names):
        tracker.add_target(name, Prompt(points=[[20 + 8 * n, 24 + 4 * n]], labels=[1]))
    return [tracker.step(frame) for frame in clip(frames)]


def shared(result: FrameResult) -> int:
    pairs = combinations(result.values(), 2)
    return sum(int(np.count_nonzero(a.mask & b.mask)) for a, b in pairs)


def test_masks_share_no_pixel() -> None:
    together, one_by_one = track(EXCLUSIVE), track(TrackSettings())
    assert all(shared(result) for result in one_by_one), "there is nothing to tell apart"
    assert not any(shared(result) for result in together)


def test_what_two_targets_cover_stays_covered() -> None:
    # On the first frame nothing is remembered yet.
    together, one_by_one = (
        [target.mask for target in track(settings, "ab", 1)[0].values()]
        for settings in (EXCLUSIVE, TrackSettings())
    )
    assert np.array_equal(together[0] | together[1], one_by_one[0] | one_by_one[1])
    assert np.count_nonzero(one_by_one[0] & one_by_one[1]) > 50, "there is nothing to tell apart"


def test_memory_holds_what_was_told_apart() -> None:
    together, one_by_one = track(EXCLUSIVE), track(TrackSettings())
    first, second = (
        max(
            float((a.low_res_logits - b.low_res_logits).abs().max())
            for a, b in zip(together[n].values(), one_by_one[n].values(), strict=True)
        )
        for n in (0, 1)
    )
    assert first == 0.0
    assert second > 1e-3


def test_one_target_alone_is_as_it_was() -> None:
    together, one_by_one = track(EXCLUSIVE, "a"), track(TrackSettings(), "a")
    for got, expected in zip(together, one_by_one, strict=True):
        assert got["a"].lead_logits is None
        assert torch.equal(got["a"].low_res_logits, expected["a"].low_res_logits)


@pytest.mark.parametrize("exclusive", [False, True])
def test_it_may_change_between_frames(exclusive: bool) -> None:
    tracker = StreamTracker(
        lively_model(), track=dataclasses.replace(EXCLUSIVE, exclusive=not exclusive)
    )
    for n, name in enumerate("abc"):
        tracker.add_target(name, Prompt(points=[[20 + 8 * n, 24 + 4 * n]], labels=[1]))
    frames = clip(2)
    assert bool(shared(tracker.step(frames[0]))) is exclusive
    tracker.track = dataclasses.replace(tracker.track, exclusive=exclusive)
    assert bool(shared(tracker.step(frames[1]))) is not exclusive
