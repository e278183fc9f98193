"""Clips made by hand, and sources of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sam2s_model.video import write_mask
from sam2s_training.data.clip import Clip


def square_clip(size: int = 64, frames: int = 3, index: int = 0) -> Clip:
    """A bright square (target 0) that moves right by 4 a frame, and a dark bar (target 1)."""
    images = torch.full((frames, 3, size, size), 90, dtype=torch.uint8)
    masks = torch.zeros(2, frames, size, size, dtype=torch.bool)
    for t in range(frames):
        masks[0, t, 20:36, 8 + 4 * t : 24 + 4 * t] = True
        masks[1, t, 44:52, :] = True
        images[t, :, masks[0, t]] = torch.tensor([[220], [60], [40]], dtype=torch.uint8)
        images[t, :, masks[1, t]] = 20
    images[:, :, 0, 0] = index % 256
    return Clip(
        images, masks, torch.tensor([3, -1]), f"square {index}", tuple(range(index, index + frames))
    )


class Squares:
    """A source that counts: clip i says i in its first pixel and its name."""

    def __init__(self, broken: int | None = None, frames: int = 3) -> None:
        self.broken, self.frames = broken, frames

    def sample(self, index: int) -> Clip:
        if index == self.broken:
            raise ValueError(f"the film of {index} tore")
        return square_clip(index=index, frames=self.frames)


def alike(one: Clip, other: Clip) -> bool:
    """Whether two clips are the same in every bit."""
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.masks, other.masks)
        and torch.equal(one.classes, other.classes)
        and (one.name, one.numbers, one.long) == (other.name, other.numbers, other.long)
    )


def davis(root: Path, videos: dict[str, int], size: tuple[int, int] = (40, 32)) -> Path:
    """Write a data set of `videos` {name: frames}, width × height, instances 1 and 2."""
    from PIL import Image

    width, height = size
    for name, frames in videos.items():
        (root / "JPEGImages" / name).mkdir(parents=True)
        (root / "Annotations" / name).mkdir(parents=True)
        for t in range(frames):
            ids = np.zeros((height, width), np.uint8)
            ids[4:16, 4 + t : 20 + t] = 1
            ids[20:30, 10:30] = 2
            picture = np.full((height, width, 3), 10 * t, np.uint8)
            picture[ids == 1] = 200
            Image.fromarray(picture).save(root / "JPEGImages" / name / f"{t:05d}.png")
            write_mask(root / "Annotations" / name / f"{t:05d}.png", ids)
    return root
