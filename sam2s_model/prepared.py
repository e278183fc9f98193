"""A frame as far as it can be computed without knowing any target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sam2s_model.model import Features
    from sam2s_model.runtime.base import Runtime


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """What `StreamTracker.prepare` makes of a frame for `step`."""

    small: NDArray[np.uint8]  # [S, S, 3]: all of the frame that the network looks at
    height: int  # of the frame itself
    width: int
    features: Features | None  # None where no target was known yet; `step` computes them then
    runtime: Runtime  # that computed them
    began: float  # seconds by time.perf_counter()
    timings: Mapping[str, float]  # milliseconds: `shrink`, and `encode_image` if there are features

    @property
    def elapsed(self) -> float:
        """Milliseconds that the preparation took."""
        return sum(self.timings.values())
