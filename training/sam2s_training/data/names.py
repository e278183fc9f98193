"""Class names of a data set against those of the text bank."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from sam2s_model.classes import INSTRUMENTS, TISSUES, UNKNOWN
from sam2s_training.data.clip import NO_CLASS
from sam2s_training.data.errors import UnknownClassError


class ClassNumbers:
    """Gives an instrument its number in the text bank, and a tissue none.

    Args:
        instruments: the bank's instruments, in its order.
        tissues: names that are known and take no part in naming targets.
    """

    def __init__(
        self, instruments: Sequence[str] = INSTRUMENTS, tissues: Sequence[str] = TISSUES
    ) -> None:
        self.instruments = tuple(instruments)
        self._numbers = {
            **dict.fromkeys((*tissues, UNKNOWN), NO_CLASS),
            **{name: number for number, name in enumerate(instruments)},
        }

    def of(self, name: str, where: str) -> int:
        """Number a name; refuse one that the bank lacks, `where` naming the place it stands."""
        if name not in self._numbers:
            near = difflib.get_close_matches(name, self._numbers, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownClassError(
                f"{where}: the class {name!r} is not in the text bank; {hint}Known are "
                f"{', '.join(self._numbers)}"
            )
        return self._numbers[name]
