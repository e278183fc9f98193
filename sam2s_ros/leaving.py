"""How a node's process ends."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process at once, after what was registered for its end.

    Python would first wait for threads and take a second or more to unload torch and DDS, while
    whoever sent the signal waits; and DDS's own threads may crash on what is being unloaded.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
