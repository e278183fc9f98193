"""When the next image of a stream is to be expected. ROS-free; times are monotonic seconds."""

from __future__ import annotations

from collections import deque
from statistics import median

GAPS = 9  # between images, of which the middle one counts: some may be lost, others come at once
ENOUGH = 5  # such gaps, before anything is expected
SLACK = 0.25  # share of an interval by which an image may come late


class Pace:
    """Watches images arrive.

    A worker that becomes free when the newest image is older than one interval may start on it, or
    wait for the next one: that has been taken already and is on its way. What is on its way comes
    in a moment, and all results are then fresher.
    """

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._last: float | None = None

    def note(self, now: float) -> None:
        """Note that an image has come."""
        if self._last is not None:
            self._gaps.append(now - self._last)
        self._last = now

    @property
    def interval(self) -> float | None:
        """Seconds between two images; None as long as too few have come."""
        return median(self._gaps) if len(self._gaps) >= ENOUGH else None

    def worth_waiting(self, arrived: float, age: float | None, now: float) -> float:
        """Seconds for which to wait for a newer image than the one that has `arrived`; 0: start.

        Args:
            arrived: when the image came.
            age: what its stamp lay behind the clock then, in seconds; None if that is unknown.
            now: the present time.
        """
        interval = self.interval
        if age is None or interval is None or not 0.0 <= age < interval:
            return 0.0  # without a clock that both share, nobody knows what is on its way
        if age + now - arrived <= interval:
            return 0.0
        return max(0.0, arrived + (1.0 + SLACK) * interval - now)
