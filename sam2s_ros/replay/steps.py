"""Every frame through the session; or through its journal as far as an interrupted replay came."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sam2s_ros import messages
from sam2s_ros.replay.actions import Action
from sam2s_ros.replay.frames import Frame
from sam2s_ros.replay.journal import Journal, JournalError, Step
from sam2s_ros.session import PromptRequest, Session


class Steps:
    """Gives every frame's step, in order."""

    def __init__(self, session: Session, journal: Journal) -> None:
        self._session, self._journal = session, journal
        self._requests: list[PromptRequest] = []
        self._answered = 0  # of them
        self._begun = time.monotonic()
        # The first frame that this process tracks itself, if it goes on from a journal.
        self.resumed_at = journal.frames or None
        self.seconds_before = journal.seconds  # that the former process took

    def take(self, frame: Frame, due: Sequence[Action], requests: Sequence[PromptRequest]) -> Step:
        """Do what is due on a frame, and track it; `requests` are the prompts among it."""
        self._requests += requests
        last = (self.resumed_at or 0) - 1
        if frame.index < last:
            step = self._journal.recall(self._requests)
        elif frame.index == last:
            step = self._go_on(frame, due, requests)
        else:
            step = self._track(frame, due, requests)
        self._answered += len(step.result.replies)
        return step

    def _go_on(
        self, frame: Frame, due: Sequence[Action], requests: Sequence[PromptRequest]
    ) -> Step:
        """Track the journal's last frame again, so that the session is as it was after it."""
        kept = self._journal.recall(self._requests)
        self._session.load_state_dict(self._journal.state)
        again = self._do(frame, due, requests)
        if _told(again) != _told(kept):
            raise JournalError(
                f"frame {frame.index} is tracked in another way than by the interrupted replay"
            )
        return kept

    def _track(
        self, frame: Frame, due: Sequence[Action], requests: Sequence[PromptRequest]
    ) -> Step:
        # A state does not hold prompts that wait for another frame.
        waiting = len(self._requests) - len(requests) - self._answered
        saving = self._journal.due(frame.index) and not waiting
        state = self._session.state_dict() if saving else None
        step = self._do(frame, due, requests)
        self._journal.add(step, self._requests)
        if state is not None:
            seconds = time.monotonic() - self._begun + self.seconds_before
            self._journal.save(state, frame.index + 1, seconds)
        return step

    def _do(self, frame: Frame, due: Sequence[Action], requests: Sequence[PromptRequest]) -> Step:
        removed, problems = [], []
        for action in due:
            if action.prompt is not None:
                continue
            known = [standing.name for standing in self._session.targets]
            if action.name in known:
                removed.append(self._session.remove(action.name))
            else:
                problems.append(
                    f"{action.place}: '{action.name}' cannot be removed at {action.when}: it is "
                    f"not tracked; targets: {', '.join(known) or 'none'}"
                )
        result = self._session.process(frame.stamp_ns, frame.frame_id, frame.image, requests)
        return Step(tuple(removed), tuple(problems), result)


def _told(step: Step) -> str:
    return str(messages.objects_message(step.result))
