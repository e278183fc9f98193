"""Masks of parts of the logits against those of all of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2s_model.result import TargetResult, TrackState
from sam2s_ros.masks import source_logits, source_patch
from sam2s_ros.patch import Patch
from sam2s_ros.rle import encode_mask, encode_patch

ROUNDING = 1e-4  # of logits up to a few units

sides = st.integers(1, 70)


def target(logits: np.ndarray, height: int, width: int) -> TargetResult:
    return TargetResult(
        name="hook", low_res_logits=torch.from_numpy(logits), source_size=(height, width), iou=0.9,
        object_score=5.0, state=TrackState.TRACKING, label="hook", label_scores={},
    )  # fmt: skip


def spots(seed: int, count: int, cells: int) -> np.ndarray:
    """Logits that are positive in a few cells, at the borders too."""
    random = np.random.default_rng(seed)
    logits = -random.random((cells, cells), np.float32)
    ys, xs = random.integers(0, cells, (2, count))
    logits[ys, xs] = 3 * random.random(count)
    return logits


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**16), count=st.integers(0, 6), cells=st.sampled_from([4, 12, 16]),
    height=sides, width=sides,
)  # fmt: skip
def test_a_part_of_the_mask_is_the_whole_of_it(seed, count, cells, height, width):
    one = target(spots(seed, count, cells), height, width)
    patch = source_patch(one)
    certain = np.abs(one.logits) > ROUNDING
    assert np.array_equal(patch.whole()[certain], one.mask[certain])
    whole = encode_mask(patch.whole())
    part = encode_patch(patch)
    assert part.counts.tolist() == whole.counts.tolist()
    assert (part.area, part.box, part.centroid) == (whole.area, whole.box, whole.centroid)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**16), cells=st.sampled_from([4, 12, 16]), height=sides, width=sides,
    cut=st.tuples(*[st.floats(0, 1)] * 4),
)  # fmt: skip
def test_a_part_of_the_logits_is_cut_from_all_of_them(seed, cells, height, width, cut):
    one = target(spots(seed, 5, cells), height, width)
    y0, y1 = sorted(int(share * height) for share in cut[:2])
    x0, x1 = sorted(int(share * width) for share in cut[2:])
    rows, columns = slice(y0, min(y1 + 1, height)), slice(x0, min(x1 + 1, width))
    if y0 < height and x0 < width:
        part = source_logits(one, rows, columns)
        np.testing.assert_allclose(part, one.logits[rows, columns], atol=ROUNDING)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**16), height=sides, width=sides)
def test_what_is_another_targets_is_left_out(seed, height, width):
    alone = target(spots(seed, 5, 12), height, width)
    lead = torch.from_numpy(spots(seed + 1, 30, 12))
    one = dataclasses.replace(alone, lead_logits=lead)
    patch = source_patch(one)
    certain = np.abs(one.logits) > ROUNDING
    assert np.array_equal(patch.whole()[certain], one.mask[certain])
    assert not (one.mask & ~alone.mask).any()
    part = source_logits(one, slice(0, height), slice(0, width))
    np.testing.assert_allclose(part, one.logits, atol=ROUNDING)


@pytest.mark.parametrize("size", [(1024, 1280), (1080, 1920)])
def test_only_what_surrounds_a_target_is_scaled(size):
    logits = np.full((64, 64), -1, np.float32)
    logits[20:30, 40:44] = 1
    patch = source_patch(target(logits, *size))
    share = patch.pixels.size / (size[0] * size[1])
    assert patch.pixels.any()
    assert share < 0.1  # of 64x64 cells 40 are positive; some more surround them


@pytest.mark.parametrize("shape", [(5, 7), (1, 3)])
def test_empty_and_full_masks_have_patches(shape):
    empty, full = Patch.of(np.zeros(shape, bool)), Patch.of(np.ones(shape, bool))
    assert empty.pixels.size == 0
    assert not empty.whole().any()
    assert full.whole().all()
    assert full.whole().shape == shape
