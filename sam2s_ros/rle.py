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
from sam2s_ros.patch import Mask, Patch

Numbers = NDArray[np.int64]

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
    def _spans(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Column and row of each run's first pixel, then of its last."""
        places = np.cumsum(self.counts, dtype=np.int64)
        ends = places[1::2]
        begins = places[0::2][: ends.size]
        filled = ends > begins  # others may write runs of no length
        if not filled.all():
            begins, ends = begins[filled], ends[filled]
        return (*np.divmod(begins, self.height), *np.divmod(ends - 1, self.height))

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    @cached_property
    def box(self) -> tuple[int, int, int, int] | None:
        """The mask's bounds x0, y0, x1, y1 in pixels, x1 and y1 exclusive; None if empty."""
        if not self.area:
            return None
        columns, tops, last_columns, bottoms = self._spans
        x0, x1 = int(columns[0]), int(last_columns[-1]) + 1
        if np.any(columns != last_columns):  # a run that goes on at the next column's top
            return x0, 0, x1, self.height
        return x0, int(tops.min()), x1, int(bottoms.max()) + 1

    @cached_property
    def centroid(self) -> tuple[float, float] | None:
        """Mean x, y of the mask's pixel centres; None if empty. Exact but for the last division."""
        if not self.area:
            return None
        c, top, last, bottom = self._spans
        # Sums over all pixels before the end of each run, less those before its beginning. Of the
        # numbers before n the sum is n·(n-1)/2.
        after, whole = bottom + 1, self.height * (self.height - 1)
        x_sum = self.height * (last @ (last - 1) - c @ (c - 1)) // 2 + last @ after - c @ top
        y_sum = (whole * (last - c).sum() + after @ bottom - top @ (top - 1)) // 2
        return int(x_sum) / self.area + 0.5, int(y_sum) / self.area + 0.5

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
    return encode_patch(Patch.of(mask))


def encode_patch(patch: Patch) -> Runs:
    """Find the runs of a mask of which only a part is given."""
    height, pixels = patch.height, patch.height * patch.width
    rows, columns = patch.pixels.shape
    if not patch.pixels.size:
        return Runs(height, patch.width, np.array([pixels], np.uint32))
    # Turned, for runs go down the columns; OpenCV does it ten times as fast as numpy. A row below
    # ends what reaches the rectangle's lower border, unless it goes on at the next column's top.
    pitch = rows + (rows < height)
    turned = np.zeros(columns * pitch + 2, np.uint8)  # one more on either side: all runs have ends
    inside = turned[1:-1].reshape(columns, pitch)
    cv2.transpose(patch.pixels.view(np.uint8), inside[:, :rows])
    edges = np.flatnonzero(turned[1:] != turned[:-1])
    if pitch > rows:
        column, row = np.divmod(edges, pitch)
        edges = column * height + row
    edges += patch.x0 * height + patch.y0
    if edges.size and edges[-1] == pixels:
        edges = edges[:-1]
    counts = np.diff(edges, prepend=0, append=pixels)
    return Runs(height, patch.width, counts.astype(np.uint32))
