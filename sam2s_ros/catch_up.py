"""Prompts on an image of the past: their targets are tracked anew from there to the present."""

from __future__ import annotations

from sam2s_model import StreamTracker
from sam2s_model.result import TargetResult
from sam2s_ros.history import History, PastFrame
from sam2s_ros.session_types import PromptRequest


class CatchUp:
    """One target on its way from the frame that an operator saw to the stream's newest one.

    It is tracked on a branch of the stream's tracker, so that the others go on meanwhile.
    """

    def __init__(self, tracker: StreamTracker, request: PromptRequest, frame: PastFrame) -> None:
        self.request = request
        self.frame = frame  # the one that the prompt is applied to
        self._branch = tracker.branch(frame.number, request.name)
        self._branch.add_target(request.name, request.prompt, (frame.width, frame.height))
        self.first: TargetResult = self._step(frame)

    def _step(self, frame: PastFrame) -> TargetResult:
        result = self._branch.step(frame.picture, (frame.height, frame.width))
        return result[self.request.name]

    def advance(self, history: History, budget: int | None) -> int:
        """Step over at most `budget` further frames (None: over all); return how many it took."""
        taken = 0
        while budget is None or taken < budget:
            frame = history.since(self._branch.frame)
            if frame is None:
                break
            # Frames that history has let go of are left out, as if the target had been hidden.
            self._branch.skip_to(frame.number)
            self._step(frame)
            taken += 1
        return taken

    def join(self, tracker: StreamTracker, history: History) -> bool:
        """Hand the target over if it has arrived; False if there is still a way to go."""
        if history.since(self._branch.frame) is not None:
            return False
        self._branch.skip_to(tracker.frame)
        tracker.adopt(self._branch, self.request.name)
        return True
