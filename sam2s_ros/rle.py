"""Run-length masks as COCO has them, and what their runs tell: area, box, centroid.

ROS-free. Masks are bool (H, W). Runs follow the mask column by column, top to bottom, background
first; they are plain numbers, not COCO's compressed text. Everything works on runs or whole columns
at once, so the cost of a mask is that of reading it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError

Mask = NDArray[np.bool_]

MAX_PIXELS = 1 << 26  # of a mask that is decoded: 8192×8192; more is a damaged message


class RunLengthError(Sam2sError):
    """Runs that do not describe a mask of their size."""


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of `height`×`width` as its runs: uint32, background and mask in turn."""

    height: int  # pixels
    width: int  # pixels
    counts: NDArray[np.uint32]

    @cached_property
    def _edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each run of the mask begins and ends (exclusive), counted down the columns."""
        places = np.cumsum(self.counts, dtype=np.int64)
        ends = places[1::2]
        begins = places[0::2][: ends.size]
        filled = ends > begins  # others may write runs of no length
        return begins[filled], ends[filled]

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    @cached_property
    def box(self) -> tuple[int, int, int, int] | None:
        """The mask's bounds x0, y0, x1, y1 in pixels, x1 and y1 exclusive; None if empty."""
        if not self.area:
            return None
        begins, ends = self._edges
        columns, tops = np.divmod(begins, self.height)
        last_columns, bottoms = np.divmod(ends - 1, self.height)
        x0, x1 = int(columns[0]), int(last_columns[-1]) + 1
        if np.any(columns != last_columns):  # a run that goes on at the next column's top
            return x0, 0, x1, self.height
        return x0, int(tops.min()), x1, int(bottoms.max()) + 1

    @cached_property
    def centroid(self) -> tuple[float, float] | None:
        """Mean x, y of the mask's pixel centres; None if empty. Exact but for the last division."""
        if not self.area:
            return None
        begins, ends = self._edges
        x_sum = int((self._x_before(ends) - self._x_before(begins)).sum())
        y_sum = int((self._y_before(ends) - self._y_before(begins)).sum())
        return x_sum / self.area + 0.5, y_sum / self.area + 0.5

    def _x_before(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum of the column numbers of all pixels before each place."""
        column, row = np.divmod(place, self.height)
        total: NDArray[np.int64] = self.height * (column * (column - 1) // 2) + column * row
        return total

    def _y_before(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum of the row numbers of all pixels before each place."""
        column, row = np.divmod(place, self.height)
        whole = self.height * (self.height - 1) // 2
        total: NDArray[np.int64] = column * whole + row * (row - 1) // 2
        return total

    def decode(self) -> Mask:
        """Make the mask, bool (H, W); refuse runs that do not add up to its size."""
        pixels = self.height * self.width
        total = int(self.counts.sum(dtype=np.uint64))
        if total != pixels:
            raise RunLengthError(
                f"the runs of the mask add up to {total} pixels; {self.width}×{self.height} needs "
                f"{pixels}"
            )
        if pixels > MAX_PIXELS:
            raise RunLengthError(
                f"the mask is {self.width}×{self.height}; at most {MAX_PIXELS} pixels are decoded"
            )
        if not pixels:
            return np.zeros((self.height, self.width), np.bool_)
        values = (np.arange(self.counts.size) & 1).astype(np.uint8)
        columns = np.repeat(values, self.counts).reshape(self.width, self.height)
        return cast(Mask, cv2.transpose(columns).view(np.bool_))


def encode_mask(mask: Mask) -> Runs:
    """Find the runs of a mask, bool (H, W)."""
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if not columns.size:
        return Runs(height, width, np.array([mask.size], np.uint32))
    # Only the columns that the mask touches are turned; OpenCV does it ten times as fast as numpy.
    first, last = int(columns[0]), int(columns[-1]) + 1
    pixels = cv2.transpose(mask.view(np.uint8)[:, first:last]).reshape(-1)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + (first * height + 1)
    edges = np.concatenate([
        [0],
        [first * height] * bool(pixels[0]),
        changes,
        [last * height] * bool(pixels[-1] and last < width),
        [mask.size],
    ])  # fmt: skip
    return Runs(height, width, np.diff(edges).astype(np.uint32))
