"""Track one clip and score every target on every annotated frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.protocol import (
    CLICKS,
    Click,
    PromptKind,
    TargetResult,
    Tracker,
    clicks_prompt,
    first_prompt,
    next_click,
)
from sam2s_model.evaluation.record import ClipRecord, TargetSeries
from sam2s_model.metrics import BOUNDARY_TOLERANCE, RECOVERY_IOU, Mask, score_mask
from sam2s_model.prompt import Prompt
from sam2s_model.video import (
    AnnotatedSequence,
    Ids,
    MaskFormatError,
    UnreadableImageError,
    VideoError,
    write_mask,
)

PRESENT = 0.5  # below this presence a tracker says that the target is absent


class EvaluationError(Sam2sError):
    """A clip that cannot be scored, or a tracker that breaks its contract."""


@dataclass(frozen=True)
class Protocol:
    """How targets are prompted and scored."""

    prompt: PromptKind = "click1"
    late: bool = True  # prompt targets that appear later, on their first visible frame
    min_area: int = 1  # visible pixels from which a target is prompted
    tolerance: float = BOUNDARY_TOLERANCE  # of the boundaries, as a share of the diagonal


class _Target:
    """A target under way: its series, and its result on the current frame."""

    def __init__(
        self, instance: int, class_name: str | None, frame: int, prompt: Prompt, clicks: list[Click]
    ) -> None:
        self.series = TargetSeries(str(instance), instance, class_name, frame)
        self.prompt = prompt
        self.clicks = clicks  # given so far; empty for a box or a mask
        self.result: TargetResult | None = None

    @property
    def name(self) -> str:
        return self.series.name


def evaluate_clip(
    sequence: AnnotatedSequence,
    tracker: Tracker,
    protocol: Protocol,
    record: ClipRecord,
    masks_folder: Path | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> None:
    """Track all targets of a sequence and fill the record with their series.

    A frame whose picture or mask cannot be read is left out and reported, and tracking goes on; a
    video that breaks off raises. Predicted masks go to `masks_folder`, if given, in DAVIS layout.
    """
    run = _ClipRun(sequence, tracker, protocol, record, masks_folder)
    for index in range(len(sequence)):
        run.step(index)
        progress(1)
    run.finish()


class _ClipRun:
    def __init__(
        self,
        sequence: AnnotatedSequence,
        tracker: Tracker,
        protocol: Protocol,
        record: ClipRecord,
        masks_folder: Path | None,
    ) -> None:
        self.sequence, self.tracker, self.protocol, self.record = (
            sequence,
            tracker,
            protocol,
            record,
        )
        self.masks_folder = masks_folder
        self.targets: dict[int, _Target] = {}
        self.refused: set[int] = set()
        self.areas: list[dict[int, int]] = []  # visible pixels per instance, per annotated frame
        record.length = len(sequence)
        record.fps = getattr(sequence, "fps", None)
        record.problems += getattr(sequence, "problems", [])
        tracker.reset()

    def step(self, index: int) -> None:
        """Track and score one frame."""
        try:
            frame = self.sequence.frame(index)
        except UnreadableImageError as error:
            self.record.problems.append(f"{error}; frame left out")
            return
        truth = self._truth(index, frame.shape[:2])
        self._track(index, frame, truth)
        if truth is not None:
            self._count(index, truth)
            for target in self.targets.values():
                self._score(target, truth)
        if self.masks_folder is not None and self.targets:
            self._write_masks(index, frame.shape[:2])

    def finish(self) -> None:
        """Put the series into the record, each as long as the list of annotated frames."""
        for instance, target in self.targets.items():
            series = target.series
            missing = len(self.record.annotated) - len(series.j)
            areas = [area.get(instance, 0) for area in self.areas[:missing]]
            untracked = [float(not area) for area in areas]
            series.j[:0], series.f[:0] = untracked, list(untracked)
            series.area[:0], series.predicted_area[:0] = areas, [0] * missing
            series.said_absent[:0], series.follows[:0] = [True] * missing, [0] * missing
            series.label[:0] = [None] * missing
            self.record.targets.append(series)
        if not self.record.targets:
            raise EvaluationError(f"no target could be prompted: {self._why_no_target()}")

    def _why_no_target(self) -> str:
        if not self.areas:
            return "no frame has a usable annotation"
        if not any(self.areas):
            return "the annotation is empty on every frame"
        if self.refused:
            return "every prompt was refused"
        return f"no instance ever has {self.protocol.min_area} pixels"

    def _truth(self, index: int, size: tuple[int, ...]) -> Ids | None:
        """Read the annotation of a frame; None, with a note, if it cannot be used."""
        try:
            truth = self.sequence.masks(index)
            if truth is not None and truth.shape != size:
                raise MaskFormatError(
                    f"{self.record.dataset}/{self.record.clip}",
                    f"the mask is {truth.shape[1]}×{truth.shape[0]}, its frame "
                    f"{size[1]}×{size[0]}; they must be of the same size",
                    index,
                )
        except (UnreadableImageError, MaskFormatError) as error:
            self.record.problems.append(f"{error}; frame tracked but not scored")
            return None
        return truth

    def _new_targets(self, index: int, truth: Ids) -> list[_Target]:
        """Make targets of the instances that are seen for the first time."""
        first = not self.targets
        new = []
        instances, counts = np.unique(truth, return_counts=True)
        for instance, count in zip(instances.tolist(), counts.tolist(), strict=True):
            known = instance in self.targets or instance in self.refused
            if instance == 0 or known or count < self.protocol.min_area:
                continue
            if not (first or self.protocol.late):
                self._refuse(index, instance, "it is not on the first frame")
                continue
            try:
                prompt, clicks = first_prompt(self.protocol.prompt, truth == instance)
                self.tracker.add_target(str(instance), prompt)
            except Sam2sError as error:
                self._refuse(index, instance, str(error))
                continue
            name = self.sequence.classes.get(instance)
            new.append(_Target(instance, name, index, prompt, clicks))
        self.targets.update((target.series.instance, target) for target in new)
        return new

    def _refuse(self, index: int, instance: int, why: str) -> None:
        self.refused.add(instance)
        self.record.problems.append(
            f"{self.record.dataset}/{self.record.clip} (frame {index}): "
            f"target {instance} left out: {why}"
        )

    def _track(self, index: int, frame: NDArray[np.uint8], truth: Ids | None) -> None:
        """Prompt what is new on this frame and track everything."""
        before = self.tracker.state_dict() if self._may_correct(truth) else None
        new = [] if truth is None else self._new_targets(index, truth)
        if not self.targets:
            return
        results = self._timed_step(frame, count=not new)
        if new and before is not None and truth is not None:
            for _ in range(CLICKS[self.protocol.prompt] - 1):
                if not self._click_again(new, results, truth):
                    break
                # The tracker forgets that it saw the frame, and sees it once with all clicks:
                # one frame in every target's memory, as in SAM 2's protocol.
                self.tracker.load_state_dict(before)
                for target in new:
                    self.tracker.add_target(target.name, target.prompt)
                results = self._timed_step(frame, count=False)
        for target in self.targets.values():
            result = results[target.name]
            if result.mask.shape != frame.shape[:2] or result.mask.dtype != np.bool_:
                raise EvaluationError(
                    f"frame {index}: the tracker's mask is {result.mask.dtype} of "
                    f"{result.mask.shape}; expected bool of {frame.shape[:2]}"
                )
            target.result = result

    def _may_correct(self, truth: Ids | None) -> bool:
        """Tell whether a frame may bring targets that are clicked on more than once."""
        if truth is None or CLICKS[self.protocol.prompt] < 2:
            return False
        if self.targets and not self.protocol.late:
            return False
        return bool(set(np.unique(truth).tolist()) - {0} - set(self.targets) - self.refused)

    def _timed_step(self, frame: NDArray[np.uint8], count: bool) -> Mapping[str, TargetResult]:
        start = time.perf_counter()
        results = self.tracker.step(frame)
        for target in self.targets.values():
            _ = results[target.name].mask  # made when first asked for: part of the step's price
        if count:
            self.record.step_seconds.append(round(time.perf_counter() - start, 6))
        return results

    def _click_again(
        self, targets: list[_Target], results: Mapping[str, TargetResult], truth: Ids
    ) -> bool:
        """Add a click to each target whose mask is not yet exact; False if none needs it."""
        clicked = False
        for target in targets:
            click = next_click(truth == target.series.instance, results[target.name].mask)
            if click is not None:
                target.clicks.append(click)
                target.prompt = clicks_prompt(target.clicks)
                clicked = True
        return clicked

    def _count(self, index: int, truth: Ids) -> None:
        instances, counts = np.unique(truth, return_counts=True)
        areas = dict(zip(instances.tolist(), counts.tolist(), strict=True))
        areas.pop(0, None)
        self.record.annotated.append(index)
        self.areas.append(areas)

    def _score(self, target: _Target, truth: Ids) -> None:
        series, result = target.series, target.result
        assert result is not None
        j, f = score_mask(result.mask, truth == series.instance, self.protocol.tolerance)
        area = int(np.count_nonzero(result.mask))
        series.j.append(j)
        series.f.append(f)
        series.area.append(self.areas[-1].get(series.instance, 0))
        series.predicted_area.append(area)
        series.said_absent.append(not area or float(result.presence) < PRESENT)
        series.follows.append(self._followed(result.mask, area, truth))
        series.label.append(result.label if result.label_scores else None)

    def _followed(self, mask: Mask, area: int, truth: Ids) -> int:
        """Tell which instance the mask mostly is."""
        if not area:
            return 0
        instances, overlaps = np.unique(truth[mask], return_counts=True)
        for instance, overlap in zip(instances.tolist(), overlaps.tolist(), strict=True):
            if instance:
                union = area + self.areas[-1][instance] - overlap
                if overlap / union >= RECOVERY_IOU:
                    return int(instance)
        return 0

    def _write_masks(self, index: int, size: tuple[int, ...]) -> None:
        """Write the predictions as a palette PNG; of overlapping targets the smaller is on top."""
        assert self.masks_folder is not None
        ids = np.zeros(size, np.int32)
        drawn = [(t.series.instance, t.result.mask) for t in self.targets.values() if t.result]
        for instance, mask in sorted(drawn, key=lambda pair: -np.count_nonzero(pair[1])):
            ids[mask] = instance
        name = getattr(self.sequence, "frame_name", "{:05d}".format)(index)
        try:
            write_mask(self.masks_folder / f"{name}.png", ids)
        except VideoError as error:
            self.record.problems.append(f"predictions are not written: {error}")
            self.masks_folder = None
