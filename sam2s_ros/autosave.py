"""Keeps a session's state in a file, so that a new process goes on after a crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sam2s_model.errors import Sam2sError
from sam2s_ros.session import Session
from sam2s_ros.state_file import StateFileError, StateWriter, read_state


class Autosave:
    """Saves at once when targets have come or gone, and else from time to time.

    Args:
        path: where to.
        period: seconds between two savings; asked for each time, because it may change.
        trouble: is told when a state cannot be written.
    """

    def __init__(
        self, path: Path, period: Callable[[], float], trouble: Callable[[str], None]
    ) -> None:
        self.path, self._period = path, period
        self._writer = StateWriter(path, lambda error: trouble(str(error)))
        self._last = 0.0
        self._owed = False  # a change that is not saved yet

    def follow(self, session: Session, changed: bool) -> None:
        """Look at a session between two frames; called from the worker's thread."""
        self._owed = self._owed or changed
        due = time.monotonic() - self._last >= self._period()
        if not (self._owed or (due and session.targets)) or self._writer.busy:
            return
        self._last, self._owed = time.monotonic(), False
        self._writer.put(session.state_dict())

    def save(self, session: Session) -> None:
        """Save now; the file is written soon after."""
        self._writer.put(session.state_dict())

    def close(self) -> None:
        """Write what is left and end."""
        self._writer.close()

    def forget(self) -> None:
        """Remove the file, after `close`."""
        self.path.unlink(missing_ok=True)


def resume(session: Session, path: Path, max_age: float) -> str:
    """Go on from a saved state if there is one that is fresh enough; says what came of it."""
    if not path.exists():
        return ""
    try:
        state = read_state(path)
        age = time.time() - state["saved_at"]
        if max_age and age > max_age:
            return (
                f"{path} is {age:.0f} s old (autosave_max_age {max_age:g} s) and not gone on from"
            )
        session.load_state_dict(state)
    except (StateFileError, Sam2sError) as error:
        return f"the saved targets are not gone on from: {error}"
    names = ", ".join(standing.name for standing in session.targets) or "no targets"
    return f"goes on from {path}, saved {age:.1f} s ago, with {names}"
