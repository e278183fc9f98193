"""Whether a runtime works on two things at the same time: an image ahead, and the one before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Lanes:
    """Counts the threads that are at work with a runtime."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Be at work within this block."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    @property
    def shared(self) -> bool:
        """Whether somebody else is at work beside the one who asks."""
        return self._busy > 1
