"""Which frames of a video make a clip: DiveMem's hybrid temporal sampling, and a plain one.

A clip of the hybrid policy is f1..f3 drawn over the whole video, then f4..f8 consecutive: f1 is
prompted and becomes the conditional entry of the memory, f2 and f3 teach it the long-term slots,
f4..f8 the short-term window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sam2s_training.data.errors import DataSettingError

Policy = Literal["hybrid", "consecutive"]
POLICIES: tuple[Policy, ...] = ("hybrid", "consecutive")


@dataclass(frozen=True)
class SamplerSettings:
    """How many frames a clip has, and where in the video they lie."""

    policy: Policy = "hybrid"  # consecutive: all in one run, SAM 2's way
    scattered: int = 3  # frames drawn over the whole video, the prompted one first
    consecutive: int = 5  # frames that follow one another; 0 with scattered=1: single images
    max_stride: int = 1  # frames from one of the run to the next: 1 to this, equally likely
    reverse: float = 0.5  # probability that the run goes back in time

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise DataSettingError(f"sampler policy {self.policy!r}: one of {', '.join(POLICIES)}")
        if self.scattered < 1 or self.consecutive < 0:
            raise DataSettingError(
                f"{self.scattered} scattered and {self.consecutive} consecutive frames: at least 1 "
                "scattered frame, which is prompted, and 0 consecutive ones"
            )
        if self.max_stride < 1:
            raise DataSettingError(f"max_stride {self.max_stride}: at least 1 frame")
        if not 0 <= self.reverse <= 1:
            raise DataSettingError(f"reverse {self.reverse}: a probability is 0 to 1")

    @property
    def frames(self) -> int:
        """T, the frames of a clip."""
        return self.scattered + self.consecutive

    @property
    def long(self) -> int:
        """Frames after the first that act as long-term memories."""
        return self.scattered - 1 if self.policy == "hybrid" else 0


def draw_frames(
    settings: SamplerSettings, length: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the frame numbers of a clip from a video of `length` frames: int64 [T].

    No frame comes twice, unless the video has fewer frames than the clip: then the run turns
    round at the video's ends, and scattered frames repeat.
    """
    if length < 1:
        raise DataSettingError(f"a video of {length} frames cannot be sampled")
    hybrid = settings.policy == "hybrid"
    run = _draw_run(
        settings.consecutive if hybrid else settings.frames,
        length,
        settings.max_stride,
        bool(random.random() < settings.reverse),
        random,
    )
    if not hybrid:
        return run
    others = np.delete(np.arange(length), run)
    repeats = len(others) < settings.scattered
    scattered = random.choice(length if repeats else others, settings.scattered, replace=repeats)
    return np.concatenate((scattered, run)).astype(np.int64)


def _draw_run(
    count: int, length: int, max_stride: int, reverse: bool, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `count` frames at one stride, which is lowered until they fit into the video."""
    stride = int(random.integers(1, max_stride + 1))
    stride = max(1, min(stride, (length - 1) // max(count - 1, 1)))
    span = max(count - 1, 0) * stride
    start = int(random.integers(0, max(length - span, 1)))
    run = start + stride * np.arange(count, dtype=np.int64)
    if span >= length:  # turn round at the ends
        period = max(2 * (length - 1), 1)
        run = run % period
        run = np.where(run < length, run, period - run)
    return run[::-1].copy() if reverse else run
