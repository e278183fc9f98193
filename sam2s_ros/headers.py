"""Stamps as whole nanoseconds, and the header of everything that is computed from one image."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

NANO = 1_000_000_000


def time_message(stamp_ns: int) -> Time:
    """Split nanoseconds into a message."""
    seconds, nanoseconds_left = divmod(stamp_ns, NANO)
    return Time(sec=seconds, nanosec=nanoseconds_left)


def nanoseconds(time: Time) -> int:
    """Join a message's seconds and nanoseconds."""
    return int(time.sec) * NANO + int(time.nanosec)


def header_message(stamp_ns: int, frame_id: str) -> Header:
    """Make a header."""
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)
