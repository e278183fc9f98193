"""What a step returns: a mask and its circumstances for each target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.threads import torch_threads


class TrackState(str, Enum):
    """Whether a target can be relied on."""

    TRACKING = "tracking"  # in the frame, with a trustworthy mask
    OCCLUDED = "occluded"  # not seen on this frame, or its mask is not to be trusted
    LOST = "lost"  # not seen for so long that its mask must not be waited for


@dataclass(frozen=True, eq=False)
class TargetResult:
    """One target on one frame. Pictures at source size are made when first asked for."""

    name: str
    low_res_logits: Tensor  # [s, s] float32, positive inside the mask; s = config.mask_size
    source_size: tuple[int, int]  # height and width of the frame
    iou: float  # predicted IoU of the mask, 0..1
    object_score: float  # logit that the target is in the frame
    state: TrackState
    label: str  # class from the text bank, or `unknown`
    label_scores: Mapping[str, float]  # smoothed probability of each class; empty without a bank
    # How far the logits lie above the most certain other target's, where targets share no pixel
    # and this one's mask may meet another's: [s, s] float32.
    lead_logits: Tensor | None = None
    torch_threads: int | None = None  # with which pictures are made; None: as many as torch has

    @property
    def presence(self) -> float:
        """Probability that the target is in the frame, 0..1."""
        return float(1.0 / (1.0 + np.exp(-self.object_score)))

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """Mask logits at source size: float32 HxW."""
        logits = self._scaled(self.low_res_logits)
        if self.lead_logits is not None:
            np.minimum(logits, self._scaled(self.lead_logits), out=logits)
        return logits

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The mask at source size: bool HxW."""
        return self.logits > 0

    @cached_property
    def area(self) -> int:
        """Pixels of the mask at source size."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def box(self) -> tuple[int, int, int, int] | None:
        """The mask's bounds x0, y0, x1, y1 in source pixels, x1 and y1 exclusive; None if empty."""
        rows = np.flatnonzero(self.mask.any(axis=1))
        if len(rows) == 0:
            return None
        columns = np.flatnonzero(self.mask[rows[0] : rows[-1] + 1].any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def _scaled(self, small: Tensor) -> NDArray[np.float32]:
        height, width = self.source_size
        if small.device.type == "cpu":
            # The same as torch's but for rounding, and much faster.
            large = cv2.resize(small.numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
            return np.asarray(large, np.float32)
        with torch.inference_mode(), torch_threads(self.torch_threads):
            scaled = F.interpolate(
                small[None, None], size=self.source_size, mode="bilinear", align_corners=False
            )
        array: NDArray[np.float32] = scaled[0, 0].cpu().numpy()
        return array


@dataclass(frozen=True, eq=False)
class FrameResult(Mapping[str, TargetResult]):
    """The results of one step by target name, in the order in which targets were added."""

    frame: int  # how many frames were stepped before this one
    targets: Mapping[str, TargetResult]
    timings: Mapping[str, float] = field(default_factory=dict)  # milliseconds by stage, and `total`

    def __getitem__(self, name: str) -> TargetResult:
        return self.targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)
