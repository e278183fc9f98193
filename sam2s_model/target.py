"""One tracked target: its memory, its state and its smoothed class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sam2s_model.bank import MemoryBank
from sam2s_model.classes import UNKNOWN
from sam2s_model.config import TrackSettings
from sam2s_model.result import TrackState


class Target:
    """What the tracker keeps between frames for one target; its size never changes."""

    def __init__(self, name: str, bank: MemoryBank, num_labels: int) -> None:
        self.name = name
        self.bank = bank
        self.state = TrackState.TRACKING
        self.absent_frames = 0  # frames since the target was last tracked
        self.label_scores = torch.zeros(num_labels)  # smoothed; all zero before the first vector

    @property
    def begun(self) -> bool:
        """Whether a prompted frame is in memory, so that the target can be tracked."""
        return bool(self.bank.filled(self.bank.layout.conditional))

    def update_state(self, presence: float, iou: float, settings: TrackSettings) -> None:
        """Follow presence and predicted IoU with hysteresis."""
        if self.state is TrackState.TRACKING:
            seen = presence >= settings.presence_low and iou >= settings.iou_low
        else:
            seen = presence >= settings.presence_high and iou >= settings.iou_high
        if seen:
            self.state = TrackState.TRACKING
            self.absent_frames = 0
            return
        self.absent_frames = min(self.absent_frames + 1, settings.lost_after)
        lost = self.absent_frames >= settings.lost_after
        self.state = TrackState.LOST if lost else TrackState.OCCLUDED

    def update_label(self, probabilities: Tensor, settings: TrackSettings) -> None:
        """Mix this frame's class probabilities [K] into the smoothed ones."""
        probabilities = probabilities.float().cpu()
        if not self.label_scores.any():
            self.label_scores = probabilities.clone()
            return
        keep = settings.label_momentum
        self.label_scores = keep * self.label_scores + (1 - keep) * probabilities

    def label(self, names: tuple[str, ...], settings: TrackSettings) -> str:
        """The most likely class, or `unknown` while none is likely enough."""
        if not self.label_scores.any():
            return UNKNOWN
        score, index = self.label_scores.max(0)
        return names[int(index)] if float(score) >= settings.label_threshold else UNKNOWN

    def state_dict(self) -> dict[str, Any]:
        """Everything kept about the target."""
        return {
            "bank": self.bank.state_dict(),
            "state": self.state.value,
            "absent_frames": self.absent_frames,
            "label_scores": self.label_scores.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by `state_dict`."""
        self.bank.load_state_dict(state["bank"])
        self.state = TrackState(state["state"])
        self.absent_frames = state["absent_frames"]
        self.label_scores = state["label_scores"].cpu().clone()
