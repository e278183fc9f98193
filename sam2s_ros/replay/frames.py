"""Images of a bag as frames, decoded ahead of the tracker by a thread of their own."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2s_model.errors import Sam2sError
from sam2s_ros.bags.errors import TopicTypeError, UnknownTopicError
from sam2s_ros.bags.reader import Bag, Message, Topic, decode, header_stamp, seconds
from sam2s_ros.conversions import ConversionError, image_to_rgb
from sam2s_ros.stamps import Arrival, StampGate

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CLASSES = {IMAGE: Image, COMPRESSED: CompressedImage}
# Pictures that trackers and simulators publish beside the camera's.
NOT_CAMERAS = ("label_map", "overlay", "overlay/compressed", "mask", "depth")
AHEAD = 4  # frames decoded before they are asked for: enough to hide a slow chunk of the bag
NAMED = 3  # problems of one kind that are named each; the rest is counted
PEEK = 50  # messages whose stamps give the frame rate


@dataclass(frozen=True)
class Frame:
    """One image of the bag."""

    index: int  # of the frames that could be decoded
    stamp_ns: int
    recorded_ns: int
    frame_id: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB


def image_topic(bag: Bag, wanted: str | None) -> Topic:
    """Choose the topic of images: the one asked for, or the only one that can be a camera's."""
    if wanted is not None:
        return bag.require(wanted, tuple(CLASSES))
    images = bag.of_kind(*CLASSES)
    cameras = [topic for topic in images if not topic.name.endswith(NOT_CAMERAS)]
    if len(cameras) == 1:
        return cameras[0]
    if not images:
        known = [(topic.name, topic.kind) for topic in bag.topics.values()]
        raise UnknownTopicError(bag.path, f"of images ({' or '.join(CLASSES)})", known)
    names = ", ".join(topic.name for topic in cameras or images)
    raise TopicTypeError(f"{bag.path} holds several topics of images: choose by --topic: {names}")


def frame_rate(bag: Bag, topic: str) -> float | None:
    """Estimate frames a second from the first stamps; None where there are too few."""
    stamps = [header_stamp(message.data) for message in islice(bag.messages(topic), PEEK)]
    steps = np.diff(np.array(stamps, np.int64))
    steps = steps[steps > 0]
    return round(1e9 / float(np.median(steps)), 3) if steps.size else None


class FrameReader:
    """Reads a bag's images in order; what the node would not track is reported and left out.

    That is an image that cannot be decoded, repeats a stamp or comes out of order.

    It reads a copy of the bag's reader, because its thread reads while others do. The figures below
    are complete when all frames have been read.
    """

    def __init__(self, bag: Bag, topic: Topic, jump_back: float) -> None:
        self._bag, self._topic = bag, topic
        self._gate = StampGate(jump_back)
        self._problems: list[str] = []
        self._kinds: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        self.bag_problems: list[str] = []
        self.skipped = 0  # images without a result
        self.backward = 0  # images whose stamp did not grow

    @property
    def digest(self) -> str:
        """SHA-256 of the images' bytes as they are in the bag."""
        return self._digest.hexdigest()

    @property
    def problems(self) -> list[str]:
        """What was wrong, several of a kind counted."""
        more = [
            f"{self._topic.name}: {total - NAMED} more like this: {kind}"
            for kind, total in self._kinds.items()
            if total > NAMED
        ]
        return [*self.bag_problems, *self._problems, *more]

    def __iter__(self) -> Iterator[Frame]:
        ready: queue.Queue[Frame | Exception | None] = queue.Queue(AHEAD)
        ended = threading.Event()

        def put(item: Frame | Exception | None) -> bool:
            while not ended.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for frame in self._decoded():
                    if not put(frame):
                        return
                put(None)
            except Exception as error:  # for the main thread to raise
                put(error)

        thread = threading.Thread(target=work, name="bag reader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            ended.set()
            thread.join()

    def _decoded(self) -> Iterator[Frame]:
        index = 0
        with self._bag.again() as bag:
            for message in bag.messages(self._topic.name):
                self._digest.update(message.data)
                frame = self._frame(message, index)
                if frame is not None:
                    index += 1
                    yield frame
            self.bag_problems = bag.problems

    def _frame(self, message: Message, index: int) -> Frame | None:
        try:
            decoded = decode(message, CLASSES[self._topic.kind])
            image = image_to_rgb(decoded)
        except (ConversionError, Sam2sError) as error:
            self.skipped += 1
            at = f"{self._topic.name}, recorded at {seconds(message.time_ns)}"
            self._report(type(error).__name__, f"{at}: {error}; the image was left out")
            return None
        stamp_ns = decoded.header.stamp.sec * 1_000_000_000 + decoded.header.stamp.nanosec
        newest = self._gate.newest_ns
        arrival = self._gate.judge(stamp_ns)
        if arrival is not Arrival.NEW:
            self._report(*_unruly(arrival, self._topic.name, index, stamp_ns, newest or 0))
            self.backward += 1
            if arrival is not Arrival.JUMPED:
                self.skipped += 1
                return None
        return Frame(index, stamp_ns, message.time_ns, decoded.header.frame_id, image)

    def _report(self, kind: str, what: str) -> None:
        self._kinds[kind] += 1
        if self._kinds[kind] <= NAMED:
            self._problems.append(what)


def _unruly(
    arrival: Arrival, topic: str, index: int, stamp_ns: int, newest_ns: int
) -> tuple[str, str]:
    """Describe an image whose stamp does not grow: the kind of problem, and this one."""
    stamps = f"{seconds(stamp_ns)} after {seconds(newest_ns)}"
    if arrival is Arrival.REPEATED:
        return (
            "repeated stamps",
            f"{topic}: an image repeats the stamp {seconds(stamp_ns)}; it "
            "was left out, as by the node",
        )
    if arrival is Arrival.LATE:
        return (
            "stamps out of order",
            f"{topic}: an image comes out of order (stamp {stamps}); "
            "it was left out, as by the node",
        )
    return (
        "stamps that go back",
        f"{topic}: at frame {index} the stamps go back ({stamps}); tracking went on",
    )
