"""Tracks the newest frame in a thread of this process.

A client of a tracker that runs elsewhere needs the same four: `begin`, `offer`, `results`, `stop`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sam2s_model import ModelConfig, Prompt, Sam2s, StreamTracker, load_model
from sam2s_model.random_weights import lively_model
from sam2s_model.weights import WeightState, list_weights
from sam2s_ros.demo.stream import Frame, Target

PRESET = "nano"


@dataclass(frozen=True)
class Result:
    """What the tracker made of one frame."""

    stamp: int  # nanoseconds, of the frame
    latency: float  # seconds from the frame's stamp to masks at source size
    masks: dict[str, NDArray[np.bool_]]  # by target, bool (H, W)
    labels: dict[str, str]  # class by target, or `unknown`


def shipped_model() -> tuple[Sam2s, bool]:
    """Load the shipped weights; where none are, make random ones. Also tells which it is."""
    for weights in list_weights():
        if weights.name == PRESET and weights.state is not WeightState.MISSING:
            return load_model(PRESET), True  # damaged weights raise here, which is right
    return lively_model(ModelConfig.preset(PRESET)), False


class LocalTracker(threading.Thread):
    """Steps a StreamTracker through the newest frames; older ones are skipped, never queued."""

    def __init__(self, model: Sam2s) -> None:
        super().__init__(name="tracker", daemon=True)
        self.results: list[Result] = []
        self.error: Exception | None = None
        # A core stays free for the endoscope and for receiving: threads of torch that have to wait
        # for one cost far more than they bring.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
        self._tracker = StreamTracker(model)
        self._change = threading.Condition()
        self._newest: Frame | None = None
        self._begun = self._stopped = False

    def warm_up(self, width: int, height: int, targets: int) -> None:
        """Run a few steps, so that the first frame is as fast as the hundredth."""
        picture = np.zeros((height, width, 3), np.uint8)
        for k in range(targets):
            self._tracker.add_target(f"{k}", Prompt(box=[0, 0, width // 2, height // 2]))
        for _ in range(3):
            self._tracker.step(picture)
        self._tracker.reset()

    def begin(self, targets: Sequence[Target], frame: Frame) -> None:
        """Mark the targets on this very frame and go on from it; raises if a prompt is refused."""
        for target in targets:
            self._tracker.add_target(target.name, target.prompt)
        with self._change:
            self._newest, self._begun = frame, True
        self.start()

    def offer(self, frame: Frame) -> None:
        """Put a frame in the place of the one that waits."""
        with self._change:
            # Until the first step has taken it, the frame of the prompts stays.
            if self._begun and (self.results or self._newest is None):
                self._newest = frame
                self._change.notify()

    def run(self) -> None:
        """Track until stopped; an error is kept for the main thread to report."""
        try:
            while (frame := self._take()) is not None:
                outcome = self._tracker.step(frame.image)
                masks = {name: target.mask for name, target in outcome.items()}
                labels = {name: target.label for name, target in outcome.items()}
                latency = (time.time_ns() - frame.stamp) / 1e9
                self.results.append(Result(frame.stamp, latency, masks, labels))
        except Exception as error:  # whatever it is, the demonstration must say it and fail
            self.error = error

    def stop(self) -> None:
        """Finish the frame in work, then end."""
        with self._change:
            self._stopped = True
            self._change.notify()
        if self.is_alive():
            self.join(10.0)

    def _take(self) -> Frame | None:
        with self._change:
            self._change.wait_for(lambda: self._newest is not None or self._stopped)
            frame, self._newest = self._newest, None
            return None if self._stopped else frame
