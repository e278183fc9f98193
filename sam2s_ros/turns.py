"""How soon a thread that waits for Python's interpreter gets it."""

from __future__ import annotations

import sys

TURN = 0.0005  # seconds after which a thread that works gives way


def take_short_turns() -> None:
    """Let threads of this process give way to each other after half a millisecond.

    One thread receives images while another tracks. Whichever wakes up waits for the other's turn
    to end, by default up to five milliseconds each time.
    """
    sys.setswitchinterval(TURN)
