"""Motion in closed form: each track is a function of time alone, vectorised over times.

A track hops between hashed waypoints: rest, then a stroke of hashed duration. Nothing is carried
from one time to the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2s_model.synth.noise import FloatArray, uniform

IntArray = NDArray[np.int64]


_HOP_DRAWS = np.arange(4)


def ease(x: FloatArray) -> FloatArray:
    """Go from 0 to 1 smoothly for x from 0 to 1, without a jolt at either end."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * x * (x * (6.0 * x - 15.0) + 10.0))


def hops(
    seed: int, name: str, time: FloatArray, interval: float, stroke: tuple[float, float]
) -> FloatArray:
    """Hop between values in [0, 1): one hop an interval, taking a hashed time within `stroke`.

    time: seconds, any shape; the result has the same shape.
    """
    low, high = min(stroke[0], interval), min(stroke[1], interval)
    slot = np.floor(time / interval).astype(np.int64)
    # One hash for all four draws of a slot: duration, start, and the values on either side.
    which = _HOP_DRAWS.reshape(4, *([1] * time.ndim))
    draws = uniform(seed, name, 3 * (slot - (which == 2)) + np.minimum(which, 2))
    duration = low + (high - low) * draws[0]
    start = draws[1] * (interval - duration)
    part = ease((time - slot * interval - start) / duration)
    before, after = draws[2], draws[3]
    return np.asarray(before + (after - before) * part)


def wave(seed: int, name: str, time: FloatArray, frequency: float) -> FloatArray:
    """Sway in about [-1, 1]: three sines with hashed phases and incommensurate rates (Hz)."""
    total = np.zeros_like(time)
    for i, (ratio, weight) in enumerate(((1.0, 0.6), (1.73, 0.3), (2.91, 0.2))):
        phase = float(uniform(seed, name, i, high=2 * np.pi))
        total += weight * np.sin(2 * np.pi * frequency * ratio * time + phase)
    return total


class Presence(NamedTuple):
    """Whether something is in, over time."""

    amount: FloatArray  # 0 out, 1 in, between while it moves
    visit: IntArray  # number of the visit, counted from the scene's start


def presence(
    seed: int, name: str, time: FloatArray, stay: float, away: float, late: bool = False
) -> Presence:
    """Come and go: visits of about `stay` seconds, absences of about `away`; in at time 0.

    With `late`, time 0 falls into an absence.
    """
    cycle = stay + away
    # Slot k holds one visit whose ends are hashed inside the slot; the first is under way at 0.
    offset = float(uniform(seed, name + ".o", low=0.05, high=0.6))
    shift = 0.45 * away + (offset * stay + 2.0 if not late else -0.4 * away)
    local = time + shift
    slot = np.floor(local / cycle).astype(np.int64)
    inside = local - slot * cycle
    begin = away * uniform(seed, name + ".b", slot, low=0.25, high=0.45)
    finish = cycle - away * uniform(seed, name + ".f", slot, low=0.25, high=0.45)
    enter = uniform(seed, name + ".e", slot, low=0.5, high=1.3)
    leave = uniform(seed, name + ".l", slot, low=0.4, high=1.1)
    amount = ease((inside - begin) / enter) * ease((finish - inside) / leave)
    return Presence(np.asarray(amount), slot)
