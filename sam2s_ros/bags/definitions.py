"""Definitions of message types, as bags carry them so that others can read their messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from sam2s_ros.bags.errors import UnknownTypeError


class Definition(NamedTuple):
    """A type's text in .msg format with all types that it contains, and its RIHS01 hash."""

    text: str
    digest: str


class Definitions:
    """Message types of ROS 2 itself, and of installed packages by their .msg files."""

    def __init__(self) -> None:
        self.store = get_typestore(Stores.ROS2_KILTED)

    def of(self, kind: str) -> Definition:
        """Give a type's definition; `kind` is written like `sensor_msgs/msg/Image`."""
        self._learn(kind)
        text, _ = self.store.generate_msgdef(kind, ros_version=2)
        return Definition(text, self.store.hash_rihs01(kind))

    def canonical(self, data: bytes, kind: str) -> bytes:
        """Set the padding bytes of a serialised message to zero.

        The middleware leaves in them whatever was in memory before, which would make two bags of
        the same messages differ.
        """
        self._learn(kind)
        return bytes(self.store.serialize_cdr(self.store.deserialize_cdr(data, kind), kind))

    def _learn(self, kind: str) -> None:
        """Take up a type, and those that it contains, from the files of installed packages."""
        if kind in self.store.fielddefs:
            return
        found = dict(get_types_from_msg(_message_file(kind).read_text(encoding="utf-8"), kind))
        for part in sorted(_contained(found)):
            if part not in found:
                self._learn(part)
        if kind not in self.store.fielddefs:
            self.store.register(found)


@lru_cache(maxsize=1)
def definitions() -> Definitions:
    """Share one set of definitions in a process: making the type store takes a while."""
    return Definitions()


def _contained(types: object) -> set[str]:
    """Collect the names of message types in rosbags' description of fields."""
    if isinstance(types, dict):
        return set().union(*(_contained(value) for value in types.values())) if types else set()
    if isinstance(types, (tuple, list)):
        return set().union(*(_contained(value) for value in types)) if types else set()
    return {types} if isinstance(types, str) and types.count("/") == 2 else set()


def _message_file(kind: str) -> Path:
    package, _, name = kind.split("/")
    for prefix in _prefixes():
        path = prefix / "share" / package / "msg" / f"{name}.msg"
        if path.is_file():
            return path
    raise UnknownTypeError(
        f"the type {kind} is not installed here: source the workspace that has {package}"
    )


def _prefixes() -> Iterator[Path]:
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix)
    yield Path(sys.prefix)
    # Where a checkout has built its own messages, and nothing was sourced.
    for folder in map(Path, sys.path):
        if (folder / "sam2s_msgs" / "__init__.py").is_file() and len(folder.parents) > 2:
            yield folder.parents[2]
