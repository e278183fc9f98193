"""Contact sheets, overlays and timing of scenes: what `sam2s scene` shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sam2s_model.synth.render import render_batch
from sam2s_model.synth.scene import Shot, SurgicalScene

Image = NDArray[np.uint8]


def overlay(shot: Shot, strength: float = 0.55) -> Image:
    """Paint each instance's mask over the picture in a colour of its own: uint8 H×W×3 RGB."""
    ids = np.arange(256)
    hue = (ids * 0.618034) % 1.0
    palette = 255 * np.clip(np.abs((hue[:, None] + [0, 2 / 3, 1 / 3]) % 1.0 * 6 - 3) - 1, 0, 1)
    weight = strength * (shot.masks > 0)[:, :, None]
    mixed = shot.image * (1.0 - weight) + palette[shot.masks] * weight
    return np.asarray(mixed + 0.5, np.uint8)


def contact_sheet(rows: Sequence[Sequence[Image]], captions: Sequence[str] = ()) -> Image:
    """Lay out pictures of one size in rows, each row with a caption in its corner."""
    import cv2

    laid = []
    for i, row in enumerate(rows):
        strip = np.ascontiguousarray(np.hstack(list(row)))
        if i < len(captions):
            font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
            (wide, tall), below = cv2.getTextSize(captions[i], font, scale, 1)
            strip[: tall + below + 8, : wide + 10] //= 3
            where = (5, tall + 4)
            cv2.putText(strip, captions[i], where, font, scale, (255,) * 3, 1, cv2.LINE_AA)
        laid.append(strip)
    return np.vstack(laid)


class Speed(NamedTuple):
    """How fast a size renders."""

    size: int  # pixels, square
    batch: int  # frames in one call
    median_ms: float  # per frame
    worst_ms: float  # 95th percentile, per frame
    map_ms: float  # making a scene's tissue map

    @property
    def fps(self) -> float:
        """Frames a second at the median."""
        return 1000.0 / self.median_ms


def measure(size: int, batch: int, frames: int, scenes: int, device: torch.device) -> Speed:
    """Time rendering at size × size over several scenes, their tissue maps not counted."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    per_frame, maps = [], []
    for seed in range(scenes):
        scene = SurgicalScene(seed, size, size)
        finish()
        begin = time.perf_counter()
        scene.tissue(device)
        finish()
        maps.append((time.perf_counter() - begin) * 1e3)
        render_batch([(scene, k) for k in range(batch)], device)  # warm-up
        for start in range(0, max(frames // scenes, batch), batch):
            shots = [(scene, 25 * (start + k)) for k in range(batch)]
            finish()
            begin = time.perf_counter()
            render_batch(shots, device)
            finish()
            per_frame.append((time.perf_counter() - begin) * 1e3 / batch)
    return Speed(
        size,
        batch,
        float(np.median(per_frame)),
        float(np.percentile(per_frame, 95)),
        float(np.median(maps)),
    )
