"""Which value each target has in label maps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sam2s_model.errors import Sam2sError

VALUES = range(1, 256)  # 0 is the background


class NoLabelValueError(Sam2sError):
    """All 255 values of a label map are taken."""


class LabelValues:
    """Gives values 1..255 out; one that was given back is used again last."""

    def __init__(self) -> None:
        self._free = deque(VALUES)

    def take(self) -> int:
        """Take the value that has been free longest."""
        if not self._free:
            raise NoLabelValueError(
                "255 targets are tracked, a label map holds no more: remove one"
            )
        return self._free.popleft()

    def give_back(self, value: int) -> None:
        """Free a value."""
        self._free.append(value)

    @property
    def free(self) -> list[int]:
        """The free values in the order in which they will be taken."""
        return list(self._free)

    def restore(self, free: Iterable[int]) -> None:
        """Take over what `free` was."""
        self._free = deque(int(value) for value in free)
