"""Whether an image is new, by its stamp."""

from __future__ import annotations

from enum import Enum

NANO = 1_000_000_000


class Arrival(Enum):
    """How an image's stamp relates to the newest one before it."""

    NEW = "new"
    REPEATED = "repeated"  # the same stamp again: to be skipped
    LATE = "late"  # out of order: to be skipped
    JUMPED = "jumped"  # so far back that the clock must have jumped: to be tracked


class StampGate:
    """Follows the stamps of a stream.

    Args:
        jump_back: seconds by which a stamp may lie behind the newest and still count as late.
    """

    def __init__(self, jump_back: float) -> None:
        self.jump_back = jump_back
        self.newest_ns: int | None = None

    def judge(self, stamp_ns: int) -> Arrival:
        """Judge a stamp; a NEW or JUMPED one becomes the newest."""
        newest = self.newest_ns
        if newest is not None and stamp_ns == newest:
            return Arrival.REPEATED
        if newest is not None and 0 < newest - stamp_ns <= self.jump_back * NANO:
            return Arrival.LATE
        self.newest_ns = stamp_ns
        return Arrival.NEW if newest is None or stamp_ns > newest else Arrival.JUMPED
