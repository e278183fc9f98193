"""What can be wrong with a bag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sam2s_model.errors import Sam2sError


class BagError(Sam2sError):
    """A bag that cannot be read or written."""


class NoBagError(BagError):
    """A path that holds no bag."""


class UnreadableBagError(BagError):
    """A bag of which not a single message can be read."""


class UnknownTopicError(BagError):
    """A topic that the bag does not hold."""

    def __init__(self, bag: Path, topic: str, known: Iterable[tuple[str, str]]) -> None:
        lines = "".join(f"\n  {name}  {kind}" for name, kind in sorted(known))
        super().__init__(f"{bag} holds no topic {topic}; it holds:{lines or ' none'}")


class TopicTypeError(BagError):
    """A topic of a type that does not serve its purpose."""


class UnknownTypeError(BagError):
    """A message type without a definition on this machine."""


class BagExistsError(BagError):
    """Something that is already under the name that a bag shall get."""
