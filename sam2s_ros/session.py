"""Between node and tracker: prompts, label values, states, events. ROS-free and deterministic.

A session has no thread and no clock; all that it does follows from the calls. It is for one thread
at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sam2s_model import StreamTracker
from sam2s_model.errors import Sam2sError
from sam2s_model.prepared import PreparedFrame
from sam2s_model.result import FrameResult, TrackState
from sam2s_model.tracker import TooManyTargetsError, UnknownTargetError
from sam2s_ros.catch_up import CatchUp
from sam2s_ros.class_names import UnknownClassError, checked_class
from sam2s_ros.history import NANO, History, PastFrame
from sam2s_ros.label_values import LabelValues
from sam2s_ros.masks import source_patch
from sam2s_ros.session_frame import Frame
from sam2s_ros.session_settings import SessionSettings, SessionSettingsError
from sam2s_ros.session_state import (
    STATE_FORMAT,
    STATE_VERSION,
    SessionStateError,
    read_session,
)
from sam2s_ros.session_types import (
    AcceptedPrompt,
    EventKind,
    Picture,
    PromptReply,
    PromptRequest,
    SessionEvent,
    SessionObject,
    SessionResult,
    TargetStanding,
)
from sam2s_ros.stamps import Arrival, StampGate
from sam2s_ros.standing import Standing

__all__ = [
    "AcceptedPrompt",
    "Arrival",
    "EventKind",
    "PromptReply",
    "PromptRequest",
    "Session",
    "SessionEvent",
    "SessionObject",
    "SessionResult",
    "SessionSettings",
    "SessionSettingsError",
    "SessionStateError",
    "StampGate",
    "StampOutOfReachError",
    "StepFailedError",
    "TargetStanding",
    "UnknownClassError",
]

AHEAD_SECONDS = 1.0  # by which a prompt's stamp may be ahead of the newest image's

Replies = tuple[tuple[PromptRequest, PromptReply], ...]


class StampOutOfReachError(Sam2sError):
    """A prompt for an image that is no longer, or not yet, known."""


class StepFailedError(Sam2sError):
    """The tracker failed on a frame. Its prompts are taken back, with these replies."""

    def __init__(self, message: str, replies: Replies) -> None:
        super().__init__(message)
        self.replies = replies


class Session:
    """Follows targets through a stream.

    Args:
        tracker: what tracks them; the session has it to itself.
        settings: see SessionSettings.
    """

    def __init__(self, tracker: StreamTracker, settings: SessionSettings | None = None) -> None:
        self.tracker = tracker
        self._settings = settings or SessionSettings()
        self._history = History(self._settings.history_seconds, self._settings.history_frames)
        self._values = LabelValues()
        self._standings: dict[str, Standing] = {}
        self._waiting: list[PromptRequest] = []
        self._behind: dict[str, CatchUp] = {}  # targets on their way to the present, by name
        self._last_ns: int | None = None  # stamp of the last image
        self._last_frame_id = ""
        self._stale = False

    @property
    def settings(self) -> SessionSettings:
        """What may be chosen; may be replaced between frames."""
        return self._settings

    @settings.setter
    def settings(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._history.seconds = settings.history_seconds
        self._history.frames = settings.history_frames

    # --- targets --------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[TargetStanding, ...]:
        """How every target stands, ordered by label value."""
        known = set(self.tracker.targets)
        views = [
            standing.view(name, self.tracker.memory_entries(name) if name in known else 0)
            for name, standing in self._standings.items()
        ]
        return tuple(sorted(views, key=lambda view: view.label_value))

    def remove(self, name: str) -> SessionEvent:
        """Forget a target."""
        standing = self._standings.get(name)
        if standing is None:
            self.tracker.remove_target(name)  # says which ones there are
            raise UnknownTargetError(f"there is no target '{name}'")
        return self._forget(name, standing, f"'{name}' was removed")

    def reset(self) -> tuple[SessionEvent, ...]:
        """Forget every target and all memory, and count frames anew; values stay given out."""
        events = tuple(
            self._forget(name, standing, f"'{name}' was removed by a reset")
            for name, standing in list(self._standings.items())
        )
        self.tracker.reset()
        self._history.clear()
        return events

    def withdraw(self, which: Callable[[PromptRequest], bool] = lambda request: True) -> None:
        """Give up prompts that still wait for their image."""
        self._waiting = [request for request in self._waiting if not which(request)]

    def _forget(self, name: str, standing: Standing, message: str) -> SessionEvent:
        self._behind.pop(name, None)
        del self._standings[name]
        if name in self.tracker.targets:
            self.tracker.remove_target(name)
        self._values.give_back(standing.label_value)
        return self._removal(name, standing, message)

    def _removal(self, name: str, standing: Standing, message: str) -> SessionEvent:
        return SessionEvent(
            EventKind.REMOVED, name, standing.label_value, standing.state, 0.0, message,
            self._last_ns or 0, self._last_frame_id,
        )  # fmt: skip

    # --- frames ---------------------------------------------------------------------------

    def process(
        self,
        stamp_ns: int,
        frame_id: str,
        image: Picture | PreparedFrame,
        prompts: Sequence[PromptRequest] = (),
    ) -> SessionResult:
        """Track all targets on the next image, uint8 (H, W, 3) RGB, and apply prompts to it.

        The image may have been prepared by the tracker before. A prompt whose image is still to
        come waits; the reply is in the result of the image that it was applied with. Raises
        FrameError for what is no image; then nothing has happened, and the prompts wait.
        """
        begin = time.perf_counter()
        self._waiting.extend(prompts)
        if isinstance(image, PreparedFrame):
            prepared, begin = image, image.began
        else:
            prepared = self.tracker.prepare(image, encode=False)
        frame = Frame(stamp_ns, frame_id, prepared.height, prepared.width)
        self._follow_clock(frame)
        began = time.perf_counter()
        self._bring_up(frame, self._settings.catch_up_steps or None)
        self._place_waiting(frame)
        catch_up = _since(began)
        result = self._step(frame, prepared)
        self._last_ns, self._last_frame_id, self._stale = stamp_ns, frame_id, False
        self._history.add(
            PastFrame(result.frame, stamp_ns, frame_id, frame.height, frame.width, prepared.small)
        )
        timings = {"catch_up": catch_up, **result.timings, "inference": _since(begin)}
        objects = self._objects(frame, result)
        return SessionResult(
            stamp_ns=stamp_ns,
            frame_id=frame_id,
            frame_index=result.frame,
            height=frame.height,
            width=frame.width,
            result=result,
            objects=objects,
            events=tuple(frame.events),
            accepted=tuple(frame.accepted),
            replies=tuple(frame.replies),
            timings={**timings, "masks": _since(begin) - timings["inference"]},
        )

    def mark_stale(self, seconds: float) -> SessionEvent:
        """Say that no image has come for so many seconds; the next one resumes the stream."""
        self._stale = True
        return self._stream_event(
            EventKind.STREAM_STALE,
            f"no image for {seconds:.1f} s; there are no masks until one comes",
            seconds, self._last_ns or 0, self._last_frame_id,
        )  # fmt: skip

    def _follow_clock(self, frame: Frame) -> None:
        """Report a stream that resumes, or whose clock has jumped back."""
        if self._last_ns is None:
            return
        gap = (frame.stamp_ns - self._last_ns) / NANO
        if gap < 0:
            # Stamps mean another pass from now on: the past cannot be asked for by them.
            self._bring_up(frame, None)
            self._history.clear()
            message = f"image stamps went back by {-gap:.1f} s; all targets are kept"
            frame.events.append(self._stream_event(
                EventKind.CLOCK_JUMPED, message, -gap, frame.stamp_ns, frame.frame_id
            ))  # fmt: skip
        if self._stale:
            message = "images arrive again; all targets are kept"
            frame.events.append(self._stream_event(
                EventKind.STREAM_RESUMED, message, max(gap, 0.0), frame.stamp_ns, frame.frame_id
            ))  # fmt: skip

    def _stream_event(
        self, kind: EventKind, message: str, seconds: float, stamp_ns: int, frame_id: str
    ) -> SessionEvent:
        return SessionEvent(kind, "", 0, TrackState.TRACKING, seconds, message, stamp_ns, frame_id)

    def _step(self, frame: Frame, prepared: PreparedFrame) -> FrameResult:
        """Run the tracker; if it fails, take this frame's new prompts back."""
        try:
            return self.tracker.step(prepared)
        except Exception as error:
            reason = f"the tracker failed on this image: {error}"
            for request, correction in frame.placed:
                frame.replies.append((request, PromptReply(False, reason)))
                if correction:
                    self.tracker.withdraw_prompt(request.name)
                else:
                    self._forget(request.name, self._standings[request.name], reason)
            raise StepFailedError(reason, tuple(frame.replies)) from error

    # --- prompts --------------------------------------------------------------------------

    def _place_waiting(self, frame: Frame) -> None:
        """Apply the prompts that are due, to this image or to one of the past; keep the others."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            try:
                placed = self._place(request, frame)
            except Sam2sError as error:
                frame.replies.append((request, PromptReply(False, str(error))))
                continue
            if not placed:
                self._waiting.append(request)

    def _place(self, request: PromptRequest, frame: Frame) -> bool:
        """Apply a prompt; False if it must wait."""
        name = request.name
        # One prompt for each target at a time: a second one corrects what the first has drawn.
        if name in self._behind or any(name == other.name for other, _ in frame.placed):
            return False
        past = None
        if request.stamp_ns is not None and request.stamp_ns != frame.stamp_ns:
            ahead = request.stamp_ns - frame.stamp_ns
            if ahead > AHEAD_SECONDS * NANO:
                raise StampOutOfReachError(
                    f"the prompt's stamp is {ahead / NANO:.1f} s ahead of the newest image's; give "
                    "the stamp of the image that was seen, or none for the next image"
                )
            if ahead > 0:
                return False
            past = self._seen_at(request.stamp_ns, frame)
        checked_class(request.class_name, self.tracker.labels)
        self._check_room(name)
        if past is None:
            self.tracker.add_target(name, request.prompt, (frame.width, frame.height))
            correction = self._enter(request, frame.stamp_ns)
            frame.placed.append((request, correction))
            return True
        way = CatchUp(self.tracker, request, past)
        correction = self._enter(request, past.stamp_ns)
        self._behind[name] = way
        value = self._standings[name].label_value
        area = int(np.count_nonzero(source_patch(way.first).pixels))
        reply = PromptReply(True, "", value, area, way.first.iou, past.stamp_ns)
        frame.replies.append((request, reply))
        frame.accepted.append(
            AcceptedPrompt(request, value, correction, past.stamp_ns, past.frame_id)
        )
        return True

    def _seen_at(self, stamp_ns: int, frame: Frame) -> PastFrame | None:
        """Find the frame that was seen; None if it is nearest to the present one."""
        past = self._history.at(stamp_ns)
        if past is None:
            raise StampOutOfReachError(
                f"the image of the prompt is {(frame.stamp_ns - stamp_ns) / NANO:.2f} s old and no "
                f"longer kept: give prompts within {self._settings.history_seconds:g} s "
                "(history_seconds), or without a stamp for the next image"
            )
        if abs(frame.stamp_ns - stamp_ns) < abs(past.stamp_ns - stamp_ns):
            return None
        return past

    def _check_room(self, name: str) -> None:
        names = {*self._standings, name}
        if name not in self._standings and len(names) > self.tracker.max_targets:
            raise TooManyTargetsError(
                f"'{name}' would be target {len(names)} of at most {self.tracker.max_targets}: "
                "remove a target first, or raise max_targets"
            )

    def _enter(self, request: PromptRequest, stamp_ns: int) -> bool:
        """Note a prompt with its target; True if the target was known."""
        standing = self._standings.get(request.name)
        if standing is None:
            self._standings[request.name] = Standing(
                self._values.take(), stamp_ns, request.class_name
            )
            return False
        standing.prompts += 1
        standing.named = request.class_name or standing.named
        return True

    def _bring_up(self, frame: Frame, budget: int | None) -> None:
        """Take targets of the past nearer to the present; those that arrive join the others."""
        for name, way in list(self._behind.items()):
            taken = way.advance(self._history, budget)
            if budget is not None:
                budget -= taken
            if not way.join(self.tracker, self._history):
                return
            del self._behind[name]
            frame.joined.add(name)

    # --- results --------------------------------------------------------------------------

    def _objects(self, frame: Frame, result: FrameResult) -> tuple[SessionObject, ...]:
        """Describe every target on this frame, and report what has become of it."""
        placed = {request.name: (request, correction) for request, correction in frame.placed}
        objects = []
        for name, target in result.items():
            standing = self._standings[name]
            before, last_seen_ns = standing.state, standing.last_seen_ns
            standing.update(target, frame.stamp_ns)
            entry = SessionObject(
                name=name,
                label_value=standing.label_value,
                state=target.state,
                iou=target.iou,
                presence=target.presence,
                class_name=standing.class_name,
                class_confidence=standing.class_confidence,
                class_scores=target.label_scores,
                drawn=source_patch(target),
            )
            objects.append(entry)
            if name in placed:
                request, correction = placed[name]
                frame.accept(request, entry.label_value, correction)
                reply = PromptReply(
                    True, "", entry.label_value, entry.area, entry.iou, frame.stamp_ns
                )
                frame.replies.append((request, reply))
            prompted = name in placed or name in frame.joined
            frame.report(entry, standing, before, last_seen_ns, prompted)
        return tuple(sorted(objects, key=lambda entry: entry.label_value))

    # --- state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Give all that is needed to go on in another process: tensors and plain values.

        Prompts that wait, and targets that are still on their way to the present, are left out.
        """
        known = set(self.tracker.targets)
        return {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "tracker": self.tracker.state_dict(),
            "standings": {
                name: standing.state_dict()
                for name, standing in self._standings.items()
                if name in known
            },
            "free_values": self._values.free
            + [s.label_value for name, s in self._standings.items() if name not in known],
            "frame_id": self._last_frame_id,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[SessionEvent, ...]:
        """Go on from a state; one that does not fit is refused and changes nothing.

        Returns the removal of targets that the state does not have.
        """
        saved = read_session(state)
        self.tracker.load_state_dict(saved.tracker)
        removed = tuple(
            self._removal(name, standing, f"'{name}' was replaced by a loaded state")
            for name, standing in self._standings.items()
            if name not in saved.standings
        )
        self._standings = saved.standings
        self._values.restore(saved.free_values)
        self._behind.clear()
        self._history.clear()
        # The clock is not compared with the former process's: a bag may have been started again.
        self._last_ns, self._last_frame_id = None, saved.frame_id
        return removed


def _since(begin: float) -> float:
    return (time.perf_counter() - begin) * 1e3
