"""Scores of a replay against ground truth, by the rules of `sam2s eval`.

Every life of a target becomes a clip record of its own, which ends where the target was removed;
`sam2s_model.evaluation` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2s_model.evaluation.clip import PRESENT
from sam2s_model.evaluation.record import ClipRecord, TargetSeries
from sam2s_model.evaluation.scores import FIGURES, by, known, score_records, summarise
from sam2s_model.metrics import MIN_ABSENCE, RECOVERY_IOU, FrameRule, score_mask
from sam2s_model.prompt import Prompt
from sam2s_ros.replay.truth import Ids, Truth, best_instance, prompted_instance

if TYPE_CHECKING:
    from sam2s_ros.session import SessionObject

DATASET = "bags"


@dataclass
class _Life:
    """A target while it is tracked; `instance` is None until the truth shows which one it is."""

    prompt_frame: int
    instance: int | None
    prompt: Prompt | None
    series: TargetSeries | None = None
    before: int = 0  # annotated frames before its series begins


@dataclass
class Scorer:
    """Scores frame by frame; `finish` gives the records."""

    clip: str
    truth: Truth
    annotated: list[int] = field(default_factory=list)
    areas: list[dict[int, int]] = field(default_factory=list)  # true pixels per instance
    problems: list[str] = field(default_factory=list)
    latest: Ids | None = None  # the truth of the frame that was scored last
    _living: dict[str, _Life] = field(default_factory=dict)
    _ended: list[tuple[_Life, int]] = field(default_factory=list)  # with annotated frames seen

    def prompted(self, name: str, frame: int, prompt: Prompt, instance: int | None) -> None:
        """Take note of a target's first prompt; `instance` is its id if the operator said so."""
        if name not in self._living:
            self._living[name] = _Life(frame, instance, prompt)

    def removed(self, name: str) -> None:
        """Take note of a target's removal."""
        life = self._living.pop(name, None)
        if life is not None:
            self._end(name, life)

    def frame(
        self, frame: int, stamp_ns: int, recorded_ns: int, objects: Sequence[SessionObject],
        size: tuple[int, int],
    ) -> dict[str, float]:  # fmt: skip
        """Score one frame; returns the J of every target in view, or wrongly drawn."""
        truth = self.truth.at(stamp_ns, recorded_ns)
        self.latest = None
        if truth is None:
            return {}
        if truth.shape != size:
            self.problems.append(
                f"frame {frame}: its truth is {truth.shape[1]}×{truth.shape[0]}, the image "
                f"{size[1]}×{size[0]}; the frame was not scored"
            )
            return {}
        values, counts = np.unique(truth, return_counts=True)
        areas = dict(zip(values.tolist(), counts.tolist(), strict=True))
        areas.pop(0, None)
        rated = {}
        for entry in objects:
            life = self._living.get(entry.name)
            if life is None or not self._identify(entry, life, truth, frame):
                continue
            j = self._score(entry, life, truth, areas)
            if entry.area or areas.get(life.instance or 0, 0):
                rated[entry.name] = j
        self.annotated.append(frame)
        self.areas.append(areas)
        self.latest = truth
        return rated

    def truth_of(self, name: str) -> NDArray[np.bool_] | None:
        """The true mask of a target on the frame that was scored last."""
        life = self._living.get(name)
        if self.latest is None or life is None or life.instance is None:
            return None
        mask: NDArray[np.bool_] = self.latest == life.instance
        return mask

    def finish(self) -> list[ClipRecord]:
        """Make the record of every life that could be scored."""
        for name in list(self._living):
            self.removed(name)
        if not self.annotated:
            self.problems.append("no image has a truth of the same stamp; nothing was scored")
        records = []
        for life, seen in self._ended:
            if life.series is not None:
                records.append(self._record(life, life.series, seen))
        return records

    def _end(self, name: str, life: _Life) -> None:
        if life.series is None and self.annotated:
            self.problems.append(
                f"'{name}' is none of the instances of the truth where it was prompted; it was "
                "not scored (its entry may say which: `truth: ID`)"
            )
        self._ended.append((life, len(self.annotated)))

    def _identify(self, entry: SessionObject, life: _Life, truth: Ids, frame: int) -> bool:
        """Find out which instance a target is; True once it is known."""
        if life.instance is None:
            if life.prompt is not None and frame == life.prompt_frame:
                life.instance = prompted_instance(life.prompt, truth)
            else:
                life.instance = best_instance(entry.mask, truth)
            if life.instance is None:
                return False
        if life.series is None:
            life.series = TargetSeries(
                entry.name, life.instance, self.truth.classes.get(life.instance), frame
            )
            life.before = len(self.annotated)
        return True

    def _score(
        self, entry: SessionObject, life: _Life, truth: Ids, areas: Mapping[int, int]
    ) -> float:
        series = life.series
        assert series is not None
        j, f = score_mask(entry.mask, truth == series.instance)
        series.j.append(j)
        series.f.append(f)
        series.area.append(areas.get(series.instance, 0))
        series.predicted_area.append(int(entry.area))
        series.said_absent.append(not entry.area or float(entry.presence) < PRESENT)
        series.follows.append(_followed(entry, truth, areas))
        series.label.append(entry.class_name if entry.class_scores else None)
        return j

    def _record(self, life: _Life, series: TargetSeries, seen: int) -> ClipRecord:
        """Fill up the frames before the prompt, as `sam2s eval` does."""
        areas = [area.get(series.instance, 0) for area in self.areas[: life.before]]
        untracked = [float(not area) for area in areas]
        series.j[:0], series.f[:0] = untracked, list(untracked)
        series.area[:0], series.predicted_area[:0] = areas, [0] * life.before
        series.said_absent[:0], series.follows[:0] = [True] * life.before, [0] * life.before
        series.label[:0] = [None] * life.before
        return ClipRecord(DATASET, self.clip, "", annotated=self.annotated[:seen], targets=[series])


def score_summary(
    records: Sequence[ClipRecord], rule: FrameRule = "tracked", min_absence: int = MIN_ABSENCE
) -> dict[str, Any]:
    """Score records: the figures of every target, of every bag, and of all."""
    scores = score_records(records, rule, min_absence)
    return {
        "frames_counted": rule,
        "min_absence": min_absence,
        "all": summarise(scores.targets),
        "bags": {clip: summarise(group) for clip, group in by(scores.targets, "clip").items()},
        "targets": [
            {
                "dataset": target.dataset,
                "clip": target.clip,
                "target": target.target,
                "class": target.class_name,
                "prompt_frame": target.prompt_frame,
                "frames": target.frames,
                "figures": {key: list(target.ratio(key)) for key, _, _ in FIGURES},
                "values": {key: known(target.ratio(key).value) for key, _, _ in FIGURES},
            }
            for target in scores.targets
        ],
        "unscored": scores.unscored,
    }


def record_json(record: ClipRecord) -> dict[str, Any]:
    """Turn a record into plain JSON values; J and F to five digits."""
    content = asdict(record)
    for series in content["targets"]:
        for key in ("j", "f"):
            series[key] = [round(value, 5) for value in series[key]]
    return content


def record_of(content: Mapping[str, Any]) -> ClipRecord:
    """Read a record back."""
    values = dict(content)
    targets = [TargetSeries(**target) for target in values.pop("targets")]
    return ClipRecord(targets=targets, **values)


def _followed(entry: SessionObject, truth: Ids, areas: Mapping[int, int]) -> int:
    """Tell which instance the mask mostly is; 0 for none."""
    if not entry.area:
        return 0
    values, overlaps = np.unique(truth[entry.mask], return_counts=True)
    for value, overlap in zip(values.tolist(), overlaps.tolist(), strict=True):
        if value and overlap / (entry.area + areas[value] - overlap) >= RECOVERY_IOU:
            return int(value)
    return 0
