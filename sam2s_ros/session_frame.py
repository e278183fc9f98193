"""What one frame brings: events, prompts that were applied to it, and replies. ROS-free."""

from __future__ import annotations

from dataclasses import dataclass, field

from sam2s_model.result import TrackState
from sam2s_ros.history import NANO
from sam2s_ros.session_types import (
    AcceptedPrompt,
    EventKind,
    PromptReply,
    PromptRequest,
    SessionEvent,
    SessionObject,
)
from sam2s_ros.standing import Standing


@dataclass
class Frame:
    """What has happened on one frame so far."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    events: list[SessionEvent] = field(default_factory=list)
    placed: list[tuple[PromptRequest, bool]] = field(default_factory=list)  # and: a correction?
    joined: set[str] = field(default_factory=set)  # targets that have come from the past
    accepted: list[AcceptedPrompt] = field(default_factory=list)
    replies: list[tuple[PromptRequest, PromptReply]] = field(default_factory=list)

    def accept(self, request: PromptRequest, value: int, correction: bool) -> None:
        """Note that a prompt has been applied to this frame."""
        self.accepted.append(
            AcceptedPrompt(request, value, correction, self.stamp_ns, self.frame_id)
        )

    def report(
        self,
        entry: SessionObject,
        standing: Standing,
        before: TrackState,
        last_seen_ns: int,
        prompted: bool,
    ) -> None:
        """Tell what has happened to a target since the last frame.

        Args:
            entry: how it is on this frame.
            standing: what is known of it by now.
            before: its state on the last frame.
            last_seen_ns: stamp of the frame that it was tracked on last; 0: never.
            prompted: whether a prompt for it has just been applied.
        """
        unseen = max((self.stamp_ns - last_seen_ns) / NANO, 0.0) if last_seen_ns else 0.0
        if not standing.announced:
            standing.announced = True
            self._tell(EventKind.ADDED, entry, 0.0, "was added")
        elif prompted:
            self._tell(EventKind.CORRECTED, entry, 0.0, "was corrected")
        if entry.state is before:
            return
        if entry.state is TrackState.TRACKING:
            self._tell(
                EventKind.REACQUIRED, entry, unseen, f"is tracked again after {unseen:.1f} s"
            )
        elif entry.state is TrackState.OCCLUDED:
            self._tell(EventKind.OCCLUDED, entry, unseen, "is out of sight")
        else:
            message = f"was not seen for {unseen:.1f} s and counts as lost"
            self._tell(EventKind.LOST, entry, unseen, message)

    def _tell(self, kind: EventKind, entry: SessionObject, seconds: float, what: str) -> None:
        self.events.append(SessionEvent(
            kind, entry.name, entry.label_value, entry.state, seconds, f"'{entry.name}' {what}",
            self.stamp_ns, self.frame_id,
        ))  # fmt: skip
