"""Reading what is whole of storage files that end in the middle.

Both readers go through the file in the order in which it was written and stop where it breaks.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

MCAP_MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK = 3, 4, 5, 6  # records of mcap
LONGEST_RECORD = 1 << 31  # bytes; a longer one is damage, not data


class Found(NamedTuple):
    """A message in a storage file."""

    topic: str
    kind: str
    time_ns: int
    data: bytes


class Broken(Exception):  # noqa: N818 - it ends the reading, it is no error to report by itself
    """Where a file ends in the middle."""


class McapSalvage:
    """A .mcap file without its end; messages of a chunk come in the order of their times."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def topics(self) -> dict[str, str]:
        """Names and types of the topics; the whole file is read for this."""
        for _ in self._scan(None):
            pass
        return dict(self._channels.values())

    def messages(self, topics: Collection[str]) -> Iterator[Found]:
        """Yield the messages of these topics until the file breaks off."""
        return self._scan(set(topics))

    def _scan(self, wanted: set[str] | None) -> Iterator[Found]:
        with self.path.open("rb") as file:
            if file.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                return
            try:
                while True:
                    code, record = _record(file)
                    if code == CHUNK:
                        found = list(self._chunk(record, wanted))
                        yield from sorted(found, key=lambda message: message.time_ns)
                    else:
                        yield from self._plain(code, record, wanted)
            except Broken as broken:
                part: bytes | None = broken.args[0] if broken.args else None
                if part is not None:
                    yield from sorted(self._chunk(part, wanted), key=lambda m: m.time_ns)

    def _chunk(self, record: bytes, wanted: set[str] | None) -> Iterator[Found]:
        """Read the records of a chunk, as many as there are."""
        if len(record) < 40:
            return
        (length,) = struct.unpack_from("<I", record, 28)
        name = record[32 : 32 + length].decode(errors="replace")
        inner = io.BytesIO(_unpacked(record[40 + length :], name))
        try:
            while True:
                yield from self._plain(*_record(inner), wanted)
        except Broken:
            return

    def _plain(self, code: int, record: bytes, wanted: set[str] | None) -> Iterator[Found]:
        try:
            if code == SCHEMA:
                (key,) = struct.unpack_from("<H", record)
                self._schemas[key] = _text(record, 2)[0]
            elif code == CHANNEL:
                key, schema = struct.unpack_from("<HH", record)
                topic, place = _text(record, 4)
                encoding, _ = _text(record, place)
                if encoding == "cdr":
                    self._channels[key] = (topic, self._schemas.get(schema, ""))
            elif code == MESSAGE and wanted is not None:
                key, _, time_ns = struct.unpack_from("<HIQ", record)
                topic, kind = self._channels.get(key, ("", ""))
                if topic in wanted:
                    yield Found(topic, kind, time_ns, record[22:])
        except struct.error:
            return


class SqliteSalvage:
    """A .db3 file without its end, in the order of recording."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def topics(self) -> dict[str, str]:
        """Names and types of the topics; empty if even these are lost."""
        try:
            with _Database(self.path) as database:
                return dict(database.execute("SELECT name, type FROM topics").fetchall())
        except sqlite3.Error:
            return {}

    def messages(self, topics: Collection[str]) -> Iterator[Found]:
        """Yield the messages of these topics until the file breaks off."""
        try:
            with _Database(self.path) as database:
                rows = database.execute("SELECT id, name, type FROM topics").fetchall()
                known = {key: (name, kind) for key, name, kind in rows if name in topics}
                # By row number: the index by time may be what is lost.
                query = "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
                for key, time_ns, data in database.execute(query):
                    if key in known:
                        yield Found(*known[key], time_ns, data)
        except sqlite3.Error:
            return


class _Database:
    """A database opened without its integrity being asked for."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"file:{path.resolve().as_posix()}?mode=ro&immutable=1", uri=True,
            check_same_thread=False,
        )  # fmt: skip

    def __enter__(self) -> sqlite3.Connection:
        # Without this SQLite refuses a file that is shorter than its header says.
        self._connection.execute("PRAGMA writable_schema=ON")
        return self._connection

    def __exit__(self, *error: object) -> None:
        self._connection.close()


def _record(file: BinaryIO) -> tuple[int, bytes]:
    """Read one record of mcap; a chunk that is cut short comes with `Broken`."""
    head = file.read(9)
    if len(head) < 9:
        raise Broken
    code, length = struct.unpack("<BQ", head)
    if not code or length > LONGEST_RECORD:
        raise Broken
    data = file.read(length)
    if len(data) < length:
        raise Broken(data) if code == CHUNK else Broken
    return code, data


def _text(record: bytes, place: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", record, place)
    end = place + 4 + length
    return record[place + 4 : end].decode(errors="replace"), end


def _unpacked(data: bytes, compression: str) -> bytes:
    """Decompress as much as there is."""
    if not compression:
        return data
    unpacker = ZstdDecompressor() if compression == "zstd" else LZ4FrameDecompressor()
    parts = []
    try:
        for start in range(0, len(data), 1 << 16):
            parts.append(unpacker.decompress(data[start : start + (1 << 16)]))
            if unpacker.eof:
                break
    except (ZstdError, RuntimeError, EOFError, ValueError, OSError):
        pass  # what came out before the damage is whole
    return b"".join(parts)
