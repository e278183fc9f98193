"""A session in a live stream: the newest image, one worker, prompts that wait, a stale stream.

ROS-free. Whoever receives images offers them from any thread; that only swaps the newest one in.
One worker thread tracks and publishes, and does between frames whatever else touches the session,
so that the session needs no lock. Images are decoded there too, or with `ahead` in a thread that
prepares the next one meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sam2s_model.errors import Sam2sError
from sam2s_model.prepared import PreparedFrame
from sam2s_ros.lead import Lead
from sam2s_ros.pace import Pace
from sam2s_ros.session import (
    Arrival,
    PromptReply,
    PromptRequest,
    Session,
    SessionEvent,
    SessionResult,
    StampGate,
    StepFailedError,
    TargetStanding,
)
from sam2s_ros.session_types import Picture
from sam2s_ros.window import Window

Reply = Callable[[PromptReply], None]
IDLE = 0.25  # seconds that the worker sleeps at most
RATE_SLACK = 0.25  # share of an interval by which an image may come too early for `max_rate`


class LiveError(Sam2sError):
    """Something that cannot be done in the state that the node is in."""


@dataclass(frozen=True)
class LiveSettings:
    """What may change while the stream runs."""

    max_rate: float = 0.0  # images tracked per second at most; 0: no limit
    stale_after: float = 0.5  # seconds without an image after which the stream is stale
    max_prompts: int = 64  # that may wait
    prompt_timeout: float = 5.0  # seconds


@dataclass
class Counts:
    """Images since activation, by what became of them."""

    received: int = 0
    tracked: int = 0
    replaced: int = 0  # by a newer one before the worker was free
    late: int = 0  # out of order
    repeated: int = 0  # the same stamp again
    limited: int = 0  # beyond max_rate
    damaged: int = 0  # could not be decoded
    failed: int = 0  # the tracker failed on them

    @property
    def skipped(self) -> int:
        """Images that were left out on purpose."""
        return self.replaced + self.late + self.repeated + self.limited


class Outcome(NamedTuple):
    """One image's results, with its times in milliseconds."""

    result: SessionResult
    image: Picture
    wait: float  # from the image's arrival to when it was taken up
    inference: float  # with `ahead`, its wait for the image before it included


class Sinks(NamedTuple):
    """Where things go; called from the worker's thread."""

    # Of a message; raises Sam2sError. With `ahead`, from the thread that prepares images.
    decode: Callable[[Any], Picture]
    publish: Callable[[Outcome], None]
    events: Callable[[tuple[SessionEvent, ...]], None]  # those that come with no image
    trouble: Callable[[str], None]  # one sentence for the log
    changed: Callable[[Session, bool], None]  # after each frame, and whenever targets changed


@dataclass
class _Image:
    message: Any
    stamp_ns: int
    frame_id: str
    arrived: float  # monotonic seconds
    age: float | None  # seconds since its stamp when it arrived; None if that is unknown


class _Taken(NamedTuple):
    """An image that the worker may track, or why it cannot be."""

    image: _Image
    wait: float  # milliseconds that it lay in the slot
    picture: Picture | None = None
    frame: Picture | PreparedFrame | None = None
    error: Exception | None = None  # of decoding


@dataclass
class _Prompt:
    request: PromptRequest
    reply: Reply
    deadline: float
    handed_over: bool = False


class Live:
    """Runs a session; made in configure, thrown away in cleanup.

    Args:
        session: nobody else may touch it from now on.
        sinks: where results go.
        settings: see LiveSettings.
        ahead: whether the next image is prepared in a thread of its own while one is tracked.
    """

    def __init__(
        self, session: Session, sinks: Sinks, settings: LiveSettings, *, ahead: bool = False
    ) -> None:
        self._session, self._sinks, self._settings = session, sinks, settings
        self._gate = StampGate(session.settings.jump_back)
        self._condition = threading.Condition()
        self._slot: _Image | None = None  # the newest that nobody has taken up
        self._preparing: _Image | None = None
        self._prepared: _Taken | None = None
        self._pace, self._lead = Pace(), Lead()
        self._tracking_since: float | None = None
        self._prompts: list[_Prompt] = []
        self._jobs: deque[Callable[[], None]] = deque()
        self._active = self._ended = self._stale = False
        self._due = 0.0  # when max_rate allows the next image
        self._arrived = 0.0  # of the last image that may be tracked; 0 before any
        self._good = 0.0  # of the last one that was tracked
        self.counts = Counts()
        self.times = Window()
        self.standings: tuple[TargetStanding, ...] = session.targets
        self.ahead = ahead
        self._threads = [threading.Thread(target=self._run, name="inference", daemon=True)]
        if ahead:
            prepare = threading.Thread(target=self._prepare_ahead, name="preparation", daemon=True)
            self._threads.append(prepare)
        for thread in self._threads:
            thread.start()

    # --- from any thread ------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether images are tracked."""
        return self._active

    @property
    def stale(self) -> bool:
        """Whether images have stopped coming."""
        return self._stale

    @property
    def last_arrival(self) -> float:
        """When the last image came, in monotonic seconds; 0 before any."""
        return self._arrived

    def offer(self, message: Any, stamp_ns: int, frame_id: str, age: float | None = None) -> None:
        """Take an image if it is newer; one that still waits is given up for it.

        `age` is what its stamp lies behind the clock that it was taken by, in seconds, if known.
        """
        now = time.monotonic()
        with self._condition:
            if not self._active:
                return
            self.counts.received += 1
            arrival = self._gate.judge(stamp_ns)
            if arrival is Arrival.REPEATED:
                self.counts.repeated += 1
                return
            if arrival is Arrival.LATE:
                self.counts.late += 1
                return
            # Even an image beyond the rate says that the stream is alive.
            self._arrived = now
            if not self._within_rate(now):
                self.counts.limited += 1
                return
            if self._slot is not None:
                self.counts.replaced += 1
            self._slot = _Image(message, stamp_ns, frame_id, now, age)
            self._pace.note(now)
            self._condition.notify_all()

    def _within_rate(self, now: float) -> bool:
        if self._settings.max_rate <= 0.0:
            return True
        interval = 1.0 / self._settings.max_rate
        if now < self._due - RATE_SLACK * interval:
            return False
        self._due = max(self._due, now - interval) + interval
        return True

    def prompt(self, request: PromptRequest, reply: Reply) -> None:
        """Have a prompt applied; `reply` is called from some thread, once."""
        with self._condition:
            refusal = self._refusal()
            if not refusal:
                deadline = time.monotonic() + self._settings.prompt_timeout
                self._prompts.append(_Prompt(request, reply, deadline))
                self._condition.notify_all()
        if refusal:
            reply(PromptReply(False, refusal))

    def _refusal(self) -> str:
        if not self._active:
            return "the node is not active, so no image will come: activate it first"
        if len(self._prompts) >= self._settings.max_prompts:
            return (
                f"{len(self._prompts)} prompts wait already (max_prompts): wait for their answers"
            )
        return ""

    def submit(self, job: Callable[[Session], None]) -> None:
        """Have something done with the session between two frames."""
        with self._condition:
            self._jobs.append(lambda: job(self._session))
            self._condition.notify_all()

    def change(self, settings: LiveSettings, apply: Callable[[Session], None]) -> None:
        """Use other settings from the next frame on; `apply` changes those of the session."""

        def job(session: Session) -> None:
            apply(session)
            self._gate.jump_back = session.settings.jump_back

        with self._condition:
            self._settings = settings
        self.submit(job)

    def activate(self) -> None:
        """Track images from now on."""
        with self._condition:
            self.counts = Counts()
            self.times = Window()
            self._gate = StampGate(self._session.settings.jump_back)
            self._drop_images()
            self._pace, self._stale, self._due = Pace(), False, 0.0
            self._arrived = self._good = 0.0
            self._active = True

    def deactivate(self) -> None:
        """Track no more; targets are kept. Returns when the last frame is done."""
        done = threading.Event()
        with self._condition:
            self._active = False
            self._drop_images()
        self.submit(lambda session: done.set())
        done.wait(10.0)

    def close(self, timeout: float = 10.0) -> bool:
        """End the threads after their frames; True if they have ended."""
        end = time.monotonic() + timeout
        with self._condition:
            self._active, self._ended = False, True
            self._drop_images()
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _drop_images(self) -> None:
        self._slot = self._preparing = self._prepared = None

    # --- images ---------------------------------------------------------------------------

    def _due_image(self) -> bool:
        """Whether there is an image to take up; not if a newer one is on its way."""
        return self._slot is not None and not self._successor_due()

    def _successor_due(self) -> float:
        """Seconds for which the image in the slot is left there, for a newer one is on its way."""
        if self._slot is None:
            return 0.0
        return self._pace.worth_waiting(self._slot.arrived, self._slot.age, time.monotonic())

    def _take(self, image: _Image) -> _Taken:
        """Decode an image, and with `ahead` do all else that does not need the one before it."""
        begin = time.monotonic()
        wait = (begin - image.arrived) * 1e3
        try:
            picture = self._sinks.decode(image.message)
        except Exception as error:
            return _Taken(image, wait, error=error)
        if not self.ahead:
            return _Taken(image, wait, picture, picture)
        try:
            return _Taken(image, wait, picture, self._session.tracker.prepare(picture))
        except Exception:  # it fails again where it is tracked, and there it is told and counted
            return _Taken(image, wait, picture, picture)

    def _prepare_ahead(self) -> None:
        """Prepare the newest image, as late as the one before it allows."""
        while True:
            with self._condition:
                while not (self._ended or self._may_prepare()):
                    self._condition.wait(max(self._successor_due(), self._lead_left()) or IDLE)
                if self._ended:
                    return
                image, self._slot = self._slot, None
                self._preparing = image
            assert image is not None
            begin = time.monotonic()
            taken = self._take(image)
            with self._condition:
                self._lead.note_prepared(time.monotonic() - begin)
                if self._preparing is image:  # else it was dropped meanwhile
                    self._preparing, self._prepared = None, taken
                    self._condition.notify_all()

    def _may_prepare(self) -> bool:
        return self._prepared is None and self._due_image() and not self._lead_left()

    def _lead_left(self) -> float:
        """Seconds before it is time to prepare an image for when the present one is done."""
        if self._tracking_since is None:
            return 0.0
        return self._lead.wait(time.monotonic() - self._tracking_since)

    # --- the worker -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(self._anything, self._pause())
                ended = self._ended
                jobs, self._jobs = self._jobs, deque()
                image, taken = None, self._prepared
                if taken is not None:
                    self._prepared, self._tracking_since = None, time.monotonic()
                    self._condition.notify_all()  # the next one may be prepared
                if not self.ahead and self._due_image():
                    image, self._slot = self._slot, None
            for job in jobs:
                job()
            if ended:
                self._refuse_all("the node is shutting down")
                return
            if not self._active:
                self._refuse_all("the node was deactivated before an image came")
            if jobs:
                self._note(True)
            if image is not None:
                taken = self._take(image)
            if taken is not None:
                self._guarded(taken)
                self._end_tracking()
            self._watch()

    def _end_tracking(self) -> None:
        """Let the next image be prepared, if that has waited for this one."""
        with self._condition:
            if self._tracking_since is not None:
                self._lead.note_tracked(time.monotonic() - self._tracking_since)
                self._tracking_since = None
                self._condition.notify_all()

    def _anything(self) -> bool:
        image = self._prepared is not None if self.ahead else self._due_image()
        return bool(image or self._jobs or self._ended)

    def _pause(self) -> float:
        """Seconds until something must be looked at even if nothing comes."""
        now = time.monotonic()
        times = [p.deadline - now for p in self._prompts]
        if self._active and self._arrived and not self._stale:
            times.append(self._arrived + self._settings.stale_after - now)
        if self._slot is not None and not self.ahead:
            times.append(self._successor_due())
        return min(max(min(times, default=IDLE), 0.001), IDLE)

    def _guarded(self, taken: _Taken) -> None:
        """Track an image; whatever fails is told and counted, and the worker lives on."""
        try:
            self._track(taken)
        except StepFailedError as error:
            self.counts.failed += 1
            self._answer(error.replies)
            self._useless(str(error))
        except Exception as error:
            self.counts.failed += 1
            self._useless(f"an image could not be processed: {error!r}")

    def _useless(self, reason: str) -> None:
        """Tell that an image brought no results; a stream of such images is a stale one."""
        with self._condition:
            if not self._images_wait():
                self._arrived = self._good
        self._sinks.trouble(reason)

    def _images_wait(self) -> bool:
        return any((self._slot, self._preparing, self._prepared))

    def _track(self, taken: _Taken) -> None:
        image = taken.image
        if isinstance(taken.error, Sam2sError):
            self.counts.damaged += 1
            self._useless(f"an image was skipped: {taken.error}")
            return
        if taken.error is not None:
            raise taken.error
        assert taken.picture is not None
        assert taken.frame is not None
        due = self._take_prompts()
        result = self._session.process(image.stamp_ns, image.frame_id, taken.frame, due)
        self._end_tracking()
        self._stale, self._good = False, image.arrived
        inference = result.timings["inference"]
        self.counts.tracked += 1
        self._sinks.publish(Outcome(result, taken.picture, taken.wait, inference))
        self.times.add(time.monotonic() - image.arrived, taken.wait, inference)
        self._answer(result.replies)
        changed = any(event.target for event in result.events)
        self._note(changed)

    def _take_prompts(self) -> list[PromptRequest]:
        with self._condition:
            due = [prompt for prompt in self._prompts if not prompt.handed_over]
            for prompt in due:
                prompt.handed_over = True
        return [prompt.request for prompt in due]

    def _answer(self, replies: tuple[tuple[PromptRequest, PromptReply], ...]) -> None:
        for request, reply in replies:
            with self._condition:
                found = [prompt for prompt in self._prompts if prompt.request is request]
                self._prompts = [p for p in self._prompts if p.request is not request]
            for prompt in found:
                prompt.reply(reply)

    def _refuse_all(self, reason: str) -> None:
        self._session.withdraw()
        with self._condition:
            refused, self._prompts = self._prompts, []
        for prompt in refused:
            prompt.reply(PromptReply(False, reason))

    def _note(self, changed: bool) -> None:
        self.standings = self._session.targets
        self._sinks.changed(self._session, changed)

    def _watch(self) -> None:
        """Look at the clock: a stream that has stopped, prompts that wait in vain."""
        now = time.monotonic()
        with self._condition:
            pause = now - self._arrived
            newly = (
                self._active and self._arrived > 0.0 and not self._stale
                and not self._images_wait() and pause > self._settings.stale_after
            )  # fmt: skip
            late = [prompt for prompt in self._prompts if prompt.deadline <= now]
            self._prompts = [prompt for prompt in self._prompts if prompt.deadline > now]
        if newly:
            self._stale = True
            self._sinks.events((self._session.mark_stale(pause),))
        if late:
            gone = {id(prompt.request) for prompt in late}
            self._session.withdraw(lambda request: id(request) in gone)
            seconds = self._settings.prompt_timeout
            for prompt in late:
                prompt.reply(PromptReply(
                    False,
                    f"no image came for the prompt within {seconds:g} s (prompt_timeout): check "
                    "that the camera publishes and that its topic is remapped to the node's",
                ))  # fmt: skip
