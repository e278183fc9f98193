"""The cast of a scene: which instruments and thin things there are, and where they are when.

From times alone to a list of sprite draws, far to near, in image coordinates: y in [-1, 1] down,
x to the right with the same unit, the origin in the picture's middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2s_model.synth.camera import CameraTrack
from sam2s_model.synth.instruments import (
    CATALOGUE,
    STEEL,
    Colour,
    Instrument,
    part_sprites,
    sprite_numbers,
)
from sam2s_model.synth.motion import hops, presence, wave
from sam2s_model.synth.noise import FloatArray, uniform, uniform_one

PORT_DISTANCE = 4.2  # of the point a shaft turns about, from the world's origin
THREAD_PIECES = 14
# Angles (degrees, clockwise from the right) under which instruments usually come in.
PORTS = (28.0, 152.0, -24.0, 200.0, 78.0, 118.0, -60.0)
# What fits through a colonoscope.
FLEXIBLE = ("snare", "catheter", "grasper", "hook", "clip applier", "bipolar forceps", "suction")
TIE = 1e-3  # depth between two parts of one instrument

# Columns of a draw.
AX, BX, CX, AY, BY, CY = range(6)  # local = (AX·x + BX·y + CX, AY·x + BY·y + CY)
SPRITE, STRETCH, ENDLESS, TAPER, UNIT = 6, 7, 8, 9, 10
COLOUR, ACCENT = 11, 14  # linear rgb each
METAL, IDENTITY, BLUR, BRIGHT, STAIN = 17, 18, 19, 20, 21
COLUMNS = 22


class Tool(NamedTuple):
    """One instrument of the cast."""

    identity: int
    name: str
    kind: Instrument
    key: str  # its name in the hash
    port: float  # degrees
    size: float  # shaft radius, world units
    shaft: Colour
    shaft_metal: float
    late: bool


class Poses(NamedTuple):
    """Where the tools are; arrays [times, tools]."""

    x: FloatArray  # pin, image coordinates
    y: FloatArray
    angle: FloatArray  # of the shaft, towards the tip
    bent: FloatArray  # of the jaws' axis
    opening: FloatArray  # 0 closed … 1
    unit: FloatArray  # shaft radius, image units
    amount: FloatArray  # 0 out … 1 in
    depth: FloatArray  # larger is nearer to the lens
    flip: FloatArray  # ±1: which side faces the lens
    touch: FloatArray  # 0 … 1: how hard it pushes


def choose_tools(
    seed: int, values: dict[str, float], classes: Sequence[str] | None, theme: str
) -> list[Tool]:
    """Pick the instruments: the given classes, or as many as `values` says; ids count from 1."""
    if classes is None:
        names = _draw_names(seed, round(values["instruments"]), values["lookalikes"] > 0.5, theme)
    else:
        names = list(classes)
    order = np.argsort(uniform(seed, "ports", np.arange(len(PORTS))))
    tools = []
    for i, name in enumerate(names):
        kind = CATALOGUE[name]
        twin = names.index(name)  # look-alikes share their colours
        shade = kind.shafts[int(uniform_one(seed, "shaft", twin) * len(kind.shafts))]
        tools.append(
            Tool(
                identity=i + 1,
                name=name,
                kind=kind,
                key=f"tool{i}",
                port=PORTS[order[i % len(PORTS)]] + uniform_one(seed, "port", i, low=-14, high=14),
                size=values["shaft_radius"] * kind.radius,
                shaft=shade,
                shaft_metal=1.0 if shade[0] > 0.4 and shade[0] < shade[2] + 0.1 else 0.0,
                late=i >= 2 and uniform_one(seed, "late", i) < 0.4,
            )
        )
    return tools


def _draw_names(seed: int, count: int, lookalikes: bool, theme: str) -> list[str]:
    names = list(FLEXIBLE if theme == "polypectomy" else CATALOGUE)
    order = np.argsort(uniform(seed, "classes", np.arange(len(names))))
    chosen = [names[i] for i in order[: max(count, 1)]]
    if lookalikes and len(chosen) > 1:
        chosen[1] = chosen[0]
    return chosen


def to_image(camera: CameraTrack, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Map world points [times, …] to image coordinates (the tissue's slight tilt left out)."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    cos, sin = np.cos(camera.roll).reshape(shape), np.sin(camera.roll).reshape(shape)
    zoom = camera.zoom.reshape(shape)
    dx, dy = x - camera.x.reshape(shape), y - camera.y.reshape(shape)
    return zoom * (cos * dx + sin * dy), zoom * (cos * dy - sin * dx)


def pose_tools(
    seed: int,
    values: dict[str, float],
    tools: Sequence[Tool],
    camera: CameraTrack,
    time: FloatArray,
) -> Poses:
    """Evaluate all tools at the given times [N], seconds."""
    columns = [_pose_one(seed, values, tool, camera, time) for tool in tools]
    return Poses(*(np.stack(field, axis=1) for field in zip(*columns, strict=True)))


def _pose_one(
    seed: int, values: dict[str, float], tool: Tool, camera: CameraTrack, time: FloatArray
) -> tuple[FloatArray, ...]:
    key = tool.key
    # Each tool has its own pace, so that they do not all rest at once.
    pace = uniform_one(seed, key + ".pace", low=0.75, high=1.35)
    rest = max(values["rest"] * pace, values["stroke"])
    stroke = (0.16, max(values["stroke"], 0.17))
    stay = values["present"] * uniform_one(seed, key + ".stay", low=0.7, high=1.3)
    away = values["absent"] * uniform_one(seed, key + ".away", low=0.7, high=1.3)
    there = presence(seed, key, time, stay, away, tool.late)
    moved = uniform(seed, key + ".moved", there.visit) < values["elsewhere"]
    shifted = uniform(seed, key + ".port", there.visit, low=50.0, high=310.0)
    port = np.radians(tool.port + np.where(moved, shifted, 0.0))
    port_x, port_y = np.cos(port), np.sin(port)
    side = 0.34 - 0.85 * values["crossing"]
    span = values["reach"]
    tremor = values["tremor"]
    work_x = port_x * side + span * (2 * hops(seed, key + ".x", time, rest, stroke) - 1)
    work_y = port_y * side * 0.8 + 0.8 * span * (2 * hops(seed, key + ".y", time, rest, stroke) - 1)
    work_x = work_x + tremor * wave(seed, key + ".tx", time, 2.3)
    work_y = work_y + tremor * wave(seed, key + ".ty", time, 2.7)
    back = 1.0 - there.amount
    x = work_x + (PORT_DISTANCE * port_x - work_x) * back
    y = work_y + (PORT_DISTANCE * port_y - work_y) * back
    ix, iy = to_image(camera, x, y)
    bx, by = to_image(camera, 1.6 * PORT_DISTANCE * port_x, 1.6 * PORT_DISTANCE * port_y)
    angle = np.arctan2(iy - by, ix - bx)
    twist = hops(seed, key + ".twist", time, 2.2 * rest, (0.3, 1.2))
    bent = (
        angle
        + tool.kind.bending * (2 * hops(seed, key + ".bend", time, 1.3 * rest, (0.2, 0.8)) - 1)
        + 0.0 * twist
    )
    opening = hops(seed, key + ".open", time, 0.9 * rest, (0.12, 0.5))
    opening = np.clip(1.5 * opening - 0.25, 0.0, 1.0)
    unit = tool.size * camera.zoom * (1.0 + 0.10 * wave(seed, key + ".z", time, 0.11))
    depth = uniform(seed, key + ".depth", there.visit)
    flip = np.where(uniform(seed, key + ".flip", there.visit) < 0.5, -1.0, 1.0)
    touch = there.amount * np.clip(
        2.0 * hops(seed, key + ".touch", time, rest, (0.2, 0.6)) - 0.5, 0.0, 1.0
    )
    return ix, iy, angle, bent, opening, unit, there.amount, depth, flip, touch


def draw_tools(
    seed: int, values: dict[str, float], tools: Sequence[Tool], poses: Poses, speed: FloatArray
) -> tuple[NDArray[np.float32], FloatArray]:
    """Turn poses into draws [N, D, COLUMNS] and their depths [N, D].

    speed: [N, T, 2] image units the pins move while the shutter is open.
    """
    draws, depths = [], []
    ranks = depth_ranks(poses)
    numbers = sprite_numbers()
    for i, tool in enumerate(tools):
        shaft, lower, upper, body = part_sprites(tool.name)
        kind = tool.kind
        x, y, unit, flip = poses.x[:, i], poses.y[:, i], poses.unit[:, i], poses.flip[:, i]
        bent, angle = poses.bent[:, i], poses.angle[:, i]
        low, high = kind.opening
        half = 0.5 * (low + (high - low) * poses.opening[:, i])
        elbow_x = x - kind.wrist * unit * np.cos(bent)
        elbow_y = y - kind.wrist * unit * np.sin(bent)
        across = np.abs(speed[:, i, 1] * np.cos(angle) - speed[:, i, 0] * np.sin(angle))
        whole = 0.7 * np.hypot(speed[:, i, 0], speed[:, i, 1])
        hidden = poses.amount[:, i] <= 0.0
        base = _base_columns(seed, values, tool)
        bright = 0.95 + 0.25 * poses.depth[:, i]

        def put(
            sprite: str,
            px: FloatArray,
            py: FloatArray,
            turn: FloatArray,
            mirror: FloatArray,
            blur: FloatArray,
            layer: int,
            squeeze: FloatArray | float = 1.0,
            *,
            part: str,
            i: int = i,
            unit: FloatArray = unit,
            hidden: NDArray[np.bool_] = hidden,
            base: NDArray[np.float32] = base,
            bright: FloatArray = bright,
            tool: Tool = tool,
        ) -> None:
            row = np.repeat(base[None], len(px), axis=0)
            place(row, px, py, turn, unit, mirror, squeeze)
            row[:, SPRITE] = numbers[sprite]
            row[:, BLUR] = blur
            row[:, BRIGHT] = bright
            if part == "shaft":
                row[:, ENDLESS] = 1.0
                row[:, TAPER] = values["taper"]
                row[:, COLOUR : COLOUR + 3] = np.square(tool.shaft)
                row[:, METAL] = tool.shaft_metal
            row[hidden, CX] = 1e6
            draws.append(row)
            depths.append(ranks[:, i] + layer * TIE)

        put(shaft, elbow_x, elbow_y, angle, flip, across, 0, part="shaft")
        if upper:
            other = lower if lower != upper else upper
            turned = -flip if lower == upper else flip
            put(other, x, y, bent - half * flip, turned, whole, 1, part="jaw")
            put(upper, x, y, bent + half * flip, flip, whole, 2, part="jaw")
        squeeze = (low + (high - low) * poses.opening[:, i]) if kind.squeeze else 1.0
        put(body, x, y, bent, flip, whole, 3, squeeze, part="body")
    return np.stack(draws, axis=1), np.stack(depths, axis=1)


def depth_ranks(poses: Poses) -> FloatArray:
    """Rank the tools by depth, 0 the farthest: whole numbers, so that parts never interleave."""
    return np.argsort(np.argsort(poses.depth, axis=1), axis=1).astype(np.float64)


def _base_columns(seed: int, values: dict[str, float], tool: Tool) -> NDArray[np.float32]:
    row = np.zeros(COLUMNS, np.float32)
    row[COLOUR : COLOUR + 3] = np.square(tool.kind.colour)
    row[ACCENT : ACCENT + 3] = np.square(tool.kind.accent)
    row[IDENTITY] = tool.identity
    row[STAIN] = values["stained"] * uniform_one(seed, tool.key + ".stain")
    return row


def place(
    rows: NDArray[np.float32],
    x: FloatArray,
    y: FloatArray,
    angle: FloatArray,
    unit: FloatArray,
    mirror: FloatArray | float = 1.0,
    squeeze: FloatArray | float = 1.0,
) -> None:
    """Write the map from image to local coordinates into draws [N, COLUMNS]."""
    cos, sin = np.cos(angle) / unit, np.sin(angle) / unit
    rows[:, AX], rows[:, BX], rows[:, CX] = cos, sin, -(cos * x + sin * y)
    cos, sin = cos * mirror / squeeze, sin * mirror / squeeze
    rows[:, AY], rows[:, BY], rows[:, CY] = -sin, cos, sin * x - cos * y
    rows[:, UNIT] = unit


def draw_thin(
    seed: int,
    values: dict[str, float],
    tools: Sequence[Tool],
    poses: Poses,
    camera: CameraTrack,
    time: FloatArray,
    needle_id: int,
    thread_id: int,
) -> tuple[list[NDArray[np.float32]], list[FloatArray]]:
    """Draw the needle and the thread (id 0: there is none) below the instruments."""
    draws: list[NDArray[np.float32]] = []
    depths: list[FloatArray] = []
    count = len(time)
    ones = np.ones(count)
    sway = 0.03 * wave(seed, "needle.sway", time, 0.15)
    x, y = to_image(
        camera,
        uniform_one(seed, "needle.x", low=-0.4, high=0.4) + sway,
        uniform_one(seed, "needle.y", low=-0.3, high=0.4) - sway,
    )
    turn = ones * uniform_one(seed, "needle.turn", high=6.28) + 2.0 * sway - camera.roll
    holder = next((i for i, t in enumerate(tools) if "needle" in t.name), None)
    if holder is not None:
        # Held in the jaws, a little before their tips.
        length = 4.2 * poses.unit[:, holder]
        x = poses.x[:, holder] + length * np.cos(poses.bent[:, holder])
        y = poses.y[:, holder] + length * np.sin(poses.bent[:, holder])
        turn = poses.bent[:, holder] + uniform_one(seed, "needle.hold", low=0.9, high=2.2)
    unit = 0.046 * camera.zoom
    numbers = sprite_numbers()
    if needle_id:
        row = np.zeros((count, COLUMNS), np.float32)
        place(row, x, y, turn, unit)
        row[:, SPRITE] = numbers["needle"]
        row[:, COLOUR : COLOUR + 3] = np.square(STEEL)
        row[:, METAL] = 1.0
        row[:, BRIGHT] = 1.1
        row[:, IDENTITY] = needle_id
        draws.append(row)
        depths.append(-1.0 * ones)
    if thread_id:
        shade = ((0.10, 0.12, 0.45), (0.36, 0.14, 0.55), (0.85, 0.85, 0.80), (0.06, 0.06, 0.07))[
            int(uniform_one(seed, "thread.colour") * 4)
        ]
        start_x = x + 3.4 * unit * np.cos(turn)
        start_y = y + 3.4 * unit * np.sin(turn)
        if not needle_id:
            start_x, start_y = x, y
        xs, ys = _thread_points(seed, camera, time, start_x, start_y)
        radius = 0.0125 * camera.zoom
        for k in range(THREAD_PIECES):
            row = np.zeros((count, COLUMNS), np.float32)
            dx, dy = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
            place(row, xs[k], ys[k], np.arctan2(dy, dx), radius)
            row[:, STRETCH] = np.hypot(dx, dy) / radius
            row[:, SPRITE] = numbers["bead"]
            row[:, COLOUR : COLOUR + 3] = np.square(shade)
            row[:, BRIGHT] = 1.0
            row[:, IDENTITY] = thread_id
            draws.append(row)
            depths.append((-2.0 + k * TIE) * ones)
    return draws, depths


def _thread_points(
    seed: int, camera: CameraTrack, time: FloatArray, start_x: FloatArray, start_y: FloatArray
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Points along a slack thread from the start to a stitch in the tissue, image coordinates."""
    end_x, end_y = to_image(
        camera,
        uniform_one(seed, "stitch.x", low=-0.6, high=0.6) + 0.0 * time,
        uniform_one(seed, "stitch.y", low=-0.5, high=0.5) + 0.0 * time,
    )
    first = uniform_one(seed, "slack.1", low=-0.5, high=0.5) + 0.06 * wave(seed, "s1", time, 0.3)
    second = uniform_one(seed, "slack.2", low=-0.4, high=0.4) + 0.06 * wave(seed, "s2", time, 0.4)
    xs, ys = [], []
    dx, dy = end_x - start_x, end_y - start_y
    for k in range(THREAD_PIECES + 1):
        s = k / THREAD_PIECES
        aside = first * np.sin(np.pi * s) + second * np.sin(2 * np.pi * s)
        xs.append(start_x + s * dx - aside * dy * 0.8 + 0.10 * np.sin(5 * s))
        ys.append(start_y + s * dy + aside * dx * 0.8 + 0.14 * np.sin(np.pi * s))
    return xs, ys
