"""Masks at source size from the network's small logits. ROS-free."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.result import TargetResult
from sam2s_ros.patch import Patch

Range = tuple[int, int]  # of cells: the first, and the one after the last


def source_patch(target: TargetResult) -> Patch:
    """Cut a target's logits at 0, and only where they can be positive at all.

    Between cells that are not positive nothing is, so only those around the positive ones are
    scaled.
    """
    height, width = target.source_size
    small = _array(target.low_res_logits)
    x, y, w, h = cv2.boundingRect((small > 0).view(np.uint8))
    if not w:
        return Patch(height, width, 0, 0, np.zeros((0, 0), np.bool_))
    y0, x0, logits = _scaled(target, (y, y + h), (x, x + w))
    return Patch(height, width, x0, y0, logits > 0)


def source_logits(target: TargetResult, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Scale a part of a target's logits: TargetResult.logits[rows, columns], several times faster.

    A pixel on the border of a mask may differ from `source_patch` by a rounding error.
    """
    height, width = target.source_size
    cells = target.low_res_logits.shape
    y0, x0, logits = _scaled(
        target, _around(rows, cells[0], height), _around(columns, cells[1], width)
    )
    return logits[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]


def _array(logits: Tensor) -> NDArray[np.float32]:
    small: NDArray[np.float32] = logits.float().cpu().numpy()
    return small


def _scaled(
    target: TargetResult, rows: Range, columns: Range
) -> tuple[int, int, NDArray[np.float32]]:
    """Scale these cells and some around them; also give the first pixel's row and column."""
    height, width = target.source_size
    small = _array(target.low_res_logits)
    top, bottom = _widened(rows, small.shape[0], height)
    left, right = _widened(columns, small.shape[1], width)
    y0, y1 = top * height // small.shape[0], bottom * height // small.shape[0]
    x0, x1 = left * width // small.shape[1], right * width // small.shape[1]
    here, size = np.s_[top:bottom, left:right], (x1 - x0, y1 - y0)
    scaled = cv2.resize(small[here], size, interpolation=cv2.INTER_LINEAR)
    if target.lead_logits is not None:
        lead = _array(target.lead_logits)[here]
        cv2.min(scaled, cv2.resize(lead, size, interpolation=cv2.INTER_LINEAR), scaled)
    return y0, x0, np.asarray(scaled, np.float32)


def _around(pixels: slice, cells: int, size: int) -> Range:
    """Give the cells that some of `size` pixels lie in."""
    return pixels.start * cells // size, -(-pixels.stop * cells // size)


def _widened(part: Range, cells: int, pixels: int) -> Range:
    """Widen a range of cells by one on either side, and to where cells and pixels begin together.

    The cell more is what pixels at the border are mixed with.
    """
    step = cells // math.gcd(cells, pixels)
    begin = max(part[0] - 1, 0) // step * step
    end = -(-min(part[1] + 1, cells) // step) * step
    return begin, end
