"""A contact sheet of clips for people to look at: frames in rows, targets outlined and tinted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sam2s_model.classes import INSTRUMENTS
from sam2s_model.synth.gallery import contact_sheet
from sam2s_training.data.clip import Clip, ClipSource, take

TINT = 0.45  # strength of a target's colour over the picture
# One colour a target, in order; they come round again.
COLOURS = ((64, 200, 255), (255, 170, 40), (110, 255, 110), (255, 90, 190), (250, 250, 90))


def draw_clip(clip: Clip) -> list[NDArray[np.uint8]]:
    """Paint a clip's masks over its frames: T pictures uint8 [S, S, 3] RGB."""
    pictures = clip.images.permute(0, 2, 3, 1).cpu().float()  # [T, S, S, 3]
    for number, masks in enumerate(clip.masks.cpu()):
        colour = torch.tensor(COLOURS[number % len(COLOURS)], dtype=torch.float32)
        inside = masks.float()[..., None]
        pictures = pictures + TINT * inside * (colour - pictures)
        pictures = torch.where(_outline(masks)[..., None], colour, pictures)
    return [np.asarray(picture) for picture in pictures.round().to(torch.uint8)]


def write_sheet(
    path: Path,
    source: ClipSource,
    indices: Sequence[int],
    instruments: Sequence[str] = INSTRUMENTS,
) -> Path:
    """Write a PNG with a row a clip, named above it with its targets' classes."""
    import cv2

    clips = take(source, indices)
    captions = []
    for index, clip in zip(indices, clips, strict=True):
        names = [instruments[c] if c >= 0 else "-" for c in clip.classes.tolist()]
        captions.append(f"{index}: {', '.join(names)} | {clip.name}")
    sheet = contact_sheet([draw_clip(clip) for clip in clips], captions)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return path


def _outline(masks: torch.Tensor) -> torch.Tensor:
    """Find a mask's pixels that touch others: bool [T, S, S]."""
    outside = (~masks).float()[:, None]
    near = torch.nn.functional.max_pool2d(outside, 3, stride=1, padding=1)[:, 0] > 0
    return masks & near
