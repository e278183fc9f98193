"""The live part without ROS: newest image, rate, prompts that wait, a stale stream, failures."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from session_streams import FRAME_ID, ask, make_session, small_model, stamp, stream

from sam2s_model import Sam2s
from sam2s_ros.live import Live, LiveSettings, Outcome, Sinks
from sam2s_ros.session import EventKind
from sam2s_ros.window import Window, percentile

FRAMES = stream(8)


@pytest.fixture(scope="module")
def model() -> Sam2s:
    return small_model()


class Stage:
    """A live session whose decoder can be held, and all that came out of it."""

    def __init__(self, model: Sam2s, ahead: bool, **settings) -> None:
        self.outcomes: list[Outcome] = []
        self.events, self.troubles, self.changes = [], [], []
        self.replies = {}
        self.gate = threading.Event()
        self.gate.set()
        self.decoding = threading.Event()
        self.session = make_session(model)
        sinks = Sinks(
            self.decode, self.outcomes.append, self.events.extend, self.troubles.append,
            lambda session, changed: self.changes.append(changed),
        )  # fmt: skip
        settings = {"stale_after": 60.0, **settings}
        self.live = Live(self.session, sinks, LiveSettings(**settings), ahead=ahead)

    def decode(self, message):
        self.decoding.set()
        self.gate.wait(20.0)
        if isinstance(message, Exception):
            raise message
        return message

    def offer(self, n: int, message=None, age: float | None = None) -> None:
        self.live.offer(FRAMES[n % 8] if message is None else message, stamp(n), FRAME_ID, age)

    def prompt(self, request) -> None:
        self.live.prompt(request, lambda reply: self.replies.__setitem__(request, reply))

    def until(self, condition, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.002)

    def track(self, n: int) -> Outcome:
        before = len(self.outcomes)
        self.offer(n)
        self.until(lambda: len(self.outcomes) > before)
        return self.outcomes[-1]

    def hold(self, n: int) -> None:
        """Have the worker stand still on an image."""
        self.gate.clear()
        self.decoding.clear()
        self.offer(n)
        self.until(self.decoding.is_set)


@pytest.fixture(params=[False, True], ids=["in turn", "ahead"])
def ahead(request) -> bool:
    return request.param


@pytest.fixture
def stage(model, ahead):
    made = []

    def make(**settings) -> Stage:
        made.append(Stage(model, ahead, **settings))
        made[-1].live.activate()
        return made[-1]

    yield make
    for each in made:
        each.gate.set()
        assert each.live.close()


def test_the_newest_image_wins(stage) -> None:
    on = stage()
    on.hold(0)
    for n in range(1, 6):
        on.offer(n)
    on.gate.set()
    on.until(lambda: len(on.outcomes) == 2)
    assert [outcome.result.stamp_ns for outcome in on.outcomes] == [stamp(0), stamp(5)]
    counts = on.live.counts
    assert (counts.received, counts.tracked, counts.replaced, counts.skipped) == (6, 2, 4, 4)
    assert on.outcomes[1].wait > 0
    assert on.outcomes[1].inference > 0


@pytest.mark.parametrize("ends", [False, True])
def test_an_image_that_has_become_old_waits_for_the_one_on_its_way(stage, ends) -> None:
    on = stage()
    interval, last = 0.4, 7
    on.hold(0)
    for n in range(1, last + 1):
        time.sleep(interval)
        on.offer(n, age=0.9 * interval)
    time.sleep(0.3 * interval)  # the next one was taken by now
    on.gate.set()
    on.until(lambda: on.outcomes)
    time.sleep(0.3 * interval)
    assert len(on.outcomes) == 1
    if not ends:
        on.offer(last + 1, age=0.9 * interval)
    on.until(lambda: len(on.outcomes) == 2)
    assert on.outcomes[1].result.stamp_ns == stamp(last if ends else last + 1)


def test_nothing_is_taken_while_inactive(stage) -> None:
    on = stage()
    on.track(0)
    on.live.deactivate()
    on.offer(1)
    request = ask()
    on.prompt(request)
    assert "not active" in on.replies[request].message
    assert len(on.outcomes) == 1
    on.live.activate()
    on.track(0)  # a stamp that was seen before the pause is new again
    assert on.live.counts.received == 1


def test_prompts_that_wait_in_vain_are_refused_in_time(stage) -> None:
    on = stage(prompt_timeout=0.3)
    request = ask()
    begin = time.monotonic()
    on.prompt(request)
    on.until(lambda: request in on.replies)
    assert 0.25 < time.monotonic() - begin < 5.0
    assert "no image came" in on.replies[request].message
    on.track(0)
    assert on.session.targets == ()
    ahead = ask("later", stamp_ns=stamp(10))  # handed to the session, which waits for its image
    on.prompt(ahead)
    on.track(1)
    assert ahead not in on.replies
    on.until(lambda: ahead in on.replies)
    on.track(11)
    assert on.session.targets == ()


def test_a_flood_of_prompts_is_bounded_and_each_is_answered_once(stage) -> None:
    on = stage(max_prompts=5)
    on.hold(0)
    requests = [ask(f"t{n}") for n in range(20)]
    for request in requests:
        on.prompt(request)
    assert len(on.replies) == 15
    assert all("5 prompts wait already" in reply.message for reply in on.replies.values())
    on.gate.set()
    on.offer(1)
    on.until(lambda: len(on.replies) == 20)
    assert [on.replies[request].success for request in requests] == [True] * 5 + [False] * 15


def test_prompts_are_refused_when_the_node_stops(stage) -> None:
    on = stage()
    first, second = ask(), ask("b")
    on.prompt(first)
    on.live.deactivate()
    on.until(lambda: first in on.replies)
    assert not on.replies[first].success
    on.live.activate()
    on.prompt(second)
    assert on.live.close()
    assert "shutting down" in on.replies[second].message


def test_a_stream_without_usable_images_is_stale(stage) -> None:
    on = stage(stale_after=0.2)
    time.sleep(0.5)
    assert on.events == []  # it never began
    on.track(0)
    on.until(lambda: on.events)
    assert [event.kind for event in on.events] == [EventKind.STREAM_STALE]
    assert on.events[0].seconds >= 0.2
    on.track(1)
    assert [event.kind for event in on.outcomes[-1].result.events] == [EventKind.STREAM_RESUMED]
    end = time.monotonic() + 0.6
    n = 2
    while time.monotonic() < end:  # damaged images all the time
        on.offer(n, ValueError("torn"))
        n += 1
        time.sleep(0.02)
    assert [event.kind for event in on.events] == [EventKind.STREAM_STALE] * 2
    assert on.live.stale
    assert any("torn" in trouble for trouble in on.troubles)
    on.track(n)
    assert not on.live.stale


def test_the_rate_is_limited_and_can_change(stage) -> None:
    on = stage(max_rate=10.0)
    n, end = 0, time.monotonic() + 1.5
    while time.monotonic() < end:
        on.offer(n)
        n += 1
        time.sleep(0.005)
    counts = on.live.counts
    assert 6 <= counts.tracked + counts.replaced <= 17
    assert counts.received == counts.tracked + counts.replaced + counts.limited
    on.live.change(LiveSettings(stale_after=60.0), lambda session: None)
    before = counts.limited
    for k in range(5):
        on.track(n + k)
    assert on.live.counts.limited == before


def test_a_failing_tracker_is_told_and_the_worker_lives(stage, monkeypatch) -> None:
    on = stage()
    on.track(0)
    runtime = on.session.tracker.runtime
    encode = runtime.encode_image
    monkeypatch.setattr(runtime, "encode_image", lambda frame: 1 / 0)
    request = ask()
    on.prompt(request)
    on.offer(1)
    on.until(lambda: request in on.replies)
    assert "division by zero" in on.replies[request].message
    assert on.live.counts.failed == 1
    monkeypatch.setattr(runtime, "encode_image", encode)
    assert on.track(2).result.objects == ()


def test_jobs_are_done_between_frames_and_noted(stage, ahead) -> None:
    on = stage()
    request = ask()
    on.prompt(request)
    on.track(0)
    on.until(lambda: on.changes == [True])
    on.track(1)
    on.until(lambda: on.changes == [True, False])
    assert [standing.name for standing in on.live.standings] == ["a"]
    on.hold(2)
    done = threading.Event()
    on.live.submit(lambda session: (session.remove("a"), done.set()))
    # An image that is only being prepared is no reason to wait.
    assert done.wait(20.0 if ahead else 0.1) == ahead
    on.gate.set()
    assert done.wait(20.0)
    on.until(lambda: on.live.standings == ())
    assert on.changes[-1] is True


def test_windows_sum_up_the_last_results() -> None:
    window = Window()
    assert window.read().rate == 0.0
    for n in range(1, 101):
        window.add(total=n / 1e3, wait=float(n), inference=2.0 * n)
    times = window.read()
    assert (times.total_p50, times.wait_p99, times.inference_p50) == (50.0, 99.0, 100.0)
    assert times.rate > 0
    assert percentile([3.0], 50) == 3.0
    assert np.isclose(percentile(range(1, 5), 99), 4)


@pytest.mark.parametrize("ahead", [True], indirect=True)
def test_the_next_image_is_prepared_while_one_is_tracked(stage, monkeypatch) -> None:
    on = stage()
    on.prompt(ask())
    on.track(0)
    tracker = on.session.tracker
    step, encode = tracker.step, tracker.runtime.encode_image
    go_on, encoded = threading.Event(), []

    def held(frame, source_size=None):
        go_on.wait(20.0)
        return step(frame, source_size)

    def noted(frame):
        encoded.append(threading.current_thread().name)
        return encode(frame)

    monkeypatch.setattr(tracker, "step", held)
    monkeypatch.setattr(tracker.runtime, "encode_image", noted)
    on.offer(1)
    on.until(lambda: len(encoded) == 1)
    on.offer(2)
    on.until(lambda: len(encoded) == 2)  # while image 1 is being tracked
    for n in (3, 4, 5):
        on.offer(n)  # image 2 is ready; of these the newest is prepared when that is taken
    time.sleep(0.1)
    assert (len(encoded), len(on.outcomes)) == (2, 1)
    go_on.set()
    on.until(lambda: len(on.outcomes) == 4)
    assert [o.result.stamp_ns for o in on.outcomes] == [stamp(n) for n in (0, 1, 2, 5)]
    assert encoded == ["preparation"] * 3
    assert on.live.counts.replaced == 2
    # Image 2 waited 0.1 s for image 1; that is in `inference`, not in the stages.
    timings = on.outcomes[2].result.timings
    assert timings["inference"] - timings["total"] > 80.0


@pytest.mark.parametrize("ahead", [True], indirect=True)
def test_what_was_prepared_before_a_pause_is_not_tracked_after_it(stage) -> None:
    on = stage()
    on.track(0)
    on.hold(1)
    on.live.deactivate()
    on.live.activate()
    on.gate.set()
    on.track(2)
    assert [o.result.stamp_ns for o in on.outcomes] == [stamp(0), stamp(2)]


def test_results_are_the_same_prepared_ahead_or_in_turn(model) -> None:
    masks = []
    for ahead in (False, True):
        on = Stage(model, ahead)
        on.live.activate()
        on.prompt(ask())
        masks.append([on.track(n).result.objects[0].mask for n in range(6)])
        assert on.live.close()
    for mine, theirs in zip(*masks, strict=True):
        assert np.array_equal(mine, theirs)
