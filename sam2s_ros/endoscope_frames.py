"""Frames made ahead of time, so that the camera's rate does not hang on how long one takes."""

from __future__ import annotations

import contextlib
import itertools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from sensor_msgs.msg import CompressedImage, Image

from sam2s_msgs.msg import TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.compressed import rgb_to_compressed
from sam2s_ros.conversions import labels_to_image, rgb_to_image
from sam2s_ros.endoscope_sources import Source, SourceFrame
from sam2s_ros.ground_truth import true_objects

KEPT_LOOP = 256 << 20  # bytes: a loop up to this size is made once and then kept
IDLE_SECONDS = 0.1  # between looks whether the node has ended


class Frame(NamedTuple):
    """The messages of one frame; only their headers are still to be filled."""

    size: tuple[int, int]  # height, width
    image: Image | None
    compressed: CompressedImage | None
    labels: Image | None
    objects: TrackedObjects | None

    def messages(self) -> list[Image | CompressedImage | TrackedObjects]:
        """Those that there are."""
        return [part for part in self[1:] if part is not None]


@dataclass(frozen=True)
class Packer:
    """How frames become messages."""

    encoding: str  # of the raw image
    raw: bool
    compressed: bool
    quality: int  # of the jpeg

    def __call__(self, frame: SourceFrame) -> Frame:
        """Make the messages of a frame."""
        height, width = frame.image.shape[:2]
        ids = frame.ids
        return Frame(
            (height, width),
            rgb_to_image(frame.image, encoding=self.encoding) if self.raw else None,
            rgb_to_compressed(frame.image, quality=self.quality) if self.compressed else None,
            None if ids is None else labels_to_image(ids),
            None if ids is None else true_objects(ids, frame.classes),
        )


class Schedule(NamedTuple):
    """Which frames of a source are shown, in which order."""

    length: int | None  # frames that are shown before it begins again or ends; None: endless
    repeat: bool  # begin again
    bounce: bool = False  # go backwards every other time, so that nothing jumps

    def numbers(self) -> Iterator[int]:
        """Frame numbers in order."""
        if self.length is None:
            return itertools.count()
        if not self.repeat:
            return iter(range(self.length))
        back = range(self.length - 2, 0, -1) if self.bounce else ()
        return itertools.cycle([*range(self.length), *back])


class FramesAhead(threading.Thread):
    """Makes frames, several at once, in order into a bounded queue; waits while it is full.

    With `prerender` every frame of the schedule is made before the first one is given out; after
    that this thread ends, and the frames cost nothing more.
    """

    def __init__(
        self,
        source: Source,
        pack: Callable[[SourceFrame], Frame],
        schedule: Schedule,
        *,
        ahead: int,
        workers: int,
        prerender: bool = False,
    ) -> None:
        super().__init__(name="renderer", daemon=True)
        self._source, self._pack, self._schedule = source, pack, schedule
        self._workers = workers if source.parallel else 1
        self._prerender = prerender
        self._queue: queue.Queue[Frame] = queue.Queue(ahead)
        self._kept: dict[int, Frame] = {}
        self._keep = prerender or self._fits()
        self._played: Iterator[Frame] = iter(())
        self._stopped = threading.Event()
        self._made_all = threading.Event()
        self.error: Exception | None = None
        self.ready = threading.Event()  # so many frames are made that the first may be published
        self.made = 0  # frames, counted once each
        self.frame_seconds = 0.0  # processor time of one frame, smoothed

    def _fits(self) -> bool:
        height, width = self._source.size
        length = self._schedule.length
        return (
            self._schedule.repeat
            and length is not None
            and length * height * width * 4 <= KEPT_LOOP
        )

    def run(self) -> None:
        """Make frames until stopped or all are made; an error is kept for the node to report."""
        try:
            if "torch" in sys.modules:  # files are shown without it
                # One thread a frame: for pictures of this size more only wait for each other.
                sys.modules["torch"].set_num_threads(1)
            with ThreadPoolExecutor(self._workers) as pool:
                if self._prerender:
                    self._make_all(pool)
                else:
                    self._feed(pool)
        except Exception as error:  # whatever it is, the node must say it and end
            self.error = error
        self._made_all.set()
        self.ready.set()

    def stop(self) -> None:
        """End soon; do not wait for it."""
        self._stopped.set()

    def take(self) -> Frame | None:
        """Give out the next frame; None if it is not ready, or if there are no more."""
        if self._prerender:
            return next(self._played, None) if self.ready.is_set() else None
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    @property
    def waiting(self) -> bool:
        """Whether a frame can be taken now."""
        return self.ready.is_set() if self._prerender else not self._queue.empty()

    @property
    def exhausted(self) -> bool:
        """Whether the last frame was made and nothing is left but what a prerendered loop plays."""
        return self._made_all.is_set() and not self._prerender and self._queue.empty()

    def _make_all(self, pool: ThreadPoolExecutor) -> None:
        assert self._schedule.length is not None
        for _ in self._in_order(pool, iter(range(self._schedule.length))):
            pass
        if len(self._kept) == self._schedule.length:
            self._played = (self._kept[number] for number in self._schedule.numbers())

    def _feed(self, pool: ThreadPoolExecutor) -> None:
        for frame in self._in_order(pool, self._schedule.numbers()):
            self._put(frame)

    def _in_order(self, pool: ThreadPoolExecutor, numbers: Iterator[int]) -> Iterator[Frame]:
        """Make these frames on all workers, and give them out in order."""
        coming: deque[Future[Frame]] = deque()
        while not self._stopped.is_set():
            while len(coming) < self._workers:
                number = next(numbers, None)
                if number is None:
                    break
                coming.append(pool.submit(self._frame, number))
            if not coming:
                return
            yield coming.popleft().result()

    def _frame(self, number: int) -> Frame:
        if number in self._kept:
            return self._kept[number]
        begin = time.thread_time()
        frame = self._pack(self._source.frame(number))
        if self._keep:
            self._kept[number] = frame
        self.made += 1
        if number:  # the first one makes the tissue, which is no measure of the others
            spent = time.thread_time() - begin
            weight = 0.1 if self.frame_seconds else 1.0
            self.frame_seconds += (spent - self.frame_seconds) * weight
        return frame

    def _put(self, frame: Frame) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(frame, timeout=IDLE_SECONDS)
                break
        if self._queue.full():
            self.ready.set()
