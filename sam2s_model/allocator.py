"""How the C library keeps freed memory, which the next frame asks for again."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_HEAP_BLOCK = 32 << 20  # bytes; the most that glibc takes as M_MMAP_THRESHOLD
KEPT = 1 << 30  # bytes of freed memory that stay with the process


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep what a frame frees for the next one; True if it does from now on.

    By default it returns the end of its heap to the system and maps large blocks anew, so that
    each frame faults the same pages in again: a fifth of nano's time, and a resident size that
    jumps by some percent. It is a setting of the whole process; SAM2S_MALLOC=default leaves it.
    """
    if sys.platform != "linux" or os.environ.get("SAM2S_MALLOC") == "default":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    kept = mallopt(M_TRIM_THRESHOLD, KEPT)
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK) and kept)
