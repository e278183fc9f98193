"""Masks at source size from the network's small logits. ROS-free."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.result import TargetResult


def source_logits(target: TargetResult) -> NDArray[np.float32]:
    """Scale a target's logits to source size (H, W): TargetResult.logits, several times faster."""
    height, width = target.source_size
    small = target.low_res_logits.float().cpu().numpy()
    return np.asarray(
        cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def source_mask(target: TargetResult) -> NDArray[np.bool_]:
    """Cut a target's logits at 0: bool (H, W)."""
    mask: NDArray[np.bool_] = source_logits(target) > 0
    return mask
