"""Pictures and ids at the network's square input, resized as the tracker does it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_images(images: Tensor, size: int) -> Tensor:
    """Resize uint8 [T, H, W, 3] to [T, 3, size, size]; the aspect is not kept.

    The filter is the tracker's: antialiased bicubic on bytes.
    """
    planes = images.permute(0, 3, 1, 2)
    if planes.shape[-2:] == (size, size):
        return planes.contiguous()
    if planes.device.type == "cpu":
        return F.interpolate(planes, size=(size, size), mode="bicubic", antialias=True)
    exact = F.interpolate(planes.float(), size=(size, size), mode="bicubic", antialias=True)
    return exact.round_().clamp_(0, 255).to(planes.dtype)


def resize_ids(ids: Tensor, size: int) -> Tensor:
    """Resize whole numbers [T, H, W] to [T, size, size], each pixel the nearest one's."""
    height, width = ids.shape[-2:]
    if (height, width) == (size, size):
        return ids
    centres = torch.arange(size, device=ids.device) * 2 + 1  # halves of an output pixel
    rows, columns = centres * height // (2 * size), centres * width // (2 * size)
    return ids[:, rows[:, None], columns]
