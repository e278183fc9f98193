"""Pictures of what a batch looked like and what the model drew on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.errors import Sam2sError
from sam2s_model.overlay import Drawing, Image, colour_of, contact_sheet, draw_targets
from sam2s_training.data.clip import Clip

T = TypeVar("T", bound=np.generic)

MOST_CLIPS = 4  # rows of a picture
SIDE = 192  # pixels of a frame in a picture, at least


class PictureError(Sam2sError):
    """A picture that cannot be written."""


def batch_picture(clips: Sequence[Clip], logits: Tensor) -> Image:
    """Draw a batch: a row a clip, its frames from left to right; true borders are white.

    Args:
        clips: T frames each.
        logits: [N, T, s, s] of all targets, clip after clip.
    """
    size = int(clips[0].images.shape[-1])
    zoom = max(1, -(-SIDE // size))
    pictures: list[Image] = []
    first = 0
    for clip in clips[:MOST_CLIPS]:
        count = len(clip.masks)
        own = logits[first : first + count].detach().float()
        first += count
        drawn = F.interpolate(own, size=(size, size), mode="bilinear", align_corners=False) > 0
        masks, truth = drawn.cpu().numpy(), clip.masks.cpu().numpy()
        frames = clip.images.permute(0, 2, 3, 1).cpu().numpy()
        for t, frame in enumerate(frames):
            targets = [
                Drawing(_zoomed(masks[n, t], zoom), colour_of(n), "", _zoomed(truth[n, t], zoom))
                for n in range(count)
            ]
            pictures.append(draw_targets(_zoomed(frame, zoom), targets))
    return contact_sheet(pictures, columns=len(clips[0].images) if len(pictures) > 4 else 0)


def save_picture(path: Path, picture: Image) -> None:
    """Write an RGB picture as JPEG or PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise PictureError(f"{path} cannot be written; make room or choose another folder (--out)")


def _zoomed(array: NDArray[T], zoom: int) -> NDArray[T]:
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)
