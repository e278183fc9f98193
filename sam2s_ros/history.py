"""The frames of the last seconds, small enough to be kept, for prompts on an image of the past."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from sam2s_ros.session_types import Picture

NANO = 1_000_000_000


class PastFrame(NamedTuple):
    """A frame as the network saw it."""

    number: int  # of the frame, counted by the tracker
    stamp_ns: int
    frame_id: str
    height: int  # of the source image
    width: int
    picture: Picture  # shrunk to the network's input


class History:
    """Keeps frames in the order of their stamps, at most so many seconds and so many frames."""

    def __init__(self, seconds: float, frames: int) -> None:
        self.seconds, self.frames = seconds, frames
        self._kept: deque[PastFrame] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[PastFrame]:
        return iter(self._kept)

    def add(self, frame: PastFrame) -> None:
        """Keep a frame, and let go of what has become too old."""
        if self.seconds <= 0.0:
            return
        self._kept.append(frame)
        oldest = frame.stamp_ns - round(self.seconds * NANO)
        while self._kept[0].stamp_ns < oldest or len(self._kept) > self.frames:
            self._kept.popleft()

    def clear(self) -> None:
        """Forget all frames, for example because the clock has jumped."""
        self._kept.clear()

    def at(self, stamp_ns: int) -> PastFrame | None:
        """Find the frame nearest to a stamp; None if the stamp is older than all of them.

        Images that came while another was being computed were never tracked. A prompt on one of
        those is applied to its neighbour.
        """
        if not self._kept or stamp_ns < self._kept[0].stamp_ns:
            return None
        return min(self._kept, key=lambda frame: abs(frame.stamp_ns - stamp_ns))

    def since(self, number: int) -> PastFrame | None:
        """Find the earliest kept frame whose number is at least `number`."""
        return next((frame for frame in self._kept if frame.number >= number), None)
