"""What adds up over the frames of a replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sam2s_model.evaluation.settings import host, versions
from sam2s_ros.replay.results import summarise_tracks, timing
from sam2s_ros.replay.series import Tracks
from sam2s_ros.session import SessionEvent, SessionResult

TOTALS = ("inference", "total")  # timings that are sums of others


@dataclass
class Tally:
    """Targets, events, stamps, times and problems."""

    tracks: Tracks = field(default_factory=Tracks)
    stamps: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)  # of frames without a prompt
    stages_ms: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # height, width
    accepted: int = 0  # prompts

    def count(self, frame: int, result: SessionResult, removed: Sequence[SessionEvent]) -> None:
        """Take in one frame, and the removals before it."""
        self.stamps.append(result.stamp_ns)
        self.sizes[result.height, result.width] += 1
        for event in (*removed, *result.events):
            self.events.append(
                {
                    "frame": frame,
                    "stamp_ns": event.stamp_ns,
                    "kind": event.kind.name.lower(),
                    "target": event.target,
                    "message": event.message,
                }
            )
        if result.objects and not result.accepted:
            self.step_ms.append(result.timings["inference"] + result.timings["masks"])
            for stage, value in result.timings.items():
                if stage not in TOTALS:
                    self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + value

    def extent(self) -> dict[str, Any]:
        """Say how long and how large the images were; of several sizes, the most frequent."""
        (height, width), _ = self.sizes.most_common(1)[0]
        return {
            "frames": len(self.stamps),
            "height": height,
            "width": width,
            "first_stamp_ns": self.stamps[0],
            "last_stamp_ns": self.stamps[-1],
            "seconds": max(0, self.stamps[-1] - self.stamps[0]) / 1e9,
        }

    def as_json(self, seconds: float, fps: float | None) -> dict[str, Any]:
        """Give plain JSON values; `seconds` is how long it all took, `fps` the images' rate."""
        targets = [track.as_json() for track in self.tracks.all]
        steps = len(self.step_ms)
        stages = {name: total / steps for name, total in self.stages_ms.items()}
        return {
            "summary": summarise_tracks(targets),
            "targets": targets,
            "events": self.events,
            "problems": list(dict.fromkeys(self.problems)),
            "stamps_ns": self.stamps,
            "versions": versions(),
            "timing": timing(self.step_ms, stages, seconds, len(self.stamps), host(1), fps),
        }
