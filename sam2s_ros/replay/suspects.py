"""Identity switches that look likely without any ground truth.

Three signs, each with a place in time; all of them can be wrong, which is why the report shows
pictures of the worst:

- two targets' masks become one: one of them has jumped onto the other;
- a tracked mask leaves the place where it was from one frame to the next;
- a target's class changes from one named class to another and stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2s_model.metrics import region_similarity
from sam2s_model.result import TrackState

if TYPE_CHECKING:
    from sam2s_ros.session import SessionObject

UNKNOWN = "unknown"


@dataclass(frozen=True)
class SuspectSettings:
    """When a sign counts."""

    merged_iou: float = 0.6  # overlap from which two targets' masks are one
    merged_frames: int = 3  # frames in a row that they must be one
    jump_iou: float = 0.02  # overlap with the frame before under which a mask has jumped …
    jump_share: float = 0.1  # … if its centre also moved by this share of the picture's diagonal
    class_frames: int = 15  # frames in a row that a new class must last


@dataclass(frozen=True)
class Suspect:
    """A moment at which a target may have become another one."""

    frame: int
    target: str
    kind: str  # "merged", "jumped" or "class"
    text: str  # one sentence

    def as_json(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return {
            "frame": self.frame, "target": self.target, "kind": self.kind, "text": self.text
        }  # fmt: skip


@dataclass
class _Last:
    """What is remembered of a target from the frame before."""

    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    centre: tuple[float, float]
    frame: int


@dataclass
class _Class:
    settled: str = UNKNOWN
    candidate: str = UNKNOWN
    since: int = 0


@dataclass
class SuspectFinder:
    """Watches the frames as they come."""

    settings: SuspectSettings = field(default_factory=SuspectSettings)
    found: list[Suspect] = field(default_factory=list)
    _last: dict[str, _Last] = field(default_factory=dict)
    _merged: dict[tuple[str, str], int] = field(default_factory=dict)
    _classes: dict[str, _Class] = field(default_factory=dict)

    def add(
        self, frame: int, objects: Sequence[SessionObject], prompted: frozenset[str] = frozenset()
    ) -> list[Suspect]:
        """Take in one frame; returns what is suspected on it.

        A target that is prompted on this frame may well go elsewhere.
        """
        before = len(self.found)
        seen = [entry for entry in objects if _is_tracked(entry)]
        for entry in seen:
            if entry.name not in prompted:
                self._watch_place(frame, entry)
                self._watch_class(frame, entry)
            else:
                self._classes.pop(entry.name, None)
        self._watch_pairs(frame, seen)
        self._last = {
            entry.name: _Last(entry.mask, entry.box, entry.centroid, frame)
            for entry in seen
            if entry.box is not None and entry.centroid is not None
        }
        alive = {entry.name for entry in objects}
        self._classes = {name: kept for name, kept in self._classes.items() if name in alive}
        return self.found[before:]

    def _watch_place(self, frame: int, entry: SessionObject) -> None:
        last = self._last.get(entry.name)
        if last is None or entry.centroid is None or last.mask.shape != entry.mask.shape:
            return
        moved = float(np.hypot(*np.subtract(entry.centroid, last.centre)))
        share = moved / float(np.hypot(*entry.mask.shape))
        if share < self.settings.jump_share:
            return
        overlap = region_similarity(entry.mask, last.mask)
        if overlap <= self.settings.jump_iou:
            self._tell(
                frame, entry.name, "jumped",
                f"the mask moved by {moved:.0f} pixels between two frames and left its place",
            )  # fmt: skip

    def _watch_class(self, frame: int, entry: SessionObject) -> None:
        kept = self._classes.setdefault(entry.name, _Class())
        name = entry.class_name or UNKNOWN
        if name != kept.candidate:
            kept.candidate, kept.since = name, frame
        if name in (UNKNOWN, kept.settled) or frame - kept.since + 1 < self.settings.class_frames:
            return
        if kept.settled != UNKNOWN:
            self._tell(
                kept.since, entry.name, "class",
                f"the class changed from {kept.settled} to {name} and stayed so",
            )  # fmt: skip
        kept.settled = name

    def _watch_pairs(self, frame: int, seen: Sequence[SessionObject]) -> None:
        merged = {}
        for i, left in enumerate(seen):
            for right in seen[i + 1 :]:
                if not _boxes_meet(left.box, right.box):
                    continue
                if region_similarity(left.mask, right.mask) < self.settings.merged_iou:
                    continue
                pair = (left.name, right.name)
                merged[pair] = self._merged.get(pair, 0) + 1
                if merged[pair] == self.settings.merged_frames:
                    self._tell(
                        frame, left.name, "merged",
                        f"{left.name} and {right.name} have had the same mask for "
                        f"{merged[pair]} frames",
                    )  # fmt: skip
        self._merged = merged

    def _tell(self, frame: int, target: str, kind: str, text: str) -> None:
        self.found.append(Suspect(frame, target, kind, text))


def _is_tracked(entry: SessionObject) -> bool:
    return TrackState(entry.state) is TrackState.TRACKING and entry.area > 0


def _boxes_meet(a: Any, b: Any) -> bool:
    return bool(a and b and a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
