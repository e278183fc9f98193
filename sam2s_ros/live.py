"""A session in a live stream: the newest image, one worker, prompts that wait, a stale stream.

ROS-free. Whoever receives images offers them from any thread; that only swaps the newest one in.
One worker thread decodes, tracks and publishes, and does between frames whatever else touches the
session, so that the session needs no lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sam2s_model.errors import Sam2sError
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
    wait: float  # from the image's arrival to the start of its inference
    inference: float


class Sinks(NamedTuple):
    """Where things go; called from the worker's thread."""

    decode: Callable[[Any], Picture]  # of a message; raises Sam2sError
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
    """

    def __init__(self, session: Session, sinks: Sinks, settings: LiveSettings) -> None:
        self._session, self._sinks, self._settings = session, sinks, settings
        self._gate = StampGate(session.settings.jump_back)
        self._condition = threading.Condition()
        self._slot: _Image | None = None
        self._pace = Pace()
        self._prompts: list[_Prompt] = []
        self._jobs: deque[Callable[[], None]] = deque()
        self._active = self._ended = self._stale = False
        self._due = 0.0  # when max_rate allows the next image
        self._arrived = 0.0  # of the last image that may be tracked; 0 before any
        self._good = 0.0  # of the last one that was tracked
        self.counts = Counts()
        self.times = Window()
        self.standings: tuple[TargetStanding, ...] = session.targets
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

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
            self._condition.notify()

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
                self._condition.notify()
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
            self._condition.notify()

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
            self._slot, self._pace, self._stale, self._due = None, Pace(), False, 0.0
            self._arrived = self._good = 0.0
            self._active = True

    def deactivate(self) -> None:
        """Track no more; targets are kept. Returns when the last frame is done."""
        done = threading.Event()
        with self._condition:
            self._active, self._slot = False, None
        self.submit(lambda session: done.set())
        done.wait(10.0)

    def close(self, timeout: float = 10.0) -> bool:
        """End the worker after its frame; True if it has ended."""
        with self._condition:
            self._active, self._ended, self._slot = False, True, None
            self._condition.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the worker -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(self._anything, self._pause())
                ended = self._ended
                jobs, self._jobs = self._jobs, deque()
                image = None
                if not self._successor_due():
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
                self._guarded(image)
            self._watch()

    def _anything(self) -> bool:
        ready = self._slot is not None and not self._successor_due()
        return bool(ready or self._jobs or self._ended)

    def _successor_due(self) -> float:
        """Seconds for which the image in the slot is left there, for a newer one is on its way."""
        if self._slot is None:
            return 0.0
        return self._pace.worth_waiting(self._slot.arrived, self._slot.age, time.monotonic())

    def _pause(self) -> float:
        """Seconds until something must be looked at even if nothing comes."""
        now = time.monotonic()
        times = [p.deadline - now for p in self._prompts]
        if self._active and self._arrived and not self._stale:
            times.append(self._arrived + self._settings.stale_after - now)
        if self._slot is not None:
            times.append(self._successor_due())
        return min(max(min(times, default=IDLE), 0.001), IDLE)

    def _guarded(self, image: _Image) -> None:
        """Track an image; whatever fails is told and counted, and the worker lives on."""
        try:
            self._track(image)
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
            if self._slot is None:
                self._arrived = self._good
        self._sinks.trouble(reason)

    def _track(self, image: _Image) -> None:
        begin = time.monotonic()
        try:
            picture = self._sinks.decode(image.message)
        except Sam2sError as error:
            self.counts.damaged += 1
            self._useless(f"an image was skipped: {error}")
            return
        due = self._take_prompts()
        result = self._session.process(image.stamp_ns, image.frame_id, picture, due)
        self._stale, self._good = False, image.arrived
        wait, inference = (begin - image.arrived) * 1e3, result.timings["inference"]
        self.counts.tracked += 1
        self._sinks.publish(Outcome(result, picture, wait, inference))
        self.times.add(time.monotonic() - image.arrived, wait, inference)
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
                self._active and self._arrived > 0.0 and not self._stale and self._slot is None
                and pause > self._settings.stale_after
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
