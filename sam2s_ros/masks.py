"""Masks at source size from the network's small logits. ROS-free."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.result import TargetResult
from sam2s_ros.patch import Patch

Range = tuple[int, int]  # of cells: the first, and the one after the last


def source_patch(target: TargetResult) -> Patch:
    """Cut a target's logits at 0, and only where they can be positive at all.

    Between cells that are not positive nothing is, so only those around the positive ones are
    scaled.
    """
    height, width = target.source_size
    small = _small(target)
    x, y, w, h = cv2.boundingRect((small > 0).view(np.uint8))
    if not w:
        return Patch(height, width, 0, 0, np.zeros((0, 0), np.bool_))
    y0, x0, logits = _scaled(small, (y, y + h), (x, x + w), height, width)
    return Patch(height, width, x0, y0, logits > 0)


def source_logits(target: TargetResult, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Scale a part of a target's logits: TargetResult.logits[rows, columns], several times faster.

    A pixel on the border of a mask may differ from `source_patch` by a rounding error.
    """
    height, width = target.source_size
    small = _small(target)
    y0, x0, logits = _scaled(
        small, _around(rows, small.shape[0], height), _around(columns, small.shape[1], width),
        height, width,
    )  # fmt: skip
    return logits[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]


def _small(target: TargetResult) -> NDArray[np.float32]:
    small: NDArray[np.float32] = target.low_res_logits.float().cpu().numpy()
    return small


def _scaled(
    small: NDArray[np.float32], rows: Range, columns: Range, height: int, width: int
) -> tuple[int, int, NDArray[np.float32]]:
    """Scale these cells and some around them; also give the first pixel's row and column."""
    top, bottom = _widened(rows, small.shape[0], height)
    left, right = _widened(columns, small.shape[1], width)
    y0, y1 = top * height // small.shape[0], bottom * height // small.shape[0]
    x0, x1 = left * width // small.shape[1], right * width // small.shape[1]
    cells = small[top:bottom, left:right]
    scaled = cv2.resize(cells, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
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
