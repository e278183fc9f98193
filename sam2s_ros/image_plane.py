"""Where a picture stands in space, as long as nobody measures depth. ROS-free."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ImagePlane:
    """Where a picture is shown in the camera's optical frame."""

    distance: float = 0.1  # metres; an endoscope's usual distance from the tissue
    field_of_view: float = math.radians(70)  # horizontal, of the camera

    def metres_per_pixel(self, width: int) -> float:
        """Size of one pixel of a picture so many pixels wide."""
        return 2 * self.distance * math.tan(self.field_of_view / 2) / width
