"""When to begin to prepare the next image while one is tracked. ROS-free; times are in seconds."""

from __future__ import annotations

from collections import deque
from statistics import median

KEPT = 9  # durations of each kind, of which the middle one counts
SLACK = 0.1  # share of a preparation by which it may take longer than usual
# Share of a preparation for which it is put off if the other image will be done by then: alone it
# has all cores, and makes up for the wait.
PATIENCE = 0.4


class Lead:
    """Watches how long images are tracked and prepared.

    An image that is ready long before the one before it has been tracked only grows old, while a
    newer one could have been taken in its place. So its preparation is to end when the other ends;
    and when the other is about to end anyway, it begins after that.
    """

    def __init__(self) -> None:
        self._tracked: deque[float] = deque(maxlen=KEPT)
        self._prepared: deque[float] = deque(maxlen=KEPT)

    def note_tracked(self, seconds: float) -> None:
        """Note how long an image was tracked."""
        self._tracked.append(seconds)

    def note_prepared(self, seconds: float) -> None:
        """Note how long an image was prepared."""
        self._prepared.append(seconds)

    def wait(self, elapsed: float) -> float:
        """Seconds before preparing should begin, when an image has been tracked for `elapsed`."""
        if not (self._tracked and self._prepared):
            return 0.0
        preparation = median(self._prepared)
        left = median(self._tracked) - elapsed
        if left < PATIENCE * preparation:
            return max(0.0, left)
        return max(0.0, left - (1.0 + SLACK) * preparation)
