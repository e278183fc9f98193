"""J and F against their definition written out pixel by pixel; everything else in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from sam2s_model.metrics import (
    BOUNDARY_TOLERANCE,
    JF,
    Confusion,
    MetricsError,
    Ratio,
    boundary_radius,
    contour_accuracy,
    counted_frames,
    latency,
    mask_boundary,
    presence,
    reentries,
    region_similarity,
    score_mask,
)

Mask = NDArray[np.bool_]


# --- the definition, written out ----------------------------------------------------------


def slow_boundary(mask: Mask) -> Mask:
    """Boundary as DAVIS defines it: a pixel that differs from its right, lower or diagonal one."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            right = x + 1 < width and mask[y, x] != mask[y, x + 1]
            below = y + 1 < height and mask[y, x] != mask[y + 1, x]
            across = y + 1 < height and x + 1 < width and mask[y, x] != mask[y + 1, x + 1]
            found[y, x] = right or below or across
    return found


def slow_scores(prediction: Mask, truth: Mask, tolerance: float) -> tuple[float, float]:
    """J from pixel sets, F from exact Euclidean distances to the other boundary."""
    drawn, real = set(np.flatnonzero(prediction)), set(np.flatnonzero(truth))
    j = len(drawn & real) / len(drawn | real) if drawn | real else 1.0
    radius = math.ceil(tolerance * math.hypot(*truth.shape)) if tolerance < 1 else tolerance
    a, b = slow_boundary(prediction), slow_boundary(truth)
    if not a.any() and not b.any():
        return j, 1.0
    if not a.any() or not b.any():
        return j, 0.0
    precision = float((distance_transform_edt(~b)[a] <= radius + 1e-9).mean())
    recall = float((distance_transform_edt(~a)[b] <= radius + 1e-9).mean())
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def some_mask(rng: np.random.Generator, shape: tuple[int, int]) -> Mask:
    """Draw noise, blocks, ellipses, border strips, single pixels; empty and full masks."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    kind = rng.integers(8)
    if kind == 0:
        return np.zeros(shape, bool)
    if kind == 1:
        return np.ones(shape, bool)
    if kind == 2:
        return rng.random(shape) < rng.random()
    if kind == 3:
        mask = np.zeros(shape, bool)
        mask[rng.integers(height), rng.integers(width)] = True
        return mask
    if kind == 4:
        mask = np.zeros(shape, bool)
        mask[rng.choice([0, -1])] = True
        mask[:, rng.choice([0, -1])] |= bool(rng.integers(2))
        return mask
    if kind == 5:
        mask = np.zeros(shape, bool)
        mask[rng.integers(height) :, : rng.integers(width + 1)] = True
        return mask
    cy, cx = rng.uniform(-0.2, 1.2, 2) * shape
    ry, rx = rng.uniform(0.05, 0.6, 2) * shape + 0.5
    mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    return mask ^ (rng.random(shape) < 0.02) if kind == 7 else mask


@pytest.mark.parametrize("seed", range(25))
def test_j_and_f_agree_with_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(12):
        shape = (int(rng.integers(1, 70)), int(rng.integers(1, 70)))
        truth, prediction = some_mask(rng, shape), some_mask(rng, shape)
        if rng.random() < 0.4:
            prediction = np.roll(truth, rng.integers(-4, 5, 2), (0, 1))
        tolerance = float(rng.choice([BOUNDARY_TOLERANCE, 0.03, 0.1, 2]))
        expected = slow_scores(prediction, truth, tolerance)
        assert score_mask(prediction, truth, tolerance) == pytest.approx(expected, abs=1e-12)
        assert (mask_boundary(truth) == slow_boundary(truth)).all()


# --- closed forms -------------------------------------------------------------------------


def square(side: int, y: int = 20, x: int = 20, shape: tuple[int, int] = (100, 100)) -> Mask:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.mark.parametrize("shift", [0, 1, 7, 30])
def test_j_of_a_moved_square(shift: int) -> None:
    side = 30
    expected = (side - shift) / (side + shift)
    assert region_similarity(square(side), square(side, x=20 + shift)) == pytest.approx(expected)


def test_f_forgives_exactly_the_tolerance() -> None:
    # 100×100: the diagonal is 141.4 pixels, 0.8 % of it 1.13, rounded up 2.
    truth = square(30)
    assert boundary_radius(truth.shape) == 2
    assert contour_accuracy(square(30, x=22), truth) == 1.0
    # Moved by 3 the vertical sides, of 30 pixels each, have no partner any more. The outline has
    # 31 + 31 + 30 + 29 pixels, whichever mask it is of, and 6 of a side lie near the others' ends.
    moved = contour_accuracy(square(30, x=23), truth)
    assert moved == pytest.approx(slow_scores(square(30, x=23), truth, BOUNDARY_TOLERANCE)[1])
    assert 0.5 < moved < 0.6


def test_davis_tolerance_is_eight_pixels() -> None:
    assert boundary_radius((480, 854)) == 8
    assert boundary_radius((512, 512)) == 6
    assert boundary_radius((1080, 1920)) == 18


EMPTY, FULL, SOME = np.zeros((9, 7), bool), np.ones((9, 7), bool), square(3, 2, 2, (9, 7))


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (EMPTY, EMPTY, (1, 1)),
        (EMPTY, SOME, (0, 0)),
        (SOME, EMPTY, (0, 0)),
        (FULL, FULL, (1, 1)),  # no boundary in either
        (FULL, EMPTY, (0, 1)),  # the same holds here, however wrong the region is
        (SOME, SOME, (1, 1)),
    ],
)
def test_degenerate_masks_follow_the_evaluators(
    prediction: Mask, truth: Mask, expected: tuple[float, float]
) -> None:
    assert score_mask(prediction, truth) == expected


def test_a_lone_pixel_in_the_last_corner_has_the_boundary_of_its_neighbours() -> None:
    mask = np.zeros((5, 5), bool)
    mask[4, 4] = True
    assert {(int(y), int(x)) for y, x in np.argwhere(mask_boundary(mask))} == {
        (3, 3),
        (3, 4),
        (4, 3),
    }


def test_the_mean_of_both() -> None:
    assert JF(0.5, 0.7).mean == pytest.approx(0.6)


@pytest.mark.parametrize(
    "other", [np.zeros((9, 8), bool), np.zeros((9, 7), np.uint8), np.zeros((1, 9, 7), bool)]
)
def test_masks_that_do_not_match_are_refused(other: Any) -> None:
    with pytest.raises(MetricsError, match="cannot be compared"):
        region_similarity(other, EMPTY)
    with pytest.raises(MetricsError, match="cannot be compared"):
        contour_accuracy(EMPTY, other)


# --- frames -------------------------------------------------------------------------------


def test_frame_rules() -> None:
    frames = [0, 4, 8, 12, 16, 20]
    visible = [False, False, True, True, False, True]
    drawn = [False] * 6

    def counted(rule: Any, drawn: list[bool] = drawn, visible: list[bool] = visible) -> list[int]:
        return [frames[k] for k in counted_frames(rule, frames, 8, visible, drawn)]

    assert counted("tracked") == [12, 16]
    assert counted("davis") == [4, 8, 12, 16]
    assert counted("sav") == [8, 12, 16]
    assert counted("sav", drawn=[False, True, *[False] * 4]) == [4, 8, 12, 16]
    assert counted("sav", visible=[True, *[False] * 4, True]) == []
    assert counted("all") == [8, 12, 16, 20]


@pytest.mark.parametrize("rule", ["tracked", "davis", "sav"])
def test_two_frames_leave_nothing_to_count(rule: Any) -> None:
    assert counted_frames(rule, [0, 1], 0, [True, True], [True, True]) == []


# --- presence -----------------------------------------------------------------------------


def test_presence_counts_absent_frames_as_positives() -> None:
    absent = [False, True, True, True, False, False]
    said = [False, True, False, False, True, False]
    recall, precision = presence(absent, said)
    assert (recall, precision) == (Ratio(1, 3), Ratio(1, 2))


def test_a_target_that_never_leaves_has_no_recall() -> None:
    recall, precision = presence([False, False], [False, False])
    assert math.isnan(recall.value)
    assert math.isnan(precision.value)


# --- returns ------------------------------------------------------------------------------


def series(text: str) -> tuple[list[int], list[bool], list[float]]:
    """`.` absent, `o` visible and found, `x` visible and missed."""
    return list(range(len(text))), [c != "." for c in text], [float(c == "o") for c in text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oooooo", []),
        ("oo....ooo", []),  # four frames are flicker
        ("oo.....ooo", [(7, 5, 0)]),
        ("oo.....xxooo", [(7, 5, 2)]),
        ("oo.....xoxooo", [(7, 5, 3)]),  # one lucky frame is no recovery
        ("oo.....xxxx", [(7, 5, None)]),
        ("oo.....oo", [(7, 5, 0)]),  # a visit of two frames needs two
        ("oo.....xo..oo", [(7, 5, 1)]),  # a blink does not end the visit
        ("oo.....xx......ooo", [(7, 5, None), (15, 6, 0)]),
        ("oo.....", []),
        (".....ooo", [(5, 5, 0)]),
        ("..ooo", []),
        ("", []),
    ],
)
def test_returns(text: str, expected: list[tuple[int, int, int | None]]) -> None:
    found = [(r.frame, r.absent_frames, r.recovered_after) for r in reentries(*series(text))]
    assert found == expected


def test_recovery_is_timed_in_frames_of_the_video() -> None:
    frames, visible, j = series("oo.....xxooo")
    (entry,) = reentries([4 * frame for frame in frames], visible, j)
    assert (entry.frame, entry.recovered_after) == (28, 8)


# --- classes, latency, ratios -------------------------------------------------------------


def test_confusion() -> None:
    confusion = Confusion({("hook", "hook"): 3, ("hook", "grasper"): 1, ("liver", "unknown"): 5})
    assert confusion.top1() == Ratio(3, 9)
    assert confusion.top1(["hook"]) == Ratio(3, 4)
    assert confusion.table() == (
        ["hook", "liver"],
        ["grasper", "hook", "unknown"],
        [[1, 3, 0], [0, 0, 5]],
    )


def test_latency_percentiles() -> None:
    times = latency([k / 100 for k in range(101)])
    assert (times.steps, times.mean, times.p50) == (101, pytest.approx(0.5), pytest.approx(0.5))
    assert (times.p95, times.p99) == (pytest.approx(0.95), pytest.approx(0.99))
    assert latency([]).steps == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=9))
@settings(max_examples=50, deadline=None)
def test_ratios_pool_by_their_counts(pairs: list[tuple[int, int]]) -> None:
    ratios = [Ratio(min(pair), max(pair)) for pair in pairs]
    pooled = Ratio.pooled(ratios)
    total = sum(max(pair) for pair in pairs)
    if total:
        assert pooled.value == sum(min(pair) for pair in pairs) / total
    else:
        assert math.isnan(pooled.value)
