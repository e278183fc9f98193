"""Randomness without state: a counter-based hash, and smooth noise made from hashed lattices.

Every random number of a scene is a function of (seed, name, counters), so that frame n needs no
frame before it, and a CPU and a GPU start from the very same numbers: only interpolation, which
agrees within rounding, happens on the device.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@functools.lru_cache(maxsize=4096)
def stream(name: str) -> int:
    """Turn a name into the number that stands for it in the hash."""
    return zlib.crc32(name.encode())


@functools.lru_cache(maxsize=65536)
def named_state(seed: int, name: str) -> NDArray[np.uint64]:
    """Hash seed and name alone; the counters are mixed in after."""
    with np.errstate(over="ignore"):
        state = _finish(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + _GOLDEN)
        return _finish(state ^ np.uint64(stream(name)))


def hashed(seed: int, name: str, *counters: ArrayLike) -> NDArray[np.uint64]:
    """Hash (seed, name, counters…) to 64 bits; integer counters broadcast against each other."""
    with np.errstate(over="ignore"):
        state = named_state(seed, name)
        for counter in counters:
            value = np.asarray(counter).astype(np.int64).astype(np.uint64)
            state = _finish((state ^ value) + _GOLDEN)
    return np.asarray(state)


def _finish(state: ArrayLike) -> NDArray[np.uint64]:
    state = np.asarray(state, np.uint64)
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return np.asarray(state ^ (state >> np.uint64(31)))


def uniform(
    seed: int, name: str, *counters: ArrayLike, low: ArrayLike = 0.0, high: ArrayLike = 1.0
) -> FloatArray:
    """Draw from [low, high), one value for each broadcast counter."""
    unit = (hashed(seed, name, *counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    low_, high_ = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return np.asarray(low_ + (high_ - low_) * unit)


@functools.lru_cache(maxsize=65536)
def uniform_one(seed: int, name: str, *counters: int, low: float = 0.0, high: float = 1.0) -> float:
    """Draw a single number from [low, high)."""
    return float(uniform(seed, name, *counters, low=low, high=high))


def gaussian_tile(seed: int, name: str, channels: int, size: int) -> torch.Tensor:
    """Make hashed Gaussian noise, float32 [channels, size, size], zero mean, unit variance."""
    index = np.arange(channels * size * size)
    first = uniform(seed, name, index, 0, low=1e-12, high=1.0)
    second = uniform(seed, name, index, 1)
    values = np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)
    return torch.from_numpy(values.astype(np.float32).reshape(channels, size, size))


def lattice(seed: int, name: str, octave: int, nodes: int) -> torch.Tensor:
    """Hash a grid of values in [-1, 1): float32 [nodes, nodes], always made on the CPU."""
    index = np.arange(nodes)
    values = uniform(seed, name, octave, index[:, None], index[None, :], low=-1.0, high=1.0)
    return torch.from_numpy(values.astype(np.float32))


def smooth_noise(
    seed: int, name: str, size: int, nodes: int, device: torch.device, octave: int = 0
) -> torch.Tensor:
    """Interpolate a hashed lattice to float32 [size, size]; the field does not depend on size."""
    grid = lattice(seed, name, octave, nodes).to(device)[None, None]
    fine = F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=True)
    return fine[0, 0]


def fractal(
    seed: int,
    name: str,
    size: int,
    nodes: int,
    octaves: int,
    device: torch.device,
    gain: float = 0.5,
) -> torch.Tensor:
    """Sum octaves of smooth noise, each twice as fine: float32 [size, size], about [-1, 1]."""
    total = torch.zeros(size, size, device=device)
    amplitude, norm = 1.0, 0.0
    for octave in range(octaves):
        cells = (nodes - 1) * 2**octave
        if octave and cells > size:  # finer than the map can hold: it would only alias
            break
        total += amplitude * smooth_noise(seed, name, size, cells + 1, device, octave)
        norm += amplitude * amplitude
        amplitude *= gain
    return total.mul_(1.0 / norm**0.5)


def warp(field: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Read field [S, S] at positions moved by dx, dy [S, S], in units of the map's half width."""
    size = field.shape[-1]
    axis = torch.linspace(-1.0, 1.0, size, device=field.device)
    grid = torch.stack((axis[None, :] + dx, axis[:, None] + dy), dim=-1)
    out = F.grid_sample(
        field[None, None],
        grid[None],
        mode="bilinear",
        padding_mode="reflection",
        align_corners=True,
    )
    return out[0, 0]


def cells(
    seed: int, name: str, size: int, count: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cellular noise with count × count jittered points.

    Returns the distance to the nearest point and the gap to the second nearest, both float32
    [size, size] in cell widths: the gap is zero on the borders between cells.
    """
    index = np.arange(count + 2)
    jitter_x = uniform(seed, name + ".x", index[:, None], index[None, :], low=0.1, high=0.9)
    jitter_y = uniform(seed, name + ".y", index[:, None], index[None, :], low=0.1, high=0.9)
    points = torch.from_numpy(np.stack((jitter_x, jitter_y)).astype(np.float32)).to(device)
    axis = (torch.arange(size, device=device) + 0.5) * (count / size)
    cell = axis.floor().long()
    fraction = axis - cell
    nearest = torch.full((size, size), 9.0, device=device)
    second = torch.full((size, size), 9.0, device=device)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            rows, columns = cell + row + 1, cell + column + 1
            px = points[0][rows][:, columns] + (column - fraction)[None, :]
            py = points[1][rows][:, columns] + (row - fraction)[:, None]
            distance = px.mul_(px).addcmul_(py, py)
            second = torch.minimum(second, torch.maximum(nearest, distance))
            nearest = torch.minimum(nearest, distance)
    nearest, second = nearest.sqrt_(), second.sqrt_()
    return nearest, second - nearest
