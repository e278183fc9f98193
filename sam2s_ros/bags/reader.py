"""Reading bags: every message that is whole, in order, and what was wrong."""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader

from sam2s_ros.bags.errors import (
    BagError,
    TopicTypeError,
    UnknownTopicError,
    UnreadableBagError,
)
from sam2s_ros.bags.files import BagFiles, StorageFile, bag_files
from sam2s_ros.bags.salvage import McapSalvage, SqliteSalvage

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError, decompress
else:
    from backports.zstd import ZstdDecompressor, ZstdError, decompress

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # a serialised message begins with 00
_BLOCK = 1 << 20  # bytes read at once when unpacking a file


class Topic(NamedTuple):
    """A topic of a bag."""

    name: str
    kind: str  # such as sensor_msgs/msg/Image
    total: int | None  # messages; None where the file ends in the middle


class Message(NamedTuple):
    """A serialised message, and when it was recorded."""

    topic: str
    kind: str
    time_ns: int
    data: bytes


class UnreadableMessageError(BagError):
    """A message whose bytes do not fit its type."""


class Bag:
    """A bag opened for reading; a context manager.

    Files that end in the middle are read up to there. Whatever is not as it should be is a sentence
    in `problems`, which grows while messages are read.
    """

    def __init__(self, path: Path, files: BagFiles | None = None) -> None:
        self.path = path
        self._stack = ExitStack()
        found = files or bag_files(path)
        self._problems: dict[str, None] = dict.fromkeys(found.problems)
        self._parts: list[_Part] = []
        try:
            for file in found.files:
                part = _Part(file, self._stack, self._problems)
                if part.topics:
                    self._parts.append(part)
            if not self._parts:
                raise UnreadableBagError(
                    f"{path}: none of its files can be read: {'; '.join(self._problems)}"
                )
        except BaseException:
            self._stack.close()
            raise
        self.topics = self._all_topics()
        self._check_count(found.message_count)

    def again(self) -> Bag:
        """Open the bag once more, to read it at two places at once; not longer than this one."""
        return Bag(self.path, BagFiles([part.plain for part in self._parts]))

    @property
    def problems(self) -> list[str]:
        """What is wrong with the bag, as far as it has been read."""
        return list(self._problems)

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """Times of the first and the last message; None where a file ends in the middle."""
        spans = [part.span_ns for part in self._parts]
        known = [span for span in spans if span is not None]
        if len(known) < len(spans):
            return None
        return min(first for first, _ in known), max(last for _, last in known)

    def require(self, topic: str, kinds: Collection[str]) -> Topic:
        """Give a topic, which must be of one of these types."""
        if topic not in self.topics:
            known = [(t.name, t.kind) for t in self.topics.values()]
            raise UnknownTopicError(self.path, topic, known)
        found = self.topics[topic]
        if found.kind not in kinds:
            raise TopicTypeError(
                f"{self.path}: {topic} is of type {found.kind}; it must be {' or '.join(kinds)}"
            )
        return found

    def of_kind(self, *kinds: str) -> list[Topic]:
        """List the topics of these types."""
        return [topic for topic in self.topics.values() if topic.kind in kinds]

    def messages(self, *topics: str) -> Iterator[Message]:
        """Yield the messages of these topics by the time of their recording, file by file."""
        for part in self._parts:
            yield from part.messages(topics)

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _all_topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for part in self._parts:
            for topic in part.topics.values():
                before = topics.get(topic.name)
                if before is None:
                    topics[topic.name] = topic
                elif before.total is None or topic.total is None:
                    topics[topic.name] = before._replace(total=None)
                else:
                    topics[topic.name] = before._replace(total=before.total + topic.total)
        return topics

    def _check_count(self, promised: int | None) -> None:
        counts = [topic.total for topic in self.topics.values()]
        whole = sum(count for count in counts if count is not None)
        if promised is not None and None not in counts and whole != promised:
            self._problems[
                f"{self.path}/metadata.yaml promises {promised} messages, its files hold {whole}"
            ] = None


class _Part:
    """One file of a bag: read by rosbags where it is whole, else as far as it goes."""

    def __init__(self, file: StorageFile, stack: ExitStack, problems: dict[str, None]) -> None:
        self.file, self._problems = file, problems
        self.span_ns: tuple[int, int] | None = None
        self._reader: Reader | None = None
        self._why = ""
        path = _unpack(file, stack, problems) if file.packed else file.path
        self.plain = StorageFile(path, file.kind, str(file))
        try:
            reader = Reader(path)
            reader.open()
            stack.callback(reader.close)
            self._reader = reader
            self.topics = {
                c.topic: Topic(c.topic, c.msgtype, info.msgcount)
                for info in reader.topics.values()
                for c in info.connections
            }
            if reader.message_count:
                self.span_ns = (reader.start_time, reader.end_time - 1)
        except Exception as error:  # of damaged files, readers raise whatever comes to hand
            self._why = _sentence(error)
            salvage = McapSalvage if file.kind == "mcap" else SqliteSalvage
            self._salvage = salvage(path)
            self.topics = {
                name: Topic(name, kind, None) for name, kind in self._salvage.topics().items()
            }
            if not self.topics:
                problems[f"{file} cannot be read at all: {self._why}"] = None

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        if not any(topic in self.topics for topic in topics):
            return
        count, last = 0, None
        try:
            for message in self._all(topics):
                yield message
                count, last = count + 1, message.time_ns
        except Exception as error:  # see above
            self._why = _sentence(error)
        if self._why:
            end = "none of them is whole" if last is None else f"the last one at {seconds(last)} s"
            self._problems[
                f"{self.file} is cut short or damaged ({self._why}): {count} messages of "
                f"{', '.join(topics)} could be read, {end}"
            ] = None

    def _all(self, topics: Collection[str]) -> Iterator[Message]:
        if self._reader is None:
            for found in self._salvage.messages(topics):
                yield Message(found.topic, found.kind, found.time_ns, _plain(found.data))
            return
        wanted = [c for c in self._reader.connections if c.topic in topics]
        for connection, time_ns, data in self._reader.messages(wanted):
            yield Message(connection.topic, connection.msgtype, time_ns, _plain(data))


def decode(message: Message, kind: type[Any]) -> Any:
    """Make a message object of its bytes."""
    try:
        return deserialize_message(message.data, kind)
    except Exception as error:  # rclpy's own errors are private classes
        raise UnreadableMessageError(
            f"the message on {message.topic} recorded at {seconds(message.time_ns)} s is no "
            f"{message.kind}: {_sentence(error)}"
        ) from error


def header_stamp(data: bytes) -> int:
    """Read the stamp, in nanoseconds, of a serialised message that begins with a header."""
    if len(data) < 12:
        raise UnreadableMessageError(f"a message of {len(data)} bytes has no header")
    order = "<" if data[1] & 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def seconds(time_ns: int) -> str:
    """Write a time as seconds with all its digits."""
    return f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}"


def _plain(data: bytes) -> bytes:
    """Undo the compression of a single message."""
    return decompress(data) if data[:4] == _ZSTD_MAGIC else data


def _unpack(file: StorageFile, stack: ExitStack, problems: dict[str, None]) -> Path:
    """Unpack a compressed file into a temporary folder, as far as it goes."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sam2s-bag-")))
    path = folder / file.path.stem
    unpacker = ZstdDecompressor()
    with file.path.open("rb") as packed, path.open("wb") as plain:
        try:
            while not unpacker.eof and (block := packed.read(_BLOCK)):
                plain.write(unpacker.decompress(block))
        except ZstdError as error:
            problems[f"{file} is damaged: {_sentence(error)}"] = None
    return path


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
