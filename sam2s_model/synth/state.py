"""Everything a frame needs, as plain arrays: the closed-form part of a scene, evaluated at times.

Made by numpy in float64 on the CPU, whatever device shades it, so that both devices shade the very
same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2s_model.synth.camera import CameraTrack, camera_track
from sam2s_model.synth.cast import (
    COLUMNS,
    Poses,
    Tool,
    draw_thin,
    draw_tools,
    pose_tools,
)
from sam2s_model.synth.motion import hops, wave
from sam2s_model.synth.noise import FloatArray, uniform, uniform_one

Array = NDArray[np.float32]

MAX_DROPLETS = 6
SHADOW_REACH = 9.0  # length of a jaw's shadow, shaft radii

# Columns of FrameState.scalars.
NAMES = (
    "light",
    "falloff",
    "light_x",
    "light_y",
    "shadow",
    "auto_exposure",
    "white_red",
    "white_blue",
    "noise",
    "saturation",
    "defocus",
    "blood",
    "smoke",
    "smoke_x",
    "smoke_y",
    "vignette",
    "vignette_x",
    "vignette_y",
    "outside",
    "blur_x",
    "blur_y",
    "compression",
    "noise_x",
    "noise_y",
    "gauze_x",
    "gauze_y",
    "tilt_x",
    "tilt_y",
    "sway_1",
    "sway_2",
    "sway",
    "field_x",
    "field_y",
)
COLUMN = {name: i for i, name in enumerate(NAMES)}


class FrameState(NamedTuple):
    """N frames of one scene; float32 throughout."""

    scalars: Array  # [N, len(NAMES)]
    view: Array  # [N, 2, 3]: image coordinates to world coordinates
    draws: Array  # [N, D, cast.COLUMNS], far to near
    pushes: Array  # [N, T, 6]: image x, y; world dx, dy; dent; width
    shadows: Array  # [N, S, 7]: image ax, ay, bx, by; radius; softness; strength
    droplets: Array  # [N, MAX_DROPLETS, 4]: image x, y, radius, strength
    camera: CameraTrack
    poses: Poses | None


def frame_state(
    seed: int,
    values: dict[str, float],
    tools: Sequence[Tool],
    needle_id: int,
    thread_id: int,
    frames: NDArray[np.int64],
    fps: float,
) -> FrameState:
    """Evaluate the scene at the given frame numbers."""
    time = frames.astype(np.float64) / fps
    shutter = values["motion_blur"] / fps
    count = len(time)
    both = np.concatenate((time, time - shutter))
    track = camera_track(seed, values, both)
    camera = CameraTrack(*(field[:count] for field in track))
    before = CameraTrack(*(field[count:] for field in track))
    draws: list[Array] = []
    depths: list[FloatArray] = []
    pushes = np.zeros((count, 1, 6))
    shadows = np.zeros((count, 1, 7))
    poses: Poses | None = None
    if tools:
        all_poses = pose_tools(seed, values, tools, track, both)
        poses = Poses(*(field[:count] for field in all_poses))
        speed = np.stack((poses.x - all_poses.x[count:], poses.y - all_poses.y[count:]), axis=-1)
        tool_draws, tool_depths = draw_tools(seed, values, tools, poses, speed)
        draws.append(tool_draws)
        depths.append(tool_depths)
        pushes = _pushes(values, poses)
        shadows = _shadows(tools, poses)
    if needle_id or thread_id:
        held = poses if poses is not None else _no_poses(count)
        thin, thin_depths = draw_thin(seed, values, tools, held, camera, time, needle_id, thread_id)
        draws.append(np.stack(thin, axis=1))
        depths.append(np.stack(thin_depths, axis=1))
    if draws:
        order = np.argsort(np.concatenate(depths, axis=1), axis=1, kind="stable")
        every = np.take_along_axis(np.concatenate(draws, axis=1), order[:, :, None], axis=1)
    else:
        every = np.zeros((count, 0, COLUMNS), np.float32)
    cos, sin = np.cos(camera.roll) / camera.zoom, np.sin(camera.roll) / camera.zoom
    view = np.stack(
        (np.stack((cos, -sin, camera.x), -1), np.stack((sin, cos, camera.y), -1)), axis=1
    )
    return FrameState(
        scalars=_scalars(seed, values, camera, before, frames, time),
        view=view.astype(np.float32),
        draws=every.astype(np.float32),
        pushes=pushes.astype(np.float32),
        shadows=shadows.astype(np.float32),
        droplets=_droplets(seed, values, camera, time).astype(np.float32),
        camera=camera,
        poses=poses,
    )


def _no_poses(count: int) -> Poses:
    return Poses(*(np.zeros((count, 0)) for _ in Poses._fields))


def _pushes(values: dict[str, float], poses: Poses) -> FloatArray:
    strength = values["push"] * poses.touch
    # A tool pushes along its axis and drags tissue a little to the side its jaws point.
    dx, dy = strength * np.cos(poses.bent), strength * np.sin(poses.bent)
    tip_x = poses.x + 5.0 * poses.unit * np.cos(poses.bent)
    tip_y = poses.y + 5.0 * poses.unit * np.sin(poses.bent)
    width = np.full_like(dx, 0.30)
    return np.stack((tip_x, tip_y, dx, dy, 0.5 * poses.touch, width), axis=-1)


def _shadows(tools: Sequence[Tool], poses: Poses) -> FloatArray:
    unit = poses.unit
    cos, sin = np.cos(poses.bent), np.sin(poses.bent)
    there = np.clip(poses.amount * 3.0, 0.0, 1.0)
    reach = np.array([SHADOW_REACH if t.kind.upper else 0.8 * SHADOW_REACH for t in tools]) * unit
    jaws = (
        poses.x,
        poses.y,
        poses.x + reach * cos,
        poses.y + reach * sin,
        0.9 * unit * (0.7 + 0.8 * poses.opening),
        1.3 * unit,
        0.8 * there,
    )
    shaft = (
        poses.x,
        poses.y,
        poses.x - 6.0 * np.cos(poses.angle),
        poses.y - 6.0 * np.sin(poses.angle),
        1.2 * unit,
        2.6 * unit,
        0.7 * there,
    )
    return np.concatenate([np.stack(jaws, axis=-1), np.stack(shaft, axis=-1)], axis=1)


def _droplets(
    seed: int, values: dict[str, float], camera: CameraTrack, time: FloatArray
) -> FloatArray:
    out = np.zeros((len(time), MAX_DROPLETS, 4))
    for i in range(min(round(values["droplets"]), MAX_DROPLETS)):
        trip = camera.wiped.astype(np.int64)
        # Each drop lands some time after the lens was wiped.
        since = np.mod(time, values["out_every"]) / values["out_every"]
        landed = since > uniform(seed, "drop.t", i, trip, low=-0.3, high=1.2)
        x = uniform(seed, "drop.x", i, trip, low=-1.0, high=1.0)
        y = uniform(seed, "drop.y", i, trip, low=-0.9, high=0.9) + 0.02 * since
        radius = uniform(seed, "drop.r", i, trip, low=0.05, high=0.24)
        strength = uniform(seed, "drop.s", i, trip, low=0.5, high=1.0)
        out[:, i] = np.stack((x, y, radius, strength * landed), axis=-1)
    return out


def _scalars(
    seed: int,
    values: dict[str, float],
    camera: CameraTrack,
    before: CameraTrack,
    frames: NDArray[np.int64],
    time: FloatArray,
) -> Array:
    ones = np.ones_like(time)
    offset_angle = uniform_one(seed, "light.angle", high=2 * np.pi) - camera.roll
    outside = camera.outside
    # A third of the scenes stay dry.
    bleeding = values["bleeding"] if values["bleeding"] > 0.2 else 0.0
    start = uniform_one(seed, "blood.start", low=-0.9, high=0.4) * values["bleeding_time"]
    grown = np.clip((time - start) / values["bleeding_time"], 0.0, None)
    # Spreads fast at first, then slowly; rinsed now and then.
    rinse = hops(seed, "blood.rinse", time, 20.0, (1.0, 3.0))
    blood = bleeding * np.sqrt(grown / (0.4 + grown)) * (0.75 + 0.4 * rinse)
    puff = hops(seed, "smoke.puff", time, 3.5, (0.4, 1.6))
    smoke = values["smoke"] * np.clip(1.9 * puff - 0.9, 0.0, 1.0)
    radius = values["vignette"] * (1.0 + 0.02 * wave(seed, "vignette", time, 0.05))
    radius = radius * (1.0 - 0.72 * np.clip(2.0 * outside, 0.0, 1.0))
    radius = np.where(outside > 0.5, values["vignette"], radius)
    blur_x = camera.zoom * (camera.x - before.x) + (camera.roll - before.roll) * 0.1
    blur_y = camera.zoom * (camera.y - before.y)
    flicker = 1.0 + 0.015 * wave(seed, "flicker", time, 0.9)
    interlaced = float(values["interlace"] > 0.85)
    block = values["compression"] if values["compression"] > 0.25 else 0.0
    columns: dict[str, FloatArray] = {
        "light": values["light"] * flicker,
        "falloff": values["falloff"] * ones,
        "light_x": values["light_offset"] * np.cos(offset_angle),
        "light_y": values["light_offset"] * np.sin(offset_angle),
        "shadow": values["shadow"] * ones,
        "auto_exposure": values["auto_exposure"] * ones,
        "white_red": values["white_red"] * (1 + 0.01 * wave(seed, "white", time, 0.03)),
        "white_blue": values["white_blue"] * ones,
        "noise": values["noise"] * ones,
        "saturation": values["saturation"] * ones,
        "defocus": camera.defocus,
        "blood": blood,
        "smoke": smoke,
        "smoke_x": 0.05 * time + uniform_one(seed, "smoke.x") * 8.0,
        "smoke_y": -0.09 * time + uniform_one(seed, "smoke.y") * 8.0,
        "vignette": radius,
        "vignette_x": uniform_one(seed, "vignette.x", low=-0.06, high=0.06) * ones,
        "vignette_y": uniform_one(seed, "vignette.y", low=-0.05, high=0.05) * ones,
        "outside": outside,
        "blur_x": blur_x,
        "blur_y": blur_y,
        "compression": block * ones,
        "noise_x": uniform(seed, "noise.x", frames),
        "noise_y": uniform(seed, "noise.y", frames),
        "gauze_x": 0.9 * np.sin(2.2 * time) + uniform_one(seed, "gauze"),
        "gauze_y": 0.5 * np.cos(3.1 * time),
        "tilt_x": camera.tilt_x,
        "tilt_y": camera.tilt_y,
        "sway_1": 2 * np.pi * 0.23 * time + uniform_one(seed, "breath", high=6.28),
        "sway_2": 2 * np.pi * 0.31 * time + uniform_one(seed, "breath.2", high=6.28),
        "sway": values["breathing"] * ones,
        # Half a frame lies between two fields; the shutter's share of it was measured above.
        "field_x": interlaced * 0.5 * blur_x / max(values["motion_blur"], 1e-3),
        "field_y": interlaced * 0.5 * blur_y / max(values["motion_blur"], 1e-3),
    }
    return np.stack([columns[name] for name in NAMES], axis=1).astype(np.float32)


def pad(states: Sequence[FrameState], field: str) -> Array:
    """Stack a field [N, K, C] of several states along N, K padded with zeros."""
    arrays = [getattr(state, field) for state in states]
    widest = max(a.shape[1] for a in arrays)
    columns = max(a.shape[2] for a in arrays)
    out = np.zeros((sum(len(a) for a in arrays), widest, columns), np.float32)
    row = 0
    for a in arrays:
        out[row : row + len(a), : a.shape[1], : a.shape[2]] = a
        row += len(a)
    return out
