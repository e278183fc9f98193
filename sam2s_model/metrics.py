"""The scores of a tracker: J, F, presence, re-identification, classes and latency.

J and F follow the public DAVIS 2017 and SA-V evaluators: the same boundary pixels, the same
tolerance, the same answers for empty masks. Everything else is defined here, in the docstrings
below; a ratio is always kept as its two counts (`Ratio`), so that targets, videos and data sets
add up without rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError

Mask = NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008  # of the image diagonal; DAVIS: 8 pixels at 854×480
RECOVERY_IOU = 0.5  # a target counts as found again from this J on
RECOVERY_HOLD = 3  # … and stays found for so many annotated frames: one overlap is luck
MIN_ABSENCE = 5  # annotated frames out of view that make an absence; shorter ones are flicker

FrameRule = Literal["tracked", "davis", "sav", "all"]
FRAME_RULES: tuple[FrameRule, ...] = get_args(FrameRule)


class MetricsError(Sam2sError):
    """Masks or series that cannot be compared with each other."""


class JF(NamedTuple):
    """Region similarity and contour accuracy of one mask, or their means."""

    j: float
    f: float

    @property
    def mean(self) -> float:
        """J&F, the mean of the two."""
        return (self.j + self.f) / 2


class Ratio(NamedTuple):
    """A share kept as its counts: `hits` of `total`. Ratios add up; `value` is nan for 0 of 0."""

    hits: float = 0
    total: float = 0

    @property
    def value(self) -> float:
        """The share, 0..1; nan where there was nothing to count."""
        return self.hits / self.total if self.total else math.nan

    @staticmethod
    def pooled(ratios: Iterable[Ratio]) -> Ratio:
        """Add up the counts of many ratios."""
        ratios = list(ratios)
        return Ratio(sum(r.hits for r in ratios), sum(r.total for r in ratios))


# --- region and contour -------------------------------------------------------------------


def region_similarity(prediction: Mask, truth: Mask) -> float:
    """J: intersection over union of two bool masks (H, W); 1 where both are empty."""
    _check_pair(prediction, truth)
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def contour_accuracy(prediction: Mask, truth: Mask, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F: harmonic mean of boundary precision and recall of two bool masks (H, W).

    A boundary pixel is matched if the other mask has one within `boundary_radius`. Where neither
    mask has a boundary (both empty, or filling the whole image) F is 1; where just one has, F is
    0.
    """
    _check_pair(prediction, truth)
    radius = boundary_radius(truth.shape, tolerance)
    window = _joint_window(prediction, truth)
    if window is None:
        return 1.0
    drawn, real = mask_boundary(prediction[window]), mask_boundary(truth[window])
    drawn_count, real_count = np.count_nonzero(drawn), np.count_nonzero(real)
    if not drawn_count or not real_count:
        return 1.0 if drawn_count == real_count else 0.0
    precision = _count_near(drawn, real, radius) / drawn_count
    recall = _count_near(real, drawn, radius) / real_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_mask(prediction: Mask, truth: Mask, tolerance: float = BOUNDARY_TOLERANCE) -> JF:
    """J and F of one predicted mask against the true one, both bool (H, W)."""
    return JF(region_similarity(prediction, truth), contour_accuracy(prediction, truth, tolerance))


def boundary_radius(shape: Sequence[int], tolerance: float = BOUNDARY_TOLERANCE) -> int:
    """Pixels by which two boundaries may differ: a share of the diagonal, or from 1 on pixels."""
    if tolerance >= 1:
        return math.ceil(tolerance)
    return math.ceil(tolerance * float(np.linalg.norm(shape)))


def mask_boundary(mask: Mask) -> Mask:
    """Draw the 1 pixel wide boundary of a mask (H, W) as DAVIS does.

    A pixel is on the boundary if its right, lower or lower right neighbour differs from it; in the
    last row and column only the neighbour inside the image counts, and the last corner never does.
    """
    boundary = np.zeros_like(mask)
    boundary[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def _check_pair(prediction: Mask, truth: Mask) -> None:
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise MetricsError(
            f"masks of {prediction.shape} and {truth.shape} cannot be compared: both must be (H, W)"
        )
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise MetricsError(
            f"masks of {prediction.dtype} and {truth.dtype} cannot be compared: both must be bool"
        )


def _joint_window(a: Mask, b: Mask) -> tuple[slice, slice] | None:
    """Find the box around both masks, with a pixel's margin; None if both are empty.

    The margin keeps every boundary pixel, and the rule for the image's last row and column, exact.
    """
    spans = []
    for axis in (1, 0):
        used = np.flatnonzero(a.any(axis=axis) | b.any(axis=axis))
        if not used.size:
            return None
        spans.append(slice(max(int(used[0]) - 1, 0), int(used[-1]) + 2))
    return spans[0], spans[1]


def _count_near(pixels: Mask, others: Mask, radius: int) -> int:
    near = cv2.dilate(others.view(np.uint8), _disk(radius))
    return int(np.count_nonzero(pixels & near.view(np.bool_)))


@lru_cache(maxsize=32)
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: NDArray[np.uint8] = (x * x + y * y <= radius * radius).astype(np.uint8)
    return disk


# --- which frames count -------------------------------------------------------------------


def counted_frames(
    rule: FrameRule,
    frames: Sequence[int],
    prompt_frame: int,
    visible: Sequence[bool],
    drawn: Sequence[bool],
) -> list[int]:
    """Tell which of a video's annotated `frames` count for one target, as positions in that list.

    `visible` and `drawn` say on which of them the annotation and the prediction show the target.

    - `tracked`: after the prompt, without the video's last frame. For a target of the first frame
      these are DAVIS's frames; a late target earns nothing for frames before its prompt.
    - `davis`: all but the first and the last, as DAVIS 2017's semi-supervised evaluation.
    - `sav`: of these, from the first on that annotation or prediction shows the target; none if
      the annotation never does. So does SA-V's evaluator.
    - `all`: every frame from the prompt on, the prompted one too.
    """
    if not len(frames) == len(visible) == len(drawn):
        raise MetricsError(
            f"series of {len(frames)}, {len(visible)} and {len(drawn)} frames differ in length"
        )
    inner = range(1, len(frames) - 1)
    if rule == "all":
        return [k for k, frame in enumerate(frames) if frame >= prompt_frame]
    if rule == "davis":
        return list(inner)
    if rule == "sav":
        start = next((k for k in inner if visible[k] or drawn[k]), len(frames))
        return [k for k in inner if k >= start] if any(visible[1:-1]) else []
    return [k for k in inner if frames[k] > prompt_frame]


# --- presence -----------------------------------------------------------------------------


class Presence(NamedTuple):
    """How well absence is reported; the absent frames are the positives.

    `recall`: of the frames on which the target is absent, those on which the tracker said so.
    `precision`: of the frames on which the tracker said absent, those on which it was.
    """

    recall: Ratio
    precision: Ratio


def presence(truly_absent: Sequence[bool], said_absent: Sequence[bool]) -> Presence:
    """Compare, frame by frame, where a target was absent with where the tracker said so."""
    hits = sum(t and s for t, s in zip(truly_absent, said_absent, strict=True))
    return Presence(Ratio(hits, sum(truly_absent)), Ratio(hits, sum(said_absent)))


# --- re-identification --------------------------------------------------------------------


@dataclass(frozen=True)
class Reentry:
    """A target's return after an absence, and how it was taken up again."""

    frame: int  # the first frame on which it is visible again
    absent_frames: int  # annotated frames it had been away
    recovered_after: int | None  # frames until it was found again (0: at once); None: never

    @property
    def recovered(self) -> bool:
        """Whether the tracker found the target before it left again."""
        return self.recovered_after is not None


def reentries(
    frames: Sequence[int],
    visible: Sequence[bool],
    j: Sequence[float],
    min_absence: int = MIN_ABSENCE,
    threshold: float = RECOVERY_IOU,
    hold: int = RECOVERY_HOLD,
) -> list[Reentry]:
    """Find a target's returns in its series over annotated `frames`, prompt first.

    A return follows at least `min_absence` annotated frames without the target. It is recovered on
    the first frame whose J reaches `threshold` and which begins `hold` such visible frames in a
    row (or as many as the visit has, if fewer), before the target is away for `min_absence` frames
    again.
    """
    if not len(frames) == len(visible) == len(j):
        raise MetricsError(f"series of {len(frames)}, {len(visible)} and {len(j)} frames differ")
    visits: list[
        tuple[int, list[int]]
    ] = []  # (length of the absence before, indices of visible frames)
    gap = 0
    for index, seen in enumerate(visible):
        if not seen:
            gap += 1
            continue
        if not visits or gap >= min_absence:
            visits.append((gap, []))
        visits[-1][1].append(index)
        gap = 0
    returns = []
    for absent, indices in visits[1:] if visible and visible[0] else visits:
        good = [j[index] >= threshold for index in indices]
        need = min(hold, len(good))
        start = next((k for k in range(len(good) - need + 1) if all(good[k : k + need])), None)
        entered = frames[indices[0]]
        after = None if start is None else frames[indices[start]] - entered
        returns.append(Reentry(entered, absent, after))
    return [entry for entry in returns if entry.absent_frames >= min_absence]


# --- classes ------------------------------------------------------------------------------


class Confusion(Counter[tuple[str, str]]):
    """Frames per (true class, reported class)."""

    def top1(self, classes: Iterable[str] | None = None) -> Ratio:
        """Share of frames with the right class, over these true classes (all, if not given)."""
        wanted = None if classes is None else set(classes)
        counted = [(k, n) for k, n in self.items() if wanted is None or k[0] in wanted]
        return Ratio(sum(n for (t, p), n in counted if t == p), sum(n for _, n in counted))

    def table(self) -> tuple[list[str], list[str], list[list[int]]]:
        """Give the true classes, the reported ones, and the frames of each pair."""
        rows = sorted({t for t, _ in self})
        columns = sorted({p for _, p in self})
        return rows, columns, [[self[(t, p)] for p in columns] for t in rows]


# --- latency ------------------------------------------------------------------------------


class Latency(NamedTuple):
    """Seconds a step took: how many steps, their mean and their percentiles."""

    steps: int
    mean: float
    p50: float
    p95: float
    p99: float


def latency(seconds: Sequence[float]) -> Latency:
    """Summarise step times; nan where there are none."""
    if not seconds:
        return Latency(0, math.nan, math.nan, math.nan, math.nan)
    p50, p95, p99 = (float(v) for v in np.percentile(seconds, (50, 95, 99)))
    return Latency(len(seconds), float(np.mean(seconds)), p50, p95, p99)
