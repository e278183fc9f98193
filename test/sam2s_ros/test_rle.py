"""Run-length masks against a walk over the pixels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sam2s_ros.rle import MAX_PIXELS, RunLengthError, Runs, encode_mask

masks = npst.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def walk(mask: np.ndarray) -> list[int]:
    """The runs of COCO, pixel by pixel."""
    runs, value = [0], False
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def check(runs: Runs, mask: np.ndarray) -> None:
    ys, xs = np.nonzero(mask)
    assert runs.area == len(xs)
    if len(xs):
        assert runs.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert runs.centroid == pytest.approx((xs.mean() + 0.5, ys.mean() + 0.5), rel=1e-12)
    else:
        assert runs.box is None
        assert runs.centroid is None
    assert np.array_equal(runs.decode(), mask)


@settings(max_examples=200, deadline=None)
@given(mask=masks)
def test_runs_and_their_measures_are_those_of_the_pixels(mask):
    runs = encode_mask(mask)
    assert runs.counts.dtype == np.uint32
    assert runs.counts.tolist() == walk(mask)
    check(runs, mask)


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (5, 4)])
def test_empty_and_full_masks(size, fill):
    mask = np.full(size, fill)
    runs = encode_mask(mask)
    assert runs.counts.tolist() == ([0, mask.size] if fill else [mask.size])
    check(runs, mask)


def test_masks_need_not_be_contiguous():
    base = np.random.default_rng(3).random((30, 40)) < 0.4
    for mask in (base.T, base[::-1], base[:, ::-1], base[3:20, 5:31], base[::2, ::3]):
        assert encode_mask(mask).counts.tolist() == walk(mask)


@settings(max_examples=50, deadline=None)
@given(mask=masks, places=st.lists(st.integers(0, 100), max_size=4))
def test_runs_of_no_length_change_nothing(mask, places):
    """Others may write a run as two with nothing between them."""
    counts = walk(mask)
    for place in places:
        cut = place % len(counts)
        half = counts[cut] // 2
        counts[cut : cut + 1] = [half, 0, counts[cut] - half]
    check(Runs(*mask.shape, np.array(counts, np.uint32)), mask)


@pytest.mark.parametrize("counts", [[], [3, 4], [20], [2**32 - 1, 2**32 - 1], [0, 15]])
def test_runs_that_do_not_fit_are_refused(counts):
    runs = Runs(4, 4, np.array(counts, np.uint32))
    with pytest.raises(RunLengthError, match=rf"add up to {sum(counts)} pixels; 4×4 needs 16"):
        runs.decode()


def test_no_memory_is_taken_for_absurd_sizes():
    side = 1 << 15
    runs = Runs(side, side, np.array([side * side], np.uint32))
    with pytest.raises(RunLengthError, match=rf"is 32768×32768; at most {MAX_PIXELS} pixels"):
        runs.decode()


@pytest.mark.serial
def test_cost_of_a_large_mask(capsys):
    """A loop over pixels takes 0.2 s; the bound is a tenth of that, the figure is printed."""
    y, x = np.mgrid[:1024, :1280]
    mask = ((x - 640) / 300) ** 2 + ((y - 512) / 200) ** 2 < 1
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        runs = encode_mask(mask)
        _ = runs.area, runs.box, runs.centroid
        times.append(time.perf_counter() - begin)
    with capsys.disabled():
        print(f"\nruns, area, box, centroid of 1280×1024: {1e3 * np.median(times):.2f} ms")
    assert np.median(times) < 0.02
