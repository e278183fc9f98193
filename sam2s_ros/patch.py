"""The part of a mask that holds its target. ROS-free.

An instrument covers some percent of the picture. What is cut out once is not looked for again in
all the pixels around it: not when its runs are counted, nor when it is drawn into a label map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True, eq=False)
class Patch:
    """A rectangle of a mask; outside it the mask is False. Its border may be False, too."""

    height: int  # of the whole mask, in pixels
    width: int
    x0: int  # where the rectangle's upper left pixel is
    y0: int
    pixels: Mask  # (h, w), either 0 for an empty mask

    @classmethod
    def of(cls, mask: Mask) -> Patch:
        """Cut the columns that a mask touches out of it: a view."""
        height, width = mask.shape
        columns = np.flatnonzero(mask.any(axis=0))
        if not columns.size:
            return cls(height, width, 0, 0, mask[:0, :0])
        first, last = int(columns[0]), int(columns[-1]) + 1
        return cls(height, width, first, 0, mask[:, first:last])

    @property
    def rows(self) -> slice:
        """Where the rectangle is in the mask, downwards."""
        return slice(self.y0, self.y0 + self.pixels.shape[0])

    @property
    def columns(self) -> slice:
        """Where the rectangle is in the mask, to the right."""
        return slice(self.x0, self.x0 + self.pixels.shape[1])

    def whole(self) -> Mask:
        """Give the whole mask, bool (H, W)."""
        mask = np.zeros((self.height, self.width), np.bool_)
        mask[self.rows, self.columns] = self.pixels
        return mask
