"""What the operator does in a replay, and when: targets prompted, corrected, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sam2s_model.prompt import Prompt
from sam2s_ros.bags.reader import seconds

SLACK_NS = 1_000  # by which a stamp in a file may be rounded


@dataclass(frozen=True)
class Action:
    """One thing to do on one frame, given by its number or by a stamp.

    A stamp means the first frame that is not older. `prompt` is None for a removal.
    """

    name: str
    prompt: Prompt | None
    place: str  # where it is written, for messages
    frame: int | None = None
    stamp_ns: int | None = None
    from_start_ns: int | None = None  # like a stamp, counted from the bag's first image
    class_name: str = ""
    truth: int | None = None  # the target's id in the ground truth

    @property
    def when(self) -> str:
        """The moment in words."""
        if self.frame is not None:
            return f"frame {self.frame}"
        if self.stamp_ns is not None:
            return f"stamp {seconds(self.stamp_ns)}"
        return f"second {(self.from_start_ns or 0) / 1e9:g}"


class Schedule:
    """Hands out actions as frames come by; what is left at the end lies outside the bag."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._waiting = list(actions)
        self._first_ns: int | None = None
        self.problems: list[str] = []

    def due(self, frame: int, stamp_ns: int) -> list[Action]:
        """Take the actions of a frame, in the order of the file."""
        if self._first_ns is None:
            self._first_ns = stamp_ns
            self._drop_earlier(stamp_ns)
        due = [action for action in self._waiting if self._is_due(action, frame, stamp_ns)]
        if due:
            self._waiting = [action for action in self._waiting if action not in due]
        return due

    def finish(self, frames: int, last_ns: int) -> None:
        """Name what was never due."""
        for action in self._waiting:
            self.problems.append(
                f"{action.place}: '{action.name}' at {action.when} lies after the bag's end "
                f"({frames} frames, the last at stamp {seconds(last_ns)}); it was left out"
            )
        self._waiting = []

    def _drop_earlier(self, first_ns: int) -> None:
        for action in list(self._waiting):
            if action.stamp_ns is not None and action.stamp_ns < first_ns - SLACK_NS:
                self._waiting.remove(action)
                self.problems.append(
                    f"{action.place}: '{action.name}' at {action.when} lies before the bag's first "
                    f"image (stamp {seconds(first_ns)}); it was left out"
                )

    def _is_due(self, action: Action, frame: int, stamp_ns: int) -> bool:
        if action.frame is not None:
            return action.frame <= frame
        at = action.stamp_ns
        if at is None:
            assert self._first_ns is not None
            at = self._first_ns + (action.from_start_ns or 0)
        return stamp_ns >= at - SLACK_NS
