"""Turns a tracker's results into a page for a person: rates, latencies, targets, events."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

from sam2s_model.table import markdown_table
from sam2s_ros.tracker_client import STATES

WINDOW = 250  # results that rate and latencies are taken over
EVENTS = 5  # of the newest, shown
STALE_SECONDS = 1.0  # without a result, after which the page says so

Row = tuple[int, float, float, float]  # stamp in ns; receipt in s; milliseconds: age, inference


class Monitor:
    """Keeps the last results and events of one tracker; times are those of the caller's clocks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._rows: deque[Row] = deque(maxlen=WINDOW)
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._newest: Any = None

    @property
    def results(self) -> int:
        """Results in the window."""
        return len(self._rows)

    def on_objects(self, message: Any, now: float, now_ns: int) -> None:
        """Take a TrackedObjects received at `now` (s, monotonic), which is `now_ns` by ROS."""
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self._rows.append((stamp, now, (now_ns - stamp) / 1e6, message.timing.inference))
        self._newest = message

    def on_event(self, message: Any) -> None:
        """Take a TrackEvent."""
        stamp = message.header.stamp
        self._events.append(f"{stamp.sec}.{stamp.nanosec // 10**6:03d} {message.message}")

    def page(self, now: float) -> str:
        """Lay out what is known at `now`."""
        lines = [f"{self.name}: {self._stream(now)}"]
        if self._newest is not None:
            lines += ["", self._targets() if self._newest.objects else "no targets"]
        if self._events:
            lines += ["", *self._events]
        return "\n".join(lines)

    def _stream(self, now: float) -> str:
        if not self._rows:
            return "no result yet"
        if now - self._rows[-1][1] > STALE_SECONDS:
            return f"no result for {now - self._rows[-1][1]:.1f} s"
        ages = sorted(row[2] for row in self._rows)
        worst = ages[min(len(ages) - 1, int(0.99 * len(ages)))]
        inference = statistics.median(row[3] for row in self._rows)
        timing = self._newest.timing
        skipped = f"{timing.frames_skipped} of {timing.frames_received} frames skipped"
        return (
            f"{self._newest.width}×{self._newest.height}, {self._rate():.1f} Hz, image to here "
            f"p50 {statistics.median(ages):.0f} ms p99 {worst:.0f} ms, inference "
            f"{inference:.0f} ms, {skipped}"
        )

    def _rate(self) -> float:
        first, last = self._rows[0][1], self._rows[-1][1]
        return (len(self._rows) - 1) / (last - first) if last > first else 0.0

    def _targets(self) -> str:
        header = ["label", "name", "state", "IoU", "presence", "class", "confidence", "area px"]
        rows = [
            [
                entry.label_value, entry.name, STATES[entry.state], f"{entry.iou:.2f}",
                f"{entry.presence:.2f}", entry.class_name, f"{entry.class_confidence:.2f}",
                entry.area,
            ]
            for entry in self._newest.objects
        ]  # fmt: skip
        return markdown_table(header, rows)
