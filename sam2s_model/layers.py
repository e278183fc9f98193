"""Building blocks that more than one part of the model uses, and the position encodings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from itertools import pairwise
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")
T = TypeVar("T")


class Mlp(nn.Module):
    """Linear layers with an activation between them: [..., width_in] -> [..., width_out]."""

    def __init__(
        self,
        width_in: int,
        hidden: int,
        width_out: int,
        depth: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        widths = [width_in, *[hidden] * (depth - 1), width_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in turn; the last one has no activation."""
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        result: Tensor = last(x)
        return result


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a [B, C, H, W] map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by its own mean and variance."""
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred * (scale * self.weight[:, None, None]) + self.bias[:, None, None]


def kept_table(make: Callable[P, T]) -> Callable[P, T]:
    """Keep the tables that a function makes of sizes, as tensors that training may use too.

    A tensor made in inference mode could never take part in a backward pass, and whoever asks
    first must not decide that for all others.
    """

    @lru_cache(maxsize=32)
    @wraps(make)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.inference_mode(False), torch.no_grad():
            return make(*args, **kwargs)

    return cast("Callable[P, T]", kept)


def _frequencies(count: int, device: torch.device) -> Tensor:
    """Wavelengths of a sine encoding, each used for a sine and a cosine: [count]."""
    index = torch.arange(count, dtype=torch.float32, device=device)
    return 10000.0 ** (2 * torch.div(index, 2, rounding_mode="floor") / count)


def _middles(size: int, pool: int, device: torch.device) -> Tensor:
    """Middles of groups of `pool` cells in a row of `size`, the first cell's being 0: [side]."""
    cells = torch.arange(size, dtype=torch.float32, device=device)
    return cells.view(-1, pool).mean(1)


@kept_table
def image_position(channels: int, size: int, device: torch.device, pool: int = 1) -> Tensor:
    """Sine encoding of the cells of a square map: [channels, side, side], y in the first half.

    Coordinates run over (0, 2π]; even channels are sines and odd ones cosines. With `pool`, the
    places are the middles of squares of pool × pool cells, and side is size / pool.
    """
    half, side = channels // 2, size // pool
    cells = _middles(size, pool, device) + 1
    angle = (cells / (size + 1e-6) * (2 * math.pi))[:, None] / _frequencies(half, device)
    wave = torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(
        1
    )  # [side, half]
    across = wave.T[:, None, :].expand(half, side, side)
    down = wave.T[:, :, None].expand(half, side, side)
    return torch.cat((down, across))


def distance_encoding(distance: Tensor, channels: int) -> Tensor:
    """Sine encoding of time differences: [...] -> [..., channels], sines in the first half."""
    angle = distance[..., None] / _frequencies(channels // 2, distance.device)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


@kept_table
def rotary_table(
    width: int, size: int, device: torch.device, pool: int = 1
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the axial rotary encoding of a square map, each [side², width / 2].

    The first half of the pairs turns with x, the second with y. With `pool`, the places are the
    middles of squares of pool × pool cells, and side is size / pool.
    """
    steps = torch.arange(0, width, 4, dtype=torch.float32, device=device)
    speed = 1.0 / (10000.0 ** (steps / width))
    middles = _middles(size, pool, device)
    x, y = middles.repeat(len(middles)), middles.repeat_interleave(len(middles))
    angle = torch.cat((torch.outer(x, speed), torch.outer(y, speed)), dim=1)
    return angle.cos(), angle.sin()
