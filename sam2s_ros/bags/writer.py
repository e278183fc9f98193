"""Writing bags."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from rclpy.serialization import serialize_message
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from sam2s_ros.bags.definitions import definitions
from sam2s_ros.bags.errors import BagExistsError

Storage = Literal["sqlite3", "mcap"]
# `file` and `message` are rosbag2's own modes, `chunk` is mcap's.
Compression = Literal["none", "file", "message", "chunk"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)

# Humble still reads it; from 9 on, QoS is written in a way that it does not understand.
METADATA_VERSION: Literal[8] = 8

_MODES = {
    "none": CompressionMode.NONE,
    "file": CompressionMode.FILE,
    "message": CompressionMode.MESSAGE,
    "chunk": CompressionMode.STORAGE,
}
_PLUGINS = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
_FOREVER = QosTime(9223372036, 854775807)


def qos(depth: int = 10, reliable: bool = True, latched: bool = False) -> Qos:
    """Describe the quality of service with which a topic shall be played."""
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


class BagWriter:
    """A bag under construction; it appears under its name when it is complete.

    The same messages give the same bag to the last bit, on every run. Used as a context manager; an
    exception inside leaves nothing behind.

    Args:
        path: the bag's folder, which must not exist yet.
        storage: sqlite3, which every distribution reads, or mcap.
        compression: see `Compression`; all use zstd.
        custom: texts for the metadata's custom_data.
    """

    def __init__(
        self,
        path: Path,
        storage: Storage = "sqlite3",
        compression: Compression = "none",
        custom: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        if path.exists():
            raise BagExistsError(f"{path} exists already; give another name or remove it")
        # The storage file is named after its folder, so the folder has its name from the start.
        self._writer = Writer(
            self._part / path.name, version=METADATA_VERSION, storage_plugin=_PLUGINS[storage]
        )
        self._writer.set_compression(_MODES[compression], CompressionFormat.ZSTD)
        for key, value in (custom or {}).items():
            self._writer.set_custom_data(key, value)
        self._topics: dict[str, Connection] = {}
        self._digest = hashlib.sha256()

    def __enter__(self) -> BagWriter:
        shutil.rmtree(self._part, ignore_errors=True)
        self._writer.open()
        return self

    def add_topic(self, topic: str, message: type[Any], profiles: Sequence[Qos] = ()) -> None:
        """Announce a topic and its message class; one without messages is in the bag too."""
        kind = type_name(message)
        definition = definitions().of(kind)
        self._topics[topic] = self._writer.add_connection(
            topic,
            kind,
            msgdef=definition.text,
            rihs01=definition.digest,
            offered_qos_profiles=profiles or (qos(),),
        )

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Append a message, as recorded at `stamp_ns`."""
        if topic not in self._topics:
            self.add_topic(topic, type(message))
        connection = self._topics[topic]
        data = definitions().canonical(serialize_message(message), connection.msgtype)
        self._writer.write(connection, stamp_ns, data)
        self._digest.update(f"{topic} {stamp_ns} {len(data)}\n".encode())
        self._digest.update(data)

    def add_file(self, name: str, text: str) -> None:
        """Put a text file into the bag's folder."""
        (self._part / self.path.name / name).write_text(text, encoding="utf-8")

    @property
    def digest(self) -> str:
        """SHA-256 of all messages so far with their topics and times, in order."""
        return self._digest.hexdigest()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.__exit__(kind, error, trace)
            if kind is None:
                (self._part / self.path.name).replace(self.path)
        finally:
            shutil.rmtree(self._part, ignore_errors=True)


def type_name(message: type[Any]) -> str:
    """Name a message class the way bags do: `sensor_msgs/msg/Image`."""
    package, folder = message.__module__.split(".")[:2]
    return f"{package}/{folder}/{message.__name__}"
