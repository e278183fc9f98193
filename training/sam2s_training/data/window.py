"""Windows cut from clips that are larger than the network's input, as large as that input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2s_training.data.clip import Clip

MIN_PIXELS = 20  # a target with fewer on the window's first frame is left out


def cut_window(clip: Clip, size: int, random: np.random.Generator) -> Clip:
    """Cut one window [size, size] from all frames, about a random place of a random target.

    What is seen keeps its size in pixels, unlike in a picture made smaller. Targets are chosen
    alike, whatever their size; one that is hardly in the window on the first frame is left out.

    Args:
        clip: of S pixels, at least `size`.
        size: side of the window.
        random: draws target and place.
    """
    room = clip.images.shape[-1] - size
    if not room:
        return clip
    if not len(clip.masks):
        return _cut(clip, room // 2, room // 2, size, 0)
    first = clip.masks[:, 0]
    inside = _counts(first, size)
    enough = min(MIN_PIXELS, int(inside.max()))
    able = torch.nonzero((inside >= enough).flatten(1).any(1))[:, 0].tolist()
    target = able[int(random.integers(len(able)))]
    places = torch.nonzero(first[target])
    row, column = places[int(random.integers(len(places)))].tolist()
    # The place lies anywhere in the window, not always in its middle.
    top, left = (int(np.clip(at - random.integers(size), 0, room)) for at in (row, column))
    if inside[target, top, left] < enough:
        top, left = divmod(int(inside[target].argmax()), room + 1)
    return _cut(clip, top, left, size, enough)


def _counts(masks: Tensor, size: int) -> Tensor:
    """Count the pixels of masks [N, S, S] in each window: int32 [N, S - size + 1, same]."""
    sums = F.pad(
        masks.int().cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32), (1, 0, 1, 0)
    )
    across = sums[:, :, size:] - sums[:, :, :-size]
    return across[:, size:] - across[:, :-size]


def _cut(clip: Clip, top: int, left: int, size: int, enough: int) -> Clip:
    window = (..., slice(top, top + size), slice(left, left + size))
    masks = clip.masks[window]
    kept = masks[:, 0].flatten(1).sum(1) >= enough
    return replace(
        clip,
        images=clip.images[window].contiguous(),
        masks=masks[kept],
        classes=clip.classes[kept],
    )
