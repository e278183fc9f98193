"""The worst moments of a replay, each with a picture; only a few are held at a time."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from sam2s_ros.replay.results import WORST

WIDTH = 480  # pixels, of a picture in the report
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Moment:
    """One of the worst moments."""

    frame: int
    stamp_ns: int
    target: str
    badness: float  # higher is worse
    why: str
    jpeg: bytes

    def as_json(self, file: str) -> dict[str, Any]:
        """Give plain JSON values, with the name of its picture's file."""
        return {
            "frame": self.frame, "stamp_ns": self.stamp_ns, "target": self.target,
            "why": self.why, "picture": file,
        }  # fmt: skip


class WorstMoments:
    """Keeps the worst moments, apart from each other in time or by target.

    Pictures are drawn only of frames that are among the worst when they come by.
    """

    def __init__(self, count: int = 6, apart: int = 50) -> None:
        self.count, self.apart = count, apart
        self._kept: list[Moment] = []

    def offer(
        self,
        frame: int,
        stamp_ns: int,
        target: str,
        badness: float,
        why: str,
        draw: Callable[[], NDArray[np.uint8]],
    ) -> None:
        """Keep this moment if it is among the worst."""
        # Another target's trouble shows in the same picture.
        near = {True: self.apart, False: self.apart // 5}
        rivals = [m for m in self._kept if abs(m.frame - frame) < near[m.target == target]]
        if rivals:
            if badness <= max(m.badness for m in rivals):
                return
        elif len(self._kept) >= self.count and badness <= min(m.badness for m in self._kept):
            return
        self._kept = [m for m in self._kept if m not in rivals]
        self._kept.append(Moment(frame, stamp_ns, target, badness, why, thumbnail(draw())))
        self._kept.sort(key=lambda m: (-m.badness, m.frame, m.target))
        del self._kept[self.count :]

    def write(self, folder: Path, first_ns: int) -> list[dict[str, Any]]:
        """Write the pictures into a folder's `worst`, the very worst first; describe them."""
        (folder / WORST).mkdir()
        made = []
        for number, moment in enumerate(self._kept, 1):
            file = f"{WORST}/{number:02d}.jpg"
            (folder / file).write_bytes(moment.jpeg)
            second = round((moment.stamp_ns - first_ns) / 1e9, 3)
            made.append({**moment.as_json(file), "second": second})
        return made


def thumbnail(picture: NDArray[np.uint8], width: int = WIDTH) -> bytes:
    """Make a small jpeg of a picture, uint8 (H, W, 3) RGB."""
    small = PilImage.fromarray(picture)
    if small.width > width:
        size = (width, max(1, round(small.height * width / small.width)))
        small = small.resize(size, PilImage.Resampling.BILINEAR)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=JPEG_QUALITY)
    return data.getvalue()
