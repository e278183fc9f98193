"""What a session knows of a target beside its masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sam2s_model.classes import UNKNOWN
from sam2s_model.result import TargetResult, TrackState
from sam2s_ros.session_types import TargetStanding


@dataclass
class Standing:
    """A target's label value, its circumstances on the last frame, and its history."""

    label_value: int
    added_ns: int  # stamp of the image that its first prompt was applied to
    named: str = ""  # class given by the operator; empty: left to the model
    prompts: int = 1
    announced: bool = False  # whether it has been in a result
    state: TrackState = TrackState.TRACKING
    iou: float = 0.0
    class_name: str = UNKNOWN
    class_confidence: float = 0.0
    last_seen_ns: int = 0  # stamp of the last image that it was tracked in; 0: never

    def update(self, result: TargetResult, stamp_ns: int) -> None:
        """Take over how the target stands on a frame."""
        self.state = result.state
        self.iou = result.iou
        # The operator's word is not a guess.
        self.class_name = self.named or result.label
        self.class_confidence = 1.0 if self.named else result.label_scores.get(result.label, 0.0)
        if result.state is TrackState.TRACKING:
            self.last_seen_ns = stamp_ns

    def view(self, name: str, memory_entries: int) -> TargetStanding:
        """Give a copy for others to keep."""
        return TargetStanding(
            name=name,
            label_value=self.label_value,
            state=self.state,
            iou=self.iou,
            class_name=self.class_name,
            class_confidence=self.class_confidence,
            added_ns=self.added_ns,
            last_seen_ns=self.last_seen_ns,
            prompts=self.prompts,
            memory_entries=memory_entries,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give plain values from which `of` makes the same again."""
        return {**dataclasses.asdict(self), "state": self.state.value}

    @staticmethod
    def of(state: Mapping[str, Any]) -> Standing:
        """Make a standing from what `state_dict` gave."""
        return Standing(**{**state, "state": TrackState(state["state"])})
