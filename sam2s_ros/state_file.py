"""A session's state in a file: complete or not there, and read without running anything in it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sam2s_model.errors import Sam2sError
from sam2s_model.whole_file import whole_file


class StateFileError(Sam2sError):
    """A state file that cannot be written, or read."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state so that a crash at any moment leaves the former file or the new one."""
    try:
        with whole_file(path, durable=True) as part:
            torch.save({**state, "saved_at": time.time()}, part)
    except (OSError, RuntimeError) as error:
        raise StateFileError(
            f"the state could not be written to {path} ({error}); give a path in a folder that "
            "the node may write to"
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a state; `saved_at` in it is the time of writing, seconds since 1970."""
    if not path.is_file():
        raise StateFileError(f"there is no file {path}; give the path of a saved state")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StateFileError(
            f"{path} is no saved state, or a damaged one ({reason}); give a file that "
            "~/save_state wrote"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("saved_at"), float):
        raise StateFileError(f"{path} is no saved state; give a file that ~/save_state wrote")
    return state


class StateWriter:
    """Writes states in a thread of its own, so that tracking does not wait for the disk.

    Args:
        path: where to.
        on_error: is told, from the writer's thread, that a state could not be written.
    """

    def __init__(self, path: Path, on_error: Callable[[StateFileError], None]) -> None:
        self.path, self._on_error = path, on_error
        for leftover in path.parent.glob(f".{path.name}.*.part"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        self._condition = threading.Condition()
        self._next: Mapping[str, Any] | None = None
        self._busy = self._ended = False
        self._thread = threading.Thread(target=self._run, name="state writer", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a state is still to be written."""
        with self._condition:
            return self._busy or self._next is not None

    def put(self, state: Mapping[str, Any]) -> None:
        """Have a state written, instead of one that still waits."""
        with self._condition:
            self._next = state
            self._condition.notify()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left and end."""
        with self._condition:
            self._ended = True
            self._condition.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.wait_for(lambda: self._next is not None or self._ended)
                state, self._next = self._next, None
                if state is None:
                    return
                self._busy = True
            try:
                write_state(self.path, state)
            except StateFileError as error:
                self._on_error(error)
