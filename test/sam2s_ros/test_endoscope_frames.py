"""Making frames ahead: order, what is made anew and what is kept, ends and errors."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from sam2s_ros.conversions import image_to_labels, image_to_rgb
from sam2s_ros.endoscope_frames import KEPT_LOOP, Frame, FramesAhead, Packer, Schedule
from sam2s_ros.endoscope_sources import SourceFrame

pytestmark = pytest.mark.ros


class Counter:
    """Pictures that carry their number; notes what was asked for, and by how many at once."""

    parallel = True

    def __init__(self, length: int | None = None, size=(16, 24), seconds: float = 0.0) -> None:
        self.length, self.size, self.seconds = length, size, seconds
        self.asked: list[int] = []
        self.fail_at = -1
        self.at_once = self._now = 0
        self._lock = threading.Lock()

    def frame(self, number: int) -> SourceFrame:
        with self._lock:
            self.asked.append(number)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        time.sleep(self.seconds)
        with self._lock:
            self._now -= 1
        if number == self.fail_at:
            raise ValueError(f"frame {number} is broken")
        image = np.full((16, 24, 3), number, np.uint8)
        return SourceFrame(image, image[:, :, 0] % 2, {1: "hook"})


def number_of(frame: Frame) -> int:
    return int(image_to_rgb(frame.image or frame.compressed)[0, 0, 0])


def frames(source, schedule: Schedule, **settings):
    packer = settings.pop("packer", Packer("rgb8", raw=True, compressed=False, quality=90))
    ahead = FramesAhead(source, packer, schedule, **{"ahead": 3, "workers": 1, **settings})
    ahead.start()
    return ahead


def take(ahead: FramesAhead, count: int) -> list[int]:
    """The next frames' numbers, waiting for each."""
    taken: list[int] = []
    deadline = time.monotonic() + 20
    while len(taken) < count:
        assert time.monotonic() < deadline
        frame = ahead.take()
        if frame is None:
            time.sleep(0.002)
        else:
            taken.append(number_of(frame))
    return taken


@pytest.fixture
def stopped():
    started: list[FramesAhead] = []
    yield lambda ahead: started.append(ahead) or ahead
    for ahead in started:
        ahead.stop()
        ahead.join(5)
        assert not ahead.is_alive()


@pytest.mark.parametrize(
    ("schedule", "numbers"),
    [
        (Schedule(None, repeat=False), [0, 1, 2, 3, 4, 5, 6, 7]),
        (Schedule(3, repeat=True), [0, 1, 2, 0, 1, 2, 0, 1]),
        (Schedule(4, repeat=True, bounce=True), [0, 1, 2, 3, 2, 1, 0, 1]),
        (Schedule(2, repeat=True, bounce=True), [0, 1, 0, 1, 0, 1, 0, 1]),
        (Schedule(1, repeat=True, bounce=True), [0] * 8),
        (Schedule(5, repeat=False), [0, 1, 2, 3, 4]),
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_frames_come_in_their_order(schedule, numbers, workers, stopped):
    assert list(itertools.islice(schedule.numbers(), 8)) == numbers
    source = Counter(seconds=0.005)
    ahead = stopped(frames(source, schedule, workers=workers))
    assert take(ahead, len(numbers)) == numbers
    assert source.at_once <= workers
    if not schedule.repeat and schedule.length:
        deadline = time.monotonic() + 5
        while not ahead.exhausted:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert ahead.take() is None


def test_only_so_many_frames_are_made_ahead(stopped):
    source = Counter()
    ahead = stopped(frames(source, Schedule(None, repeat=False), ahead=3))
    assert ahead.ready.wait(5)
    time.sleep(0.3)
    # Three wait in the queue, one waits to be put there.
    assert len(source.asked) <= 5
    assert take(ahead, 4) == [0, 1, 2, 3]


def test_a_short_loop_is_made_once_and_a_long_one_anew(stopped):
    short = Counter()
    assert take(stopped(frames(short, Schedule(3, repeat=True))), 20) == [0, 1, 2] * 6 + [0, 1]
    assert sorted(short.asked) == [0, 1, 2]
    side = int((KEPT_LOOP / 4 / 3) ** 0.5) + 1
    long = Counter(size=(side, side))
    assert take(stopped(frames(long, Schedule(3, repeat=True))), 7) == [0, 1, 2, 0, 1, 2, 0]
    assert len(long.asked) >= 7


def test_prerendering_makes_everything_first_and_then_nothing(stopped):
    source = Counter(seconds=0.01)
    schedule = Schedule(5, repeat=True, bounce=True)
    ahead = stopped(frames(source, schedule, prerender=True, workers=2))
    assert ahead.take() is None
    assert ahead.ready.wait(10)
    ahead.join(5)
    assert not ahead.is_alive()
    assert sorted(source.asked) == [0, 1, 2, 3, 4]
    assert source.at_once == 2
    assert take(ahead, 12) == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]
    assert ahead.made == 5
    assert not ahead.exhausted


@pytest.mark.parametrize("prerender", [False, True])
def test_an_error_is_kept_for_the_node(prerender, stopped):
    source = Counter()
    source.fail_at = 2
    ahead = stopped(frames(source, Schedule(6, repeat=True), prerender=prerender))
    ahead.join(10)
    assert str(ahead.error) == "frame 2 is broken"
    assert ahead.ready.is_set()


def test_videos_are_decoded_by_one_worker(stopped):
    source = Counter(seconds=0.003)
    source.parallel = False
    assert take(stopped(frames(source, Schedule(None, repeat=False), workers=4)), 9) == [*range(9)]
    assert source.at_once == 1


def test_messages_of_a_frame():
    frame = SourceFrame(np.full((16, 24, 3), (200, 90, 10), np.uint8), None, {})
    packed = Packer("bgr8", raw=True, compressed=True, quality=90)(frame)
    assert packed.size == (16, 24)
    assert packed.image.encoding == "bgr8"
    for message in (packed.image, packed.compressed):
        assert np.abs(image_to_rgb(message).astype(int) - frame.image).max() < 6
    assert (packed.labels, packed.objects) == (None, None)
    assert packed.messages() == [packed.image, packed.compressed]
    ids = np.zeros((16, 24), np.uint8)
    ids[2:5, 3:9] = 4
    packed = Packer("rgb8", raw=False, compressed=True, quality=90)(
        frame._replace(ids=ids, classes={4: "hook", 6: "snare"})
    )
    assert packed.image is None
    assert np.array_equal(image_to_labels(packed.labels), ids)
    assert [(o.label_value, o.area) for o in packed.objects.objects] == [(4, 18), (6, 0)]
