"""The endoscope's own motion and its moods: pan, zoom, roll, trips outside, focus, exposure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sam2s_model.synth.motion import ease, hops, wave
from sam2s_model.synth.noise import FloatArray, uniform

QUICK = (0.35, 0.7)  # a quick camera move takes this long, seconds


class CameraTrack(NamedTuple):
    """Where the camera looks; every field float64 of the times' shape."""

    x: FloatArray  # world point in the middle of the picture
    y: FloatArray
    zoom: FloatArray
    roll: FloatArray  # radians
    outside: FloatArray  # 0 in the body, 1 outside
    wiped: FloatArray  # number of trips outside so far: a new number, a clean lens
    defocus: FloatArray  # 0 sharp … 1
    tilt_x: FloatArray  # perspective: growth of scale along x and y
    tilt_y: FloatArray


def camera_track(seed: int, values: dict[str, float], time: FloatArray) -> CameraTrack:
    """Evaluate the camera at the given times, seconds."""
    rest = values["camera_rest"]
    stroke = (min(QUICK[0], values["camera_stroke"]), values["camera_stroke"])

    def track(name: str, interval: float = rest) -> FloatArray:
        return 2.0 * hops(seed, "camera." + name, time, interval, stroke) - 1.0

    shake = values["shake"]
    x = values["pan"] * track("x") + shake * wave(seed, "shake.x", time, 1.1)
    y = 0.7 * values["pan"] * track("y") + shake * wave(seed, "shake.y", time, 1.3)
    zoom = values["zoom"] * (1.0 + values["zoom_swing"] * track("zoom", 1.7 * rest))
    roll = values["roll"] * track("roll", 2.3 * rest) + 0.5 * shake * wave(seed, "sr", time, 0.7)
    outside, wiped = trips(seed, values, time)
    focus = hops(seed, "camera.focus", time, 2.1 * rest, (0.5, 1.2))
    defocus = values["defocus"] * np.clip((focus - 0.62) / 0.38, 0.0, 1.0)
    # Going in and out passes through unsharp distances.
    defocus = np.maximum(defocus, 0.8 * np.clip(4.0 * outside * (1.0 - outside), 0.0, 1.0))
    return CameraTrack(
        x,
        y,
        zoom * (1.0 - 0.35 * outside),
        roll,
        outside,
        wiped,
        defocus,
        0.10 * track("tilt.x", 3.1 * rest),
        0.12 + 0.10 * track("tilt.y", 2.7 * rest),
    )


def trips(seed: int, values: dict[str, float], time: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How far outside the camera is, and how many trips it has begun; never at time 0."""
    every, stay = values["out_every"], values["out_time"]
    slot = np.floor(time / every).astype(np.int64)
    # A trip starts in the later part of its slot, so the first seconds are always inside.
    start = slot * every + uniform(seed, "out", slot, low=0.35, high=0.85) * max(every - stay, 0.0)
    pull = min(0.8, 0.3 * stay)
    amount = ease((time - start) / pull) * ease((start + stay - time) / pull)
    begun = slot + (time > start + 0.5 * stay)
    return np.asarray(amount), np.asarray(begun, dtype=np.float64)
