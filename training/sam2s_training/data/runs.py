"""Masks as run lengths, and back: compact, exact, and fast in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.uint32]


def encode_runs(mask: NDArray[np.bool_]) -> Runs:
    """Count a mask's pixels in runs of equal value, row by row, starting with False: uint32 [R]."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    runs = np.diff(edges)
    if flat.size and flat[0]:  # the first run, of False, is empty
        runs = np.concatenate(([0], runs))
    return runs.astype(np.uint32)


def decode_runs(runs: Runs, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Make the mask of run lengths: bool of the given shape."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(shape)
