"""What an operator may call a target."""

from __future__ import annotations

import difflib

from sam2s_model.classes import INSTRUMENTS, TISSUES
from sam2s_model.errors import Sam2sError


class UnknownClassError(Sam2sError):
    """A class name that is in no bank."""


def checked_class(name: str, labels: tuple[str, ...]) -> str:
    """Accept an empty name, one of the tracker's classes, or one of the shipped bank's."""
    known = (*labels, *(c for c in (*INSTRUMENTS, *TISSUES) if c not in labels))
    if not name or name in known:
        return name
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise UnknownClassError(
        f"there is no class '{name}'.{hint} Leave it empty, or give one of: {', '.join(known)}"
    )
