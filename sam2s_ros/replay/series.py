"""What is kept of every frame for the report: a few numbers per target, in compact arrays."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2s_model.result import TrackState

if TYPE_CHECKING:
    from sam2s_ros.session import SessionObject

STATES = tuple(state.value for state in TrackState)
DIGITS = 4  # of what is written to results.json


@dataclass
class PromptMark:
    """A prompt that was applied."""

    frame: int
    kind: str  # "points", "box", "points and box" or "mask"
    correction: bool

    def as_json(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return {"frame": self.frame, "kind": self.kind, "correction": self.correction}


@dataclass
class TargetTrack:
    """One life of a target, from its first prompt to its removal or the end of the bag."""

    name: str
    label_value: int
    first_frame: int
    prompts: list[PromptMark] = field(default_factory=list)
    states: array[int] = field(default_factory=lambda: array("B"))  # index into STATES
    iou: array[float] = field(default_factory=lambda: array("f"))
    presence: array[float] = field(default_factory=lambda: array("f"))
    area: array[int] = field(default_factory=lambda: array("L"))  # pixels
    labels: array[int] = field(default_factory=lambda: array("H"))  # index into label_names
    confidence: array[float] = field(default_factory=lambda: array("f"))
    label_names: list[str] = field(default_factory=list)
    j: array[float] = field(default_factory=lambda: array("f"))  # against the truth; nan: unknown

    def __len__(self) -> int:
        return len(self.states)

    @property
    def last_frame(self) -> int:
        """The last frame that it was in."""
        return self.first_frame + len(self) - 1

    def add(self, entry: SessionObject, j: float | None = None) -> None:
        """Append a frame, with its J where the truth is known."""
        self.j.append(math.nan if j is None else j)
        self.states.append(STATES.index(TrackState(entry.state).value))
        self.iou.append(entry.iou)
        self.presence.append(entry.presence)
        self.area.append(entry.area)
        if entry.class_name not in self.label_names:
            self.label_names.append(entry.class_name)
        self.labels.append(self.label_names.index(entry.class_name))
        self.confidence.append(entry.class_confidence)

    def share(self, state: TrackState) -> float:
        """Share of its frames that it was in a state."""
        return self.states.count(STATES.index(state.value)) / len(self) if len(self) else 0.0

    def main_class(self) -> str:
        """Name the class that it was given most often, known ones first."""
        counts = np.bincount(np.array(self.labels, int), minlength=len(self.label_names))
        named = [
            (name != "unknown", int(n), name)
            for name, n in zip(self.label_names, counts, strict=True)
            if n
        ]
        return max(named, default=(False, 0, "unknown"))[2]

    def summary(self) -> dict[str, Any]:
        """Sum its life up; IoU estimates are those of the frames on which it was tracked."""
        tracked = np.array(self.states) == STATES.index(TrackState.TRACKING.value)
        estimates = np.array(self.iou, np.float64)[tracked]
        longest = max(
            (n for state, n in _runs(self.states) if STATES[state] != TrackState.TRACKING.value),
            default=0,
        )
        return {
            "frames": len(self),
            "coverage": _rounded(self.share(TrackState.TRACKING)),
            "occluded": _rounded(self.share(TrackState.OCCLUDED)),
            "lost": _rounded(self.share(TrackState.LOST)),
            "longest_absence": longest,
            "iou_mean": _rounded(float(estimates.mean())) if estimates.size else None,
            "iou_low": _rounded(float(np.percentile(estimates, 5))) if estimates.size else None,
            "presence_mean": _rounded(float(np.mean(self.presence))) if len(self) else None,
            "area_median": float(np.median(np.array(self.area)[tracked])) if tracked.any() else 0.0,
            "class": self.main_class(),
        }

    def as_json(self) -> dict[str, Any]:
        """Give plain JSON values; states and classes as runs [value, frames]."""
        series = {
            "state": [[STATES[state], n] for state, n in _runs(self.states)],
            "class": [[self.label_names[label], n] for label, n in _runs(self.labels)],
            "iou": [_rounded(v) for v in self.iou],
            "presence": [_rounded(v) for v in self.presence],
            "area": list(self.area),
        }
        if not all(map(math.isnan, self.j)):
            series["j"] = [None if math.isnan(v) else _rounded(v) for v in self.j]
        return {
            "name": self.name,
            "label_value": self.label_value,
            "first_frame": self.first_frame,
            "last_frame": self.last_frame,
            "prompts": [mark.as_json() for mark in self.prompts],
            "summary": self.summary(),
            "series": series,
        }


class Tracks:
    """All targets of a replay; a name that comes again after a removal begins a new life."""

    def __init__(self) -> None:
        self.all: list[TargetTrack] = []
        self._living: dict[str, TargetTrack] = {}

    def add(self, frame: int, objects: Sequence[SessionObject], rated: Mapping[str, float]) -> None:
        """Take in one frame, with J by name where the truth is known."""
        present = {entry.name for entry in objects}
        for name in [name for name in self._living if name not in present]:
            del self._living[name]
        for entry in objects:
            track = self._living.get(entry.name)
            if track is None:
                track = TargetTrack(entry.name, entry.label_value, frame)
                self.all.append(track)
                self._living[entry.name] = track
            track.add(entry, rated.get(entry.name))

    def living(self, name: str) -> TargetTrack | None:
        """The target of this name that is tracked now."""
        return self._living.get(name)


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    return [(value, sum(1 for _ in group)) for value, group in groupby(values)]


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)
