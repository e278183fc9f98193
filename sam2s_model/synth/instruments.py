"""The instruments' shapes: for each class its parts as reliefs, and what it is made of.

Parts of an instrument, drawn in this order: shaft, lower jaw, upper jaw, body (the wrist or
clevis with its pin). Both jaws turn about the body's pin at the local origin, by plus and minus
half the opening. A tool without jaws is all body. +y is the upper jaw's side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from sam2s_model.synth.relief import Relief, bend, smooth

Colour = tuple[float, float, float]

STEEL: Colour = (0.78, 0.79, 0.82)
DARK_STEEL: Colour = (0.50, 0.51, 0.55)
BLACK: Colour = (0.09, 0.09, 0.11)
GREY: Colour = (0.34, 0.35, 0.38)
BLUE: Colour = (0.10, 0.26, 0.62)
WHITE: Colour = (0.90, 0.89, 0.86)
GOLD: Colour = (0.86, 0.66, 0.28)
ORANGE: Colour = (0.80, 0.36, 0.14)
PURPLE: Colour = (0.34, 0.16, 0.56)
TEAL: Colour = (0.10, 0.56, 0.54)
IVORY: Colour = (0.88, 0.80, 0.60)


class Instrument(NamedTuple):
    """One class: its parts' sprites by name, its habits and its colours."""

    body: str
    upper: str = ""
    lower: str = ""  # empty: the upper jaw mirrored
    shaft: str = "shaft"
    opening: tuple[float, float] = (0.0, 0.9)  # range of the jaws' angle, radians
    bending: float = 0.0  # largest wrist angle, radians
    radius: float = 1.0  # shaft radius relative to the scene's
    wrist: float = 0.0  # distance from the shaft's end to the jaws' pin, in radii
    shafts: tuple[Colour, ...] = (BLACK, GREY, STEEL)
    shaft_metal: float = 0.0  # used where the shaft's colour is not steel
    colour: Colour = STEEL  # of body and jaws
    accent: Colour = BLUE  # where a sprite's tint is 1
    squeeze: bool = False  # opening scales the body across instead of turning jaws (snare, loop)


SPRITES: dict[str, Callable[[], Relief]] = {}


def _sprite(function: Callable[[], Relief]) -> Callable[[], Relief]:
    SPRITES[function.__name__.strip("_")] = function
    return function


# ---------------------------------------------------------------- shafts and simple things


@_sprite
def _shaft() -> Relief:
    r = Relief()
    r.add(r.box(-9.0, 0.2, -1.0, 1.0, 0.08), rounding=1.0, metal=0.0)
    r.add(r.box(-0.75, 0.25, -1.03, 1.03, 0.05), rounding=1.0, metal=1.0, tone=0.9, lift=0.02)
    return r.engrave(r.box(-1.0, -0.75, -1.2, 1.2, 0.02), depth=0.1, tone=0.4)


@_sprite
def _shaft_banded() -> Relief:
    r = Relief()
    r.add(r.box(-9.0, 0.2, -1.0, 1.0, 0.08), rounding=1.0, metal=0.0)
    r.add(r.box(-2.6, -1.8, -1.02, 1.02, 0.02), rounding=1.0, metal=0.0, tint=1.0, lift=0.02)
    r.add(r.box(-0.5, 0.25, -1.03, 1.03, 0.05), rounding=1.0, metal=1.0, lift=0.02)
    return r.engrave(r.box(-3.2, -3.05, -1.2, 1.2, 0.02), depth=0.08, tone=0.5)


@_sprite
def _shaft_plain() -> Relief:
    r = Relief()
    return r.add(r.box(-9.0, 0.1, -1.0, 1.0, 0.3), rounding=1.0, metal=0.0)


@_sprite
def _bead() -> Relief:
    r = Relief()
    return r.add(r.disc(0.0, 0.0, 1.0), rounding=1.0, metal=0.0)


@_sprite
def _needle() -> Relief:
    # A half-circle, swaged end thicker, point sharp; steel. The pin is where it is held.
    r = Relief()
    arc = smooth(
        lambda s: (
            3.4 * math.cos(math.pi * (s * 1.12 - 0.06)),
            3.4 * math.sin(math.pi * (s * 1.12 - 0.06)) - 1.7,
        ),
        20,
    )
    return r.add(r.path(arc, 0.34, 0.10), rounding=0.3, metal=1.0, tone=1.1)


# ---------------------------------------------------------------- bodies


@_sprite
def _clevis() -> Relief:
    """Yoke of a hand-held instrument: narrows from the shaft to the pin."""
    r = Relief()
    r.add(
        r.polygon(
            [(-2.6, -0.92), (-0.6, -0.86), (0.9, -0.45), (0.9, 0.45), (-0.6, 0.86), (-2.6, 0.92)],
            0.1,
        ),
        rounding=0.8,
    )
    r.engrave(r.box(-0.9, 2.0, -0.14, 0.14, 0.05), depth=0.3, tone=0.25)
    r.add(r.disc(0.0, 0.0, 0.46), rounding=0.22, lift=0.75, tone=1.15)
    return r.engrave(r.disc(0.0, 0.0, 0.18), depth=0.12, tone=0.5)


@_sprite
def _robot_wrist() -> Relief:
    """Two-jointed wrist: a proximal clevis with pulleys, then the jaws' own yoke."""
    r = Relief()
    r.add(
        r.polygon(
            [(-4.0, -0.95), (-2.9, -1.0), (-2.2, -0.75), (-2.2, 0.75), (-2.9, 1.0), (-4.0, 0.95)],
            0.08,
        ),
        rounding=0.7,
        tone=0.9,
    )
    r.add(r.disc(-2.5, 0.0, 0.95), rounding=0.35, lift=0.35, tone=1.0)
    r.engrave(r.disc(-2.5, 0.0, 0.55), depth=0.12, tone=0.6)
    r.add(r.disc(-2.5, 0.0, 0.30), rounding=0.2, lift=0.7, tone=1.2)
    r.add(
        r.polygon(
            [(-2.0, -0.62), (0.1, -0.98), (0.75, -0.62), (0.75, 0.62), (0.1, 0.98), (-2.0, 0.62)],
            0.1,
        ),
        rounding=0.6,
        lift=0.1,
    )
    r.add(r.disc(0.0, 0.0, 0.80), rounding=0.3, lift=0.55, tone=0.92)
    r.engrave(r.disc(0.0, 0.0, 0.45), depth=0.1, tone=0.6)
    return r.add(r.disc(0.0, 0.0, 0.26), rounding=0.2, lift=0.85, tone=1.2)


@_sprite
def _boot() -> Relief:
    """Monopolar scissors' silicone tip cover over the wrist."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-4.0, -1.08),
                (-2.0, -1.05),
                (0.6, -0.72),
                (1.2, -0.5),
                (1.2, 0.5),
                (0.6, 0.72),
                (-2.0, 1.05),
                (-4.0, 1.08),
            ],
            0.15,
        ),
        rounding=1.0,
        metal=0.0,
        tint=1.0,
        lift=0.5,
    )
    r.engrave(r.box(-3.7, -3.5, -1.5, 1.5, 0.02), depth=0.12, tone=0.7)
    return r.engrave(r.box(-2.3, -2.15, -1.5, 1.5, 0.02), depth=0.10, tone=0.75)


@_sprite
def _hook() -> Relief:
    """Monopolar hook: ceramic collar, thin rod, an L turned up at its end."""
    r = Relief()
    r.add(r.box(-2.8, 0.6, -0.80, 0.80, 0.25), rounding=0.8, metal=0.0, tint=1.0, tone=1.05)
    r.add(r.box(0.4, 1.6, -0.50, 0.50, 0.2), rounding=0.5, metal=0.0, tint=1.0)
    stem = [(1.2, 0.0), (5.2, 0.0), (5.9, 0.12), (6.35, 0.55), (6.45, 1.2), (6.40, 2.5)]
    return r.add(r.path(stem, 0.33, 0.27), rounding=0.32, tone=1.0)


@_sprite
def _suction() -> Relief:
    """Steel tube with side holes and an open, dark mouth."""
    r = Relief()
    r.add(r.box(-4.0, 9.2, -0.78, 0.78, 0.3), rounding=0.78)
    for x, y in ((7.9, 0.25), (6.6, -0.28), (7.2, 0.0), (5.3, 0.28), (5.9, -0.05)):
        r.engrave(r.disc(x, y, 0.19), depth=0.2, tone=0.08)
    r.engrave(r.rod((9.05, -0.5), (9.05, 0.5), 0.20), depth=0.3, tone=0.06)
    return r.engrave(r.box(-3.6, -3.45, -1.0, 1.0, 0.02), depth=0.08, tone=0.55)


@_sprite
def _catheter() -> Relief:
    """Soft, slightly curved tube with depth rings and a rounded end."""
    r = Relief()
    curve = smooth(lambda s: (-4.0 + 15.5 * s, 2.2 * s * s), 16)
    r.add(r.path(curve, 0.80, 0.74), rounding=0.75, metal=0.0, tint=1.0)
    for x in (1.0, 4.0, 7.0):
        y = 2.2 * ((x + 4.0) / 15.5) ** 2
        r.engrave(r.box(x, x + 0.30, y - 1.0, y + 1.0, 0.02), depth=0.0, tone=0.25)
    return r.engrave(r.disc(10.2, 1.9, 0.30), depth=0.2, tone=0.12)


@_sprite
def _ultrasound() -> Relief:
    """Laparoscopic ultrasound: ribbed neck, then a thick finger with a dark transducer strip."""
    r = Relief()
    r.add(r.box(-4.0, 0.3, -0.95, 0.95, 0.1), rounding=0.95, metal=0.0, tone=0.75)
    for x in (-3.3, -2.6, -1.9, -1.2, -0.5):
        r.engrave(r.box(x, x + 0.3, -1.2, 1.2, 0.02), depth=0.15, tone=0.5)
    r.add(r.rod((1.2, 0.0), (10.6, 0.0), 1.55, 1.45), rounding=1.4, metal=0.0, tint=1.0)
    r.add(r.box(3.6, 10.6, -0.75, 0.75, 0.5), rounding=0.3, lift=1.22, metal=0.0, tone=0.30)
    return r.engrave(r.box(2.3, 2.45, -2.0, 2.0, 0.02), depth=0.1, tone=0.5)


@_sprite
def _snare() -> Relief:
    """Wire loop out of a thin sheath; the loop is squeezed when it closes."""
    r = Relief()

    def loop(s: float) -> tuple[float, float]:
        a = 2 * math.pi * s
        return 6.3 - 5.2 * math.cos(a), 3.2 * math.sin(a) * (0.72 + 0.28 * math.sin(a / 2) ** 2)

    r.add(r.path(smooth(loop, 40), 0.24), rounding=0.22, tone=1.1)
    return r.add(r.rod((11.5, 0.0), (12.3, 0.0), 0.22), rounding=0.2, tone=1.1)


@_sprite
def _sheath_end() -> Relief:
    r = Relief()
    r.add(r.box(-4.0, 0.9, -0.95, 0.95, 0.15), rounding=0.95, metal=0.0)
    r.add(r.box(0.3, 1.2, -0.98, 0.98, 0.1), rounding=0.95, metal=0.0, tint=1.0, lift=0.03)
    return r.engrave(r.disc(1.05, 0.0, 0.35), depth=0.1, tone=0.3)


@_sprite
def _ligature() -> Relief:
    """Endoloop: thread noose with its knot before a slim pusher."""
    r = Relief()

    def loop(s: float) -> tuple[float, float]:
        a = 2 * math.pi * s
        return 5.4 - 4.2 * math.cos(a), 2.9 * math.sin(a)

    r.add(r.path(smooth(loop, 36), 0.27), rounding=0.25, metal=0.0, tint=1.0)
    r.add(r.rod((0.6, 0.0), (1.4, 0.0), 0.55), rounding=0.4, metal=0.0, tint=1.0, lift=0.1)
    r.engrave(r.rod((0.7, -0.4), (1.1, 0.4), 0.07), depth=0.15, tone=0.5)
    return r.engrave(r.rod((1.1, -0.4), (1.5, 0.4), 0.07), depth=0.15, tone=0.5)


@_sprite
def _fan_centre() -> Relief:
    """Middle finger of the fan retractor, with the hub."""
    r = Relief()
    r.add(r.rod((0.0, 0.0), (10.5, 0.0), 0.42, 0.55), rounding=0.45)
    r.add(r.box(-2.6, 0.5, -0.9, 0.9, 0.3), rounding=0.8, lift=0.1)
    return r.add(r.disc(0.0, 0.0, 0.35), rounding=0.2, lift=0.9, tone=1.2)


# ---------------------------------------------------------------- jaws (upper: +y, pin at 0, 0)


@_sprite
def _jaw_grasper() -> Relief:
    """Straight, blunt, fenestrated, toothed: the common grasper."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-0.5, 0.0),
                (0.6, 0.0),
                (7.2, 0.03),
                (7.9, 0.35),
                (7.7, 0.85),
                (6.9, 1.0),
                (2.4, 0.92),
                (0.6, 0.62),
                (-0.5, 0.4),
            ],
            0.07,
        ),
        rounding=0.35,
    )
    r.teeth(2.0, 7.4, 0.48, 0.22)
    return r.cut(r.rod((3.1, 0.56), (6.3, 0.60), 0.17))


@_sprite
def _jaw_maryland() -> Relief:
    """Dissector: slender, curved to one side, fine tip. Upper half."""
    r = Relief()
    edge = bend([(-0.5, 0.0), (1.0, 0.0), (3.5, 0.0), (6.0, 0.02), (8.2, 0.04), (9.0, 0.10)], 3.0)
    back = bend([(8.9, 0.30), (6.2, 0.55), (3.6, 0.75), (1.0, 0.68), (-0.5, 0.4)], 3.0)
    r.add(r.polygon([*edge, *back], 0.05), rounding=0.4)
    return r


@_sprite
def _jaw_maryland_low() -> Relief:
    """Dissector: lower half, curved to the same side as the upper one."""
    r = Relief()
    edge = bend([(-0.5, 0.0), (1.0, 0.0), (3.5, 0.0), (6.0, -0.02), (8.2, -0.04), (9.0, -0.1)], 3.0)
    back = bend([(8.9, -0.30), (6.2, -0.55), (3.6, -0.75), (1.0, -0.68), (-0.5, -0.4)], 3.0)
    return r.add(r.polygon([*edge, *back], 0.05), rounding=0.4)


@_sprite
def _jaw_driver() -> Relief:
    """Needle driver: short, stout, with a cross-hatched carbide insert."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-0.5, 0.0),
                (4.6, 0.0),
                (5.1, 0.25),
                (5.0, 0.62),
                (3.6, 0.95),
                (1.4, 1.18),
                (-0.2, 0.7),
            ],
            0.1,
        ),
        rounding=0.55,
    )
    r.add(r.box(1.2, 4.9, -0.02, 0.36, 0.05), rounding=0.15, lift=0.45, tint=1.0)
    return r.teeth(1.3, 4.9, 0.30, 0.32)


@_sprite
def _jaw_holder() -> Relief:
    """Needle holder: slimmer and longer than the driver, tip bent, carbide insert."""
    r = Relief()
    edge = bend([(-0.5, 0.0), (2.0, 0.0), (4.5, 0.0), (6.6, 0.0)], -2.0)
    back = bend([(6.9, 0.35), (5.2, 0.62), (3.0, 0.92), (0.8, 0.95), (-0.5, 0.5)], -2.0)
    r.add(r.polygon([*edge, *back], 0.08), rounding=0.5)
    insert = bend(
        [
            (1.6, 0.02),
            (3.4, 0.02),
            (5.0, 0.02),
            (6.5, 0.02),
            (6.5, 0.28),
            (5.0, 0.30),
            (3.4, 0.32),
            (1.6, 0.32),
        ],
        -2.0,
    )
    return r.add(r.polygon(insert, 0.03), rounding=0.12, lift=0.42, tint=1.0)


@_sprite
def _jaw_holder_low() -> Relief:
    r = Relief()
    edge = bend([(-0.5, 0.0), (2.0, 0.0), (4.5, 0.0), (6.6, 0.0)], -2.0)
    back = bend([(6.9, -0.35), (5.2, -0.62), (3.0, -0.92), (0.8, -0.95), (-0.5, -0.5)], -2.0)
    r.add(r.polygon([*edge, *back], 0.08), rounding=0.5)
    insert = bend(
        [
            (1.6, -0.02),
            (3.4, -0.02),
            (5.0, -0.02),
            (6.5, -0.02),
            (6.5, -0.28),
            (5.0, -0.30),
            (3.4, -0.32),
            (1.6, -0.32),
        ],
        -2.0,
    )
    return r.add(r.polygon(insert, 0.03), rounding=0.12, lift=0.42, tint=1.0)


@_sprite
def _jaw_tines() -> Relief:
    """Bipolar forceps: tweezer tine, insulated to near its flat paddle."""
    r = Relief()
    tine = [(-0.5, 0.3), (1.0, 0.75), (3.2, 0.98), (5.6, 0.70), (7.0, 0.42)]
    r.add(r.path(tine, 0.42, 0.34), rounding=0.4, metal=0.0, tint=1.0)
    return r.add(
        r.polygon(
            [(6.4, 0.10), (9.3, 0.06), (9.7, 0.30), (9.4, 0.66), (7.4, 0.78), (6.4, 0.62)], 0.08
        ),
        rounding=0.3,
        lift=0.15,
    )


@_sprite
def _jaw_bipolar() -> Relief:
    """Fenestrated bipolar: broad, one long window, coloured insulation at its root."""
    r = Relief()
    r.add(
        r.polygon(
            [(0.4, 0.0), (7.6, 0.0), (8.2, 0.45), (7.8, 1.1), (6.4, 1.42), (2.6, 1.30), (0.4, 0.8)],
            0.1,
        ),
        rounding=0.35,
    )
    r.add(
        r.polygon([(-0.6, 0.0), (2.3, 0.0), (2.5, 1.30), (0.6, 0.98), (-0.6, 0.5)], 0.12),
        rounding=0.5,
        lift=0.2,
        metal=0.0,
        tint=1.0,
    )
    r.teeth(3.0, 7.4, 0.42, 0.20)
    return r.cut(r.rod((3.5, 0.70), (6.6, 0.74), 0.30))


@_sprite
def _jaw_prograsp() -> Relief:
    """ProGrasp: wide oval jaw, big teardrop window, strong teeth."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-0.5, 0.0),
                (6.3, 0.0),
                (7.0, 0.55),
                (6.9, 1.15),
                (6.1, 1.62),
                (4.6, 1.78),
                (2.4, 1.45),
                (0.4, 0.85),
            ],
            0.12,
        ),
        rounding=0.4,
    )
    r.teeth(1.6, 6.6, 0.62, 0.30)
    return r.cut(r.rod((3.0, 0.82), (5.5, 0.95), 0.30, 0.46))


@_sprite
def _blade_curved() -> Relief:
    """Scissors blade that curves to one side: upper."""
    r = Relief()
    edge = bend([(-0.4, -0.25), (1.5, -0.2), (4.0, -0.1), (6.4, 0.0), (7.9, 0.08)], 2.2)
    back = bend([(7.6, 0.36), (5.6, 0.85), (3.2, 1.0), (1.0, 0.85), (-0.4, 0.5)], 2.2)
    r.add(r.polygon([*edge, *back], 0.04), rounding=0.22)
    return r.engrave(r.path(bend([(1.5, 0.08), (4.0, 0.16), (7.2, 0.22)], 2.2), 0.03), tone=0.6)


@_sprite
def _blade_curved_low() -> Relief:
    r = Relief()
    edge = bend([(-0.4, 0.25), (1.5, 0.2), (4.0, 0.1), (6.4, 0.0), (7.9, -0.08)], 2.2)
    back = bend([(7.6, -0.30), (5.6, -0.75), (3.2, -0.95), (1.0, -0.85), (-0.4, -0.5)], 2.2)
    r.add(r.polygon([*edge, *back], 0.04), rounding=0.22, tone=0.9)
    return r.engrave(r.path(bend([(1.5, -0.08), (4.0, -0.16), (7.2, -0.20)], 2.2), 0.03), tone=0.6)


@_sprite
def _blade_straight() -> Relief:
    """Scissors blade: straight edge, long taper to a sharp point."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-0.5, -0.30),
                (3.0, -0.22),
                (9.0, -0.06),
                (9.4, 0.02),
                (6.4, 0.52),
                (2.8, 0.92),
                (0.4, 0.85),
                (-0.5, 0.5),
            ],
            0.03,
        ),
        rounding=0.2,
    )
    return r.engrave(r.path([(1.5, 0.06), (5.0, 0.10), (8.6, 0.06)], 0.03), tone=0.6)


@_sprite
def _jaw_clip() -> Relief:
    """Clip applier: slim arm ending in a U-shaped cradle, half a clip of the accent colour."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-0.5, 0.1),
                (1.4, 0.55),
                (4.2, 1.15),
                (4.6, 1.75),
                (3.2, 1.5),
                (0.6, 1.0),
                (-0.5, 0.55),
            ],
            0.1,
        ),
        rounding=0.4,
    )
    r.add(r.box(4.0, 8.9, 0.82, 1.75, 0.25), rounding=0.4, lift=0.1)
    r.add(r.box(4.5, 9.5, 0.62, 1.0, 0.15), rounding=0.18, lift=0.35, tint=1.0, metal=0.4)
    return r.engrave(r.box(4.8, 8.4, 1.22, 1.40, 0.06), depth=0.15, tone=0.5)


@_sprite
def _jaw_sealer() -> Relief:
    """Vessel sealer: thick, gently curved, plastic back, steel sealing plate with stops."""
    r = Relief()
    edge = bend([(-0.6, 0.0), (2.5, 0.0), (5.5, 0.0), (8.6, 0.0)], 1.1)
    back = bend([(9.3, 0.4), (8.9, 0.95), (6.0, 1.30), (2.8, 1.42), (0.2, 1.25), (-0.6, 0.7)], 1.1)
    r.add(r.polygon([*edge, *back], 0.12), rounding=0.7, metal=0.0, tint=1.0)
    plate = bend([(1.0, 0.0), (4.0, 0.0), (8.8, 0.02), (8.9, 0.36), (4.0, 0.42), (1.0, 0.42)], 1.1)
    return r.add(r.polygon(plate, 0.05), rounding=0.15, lift=0.6, tone=1.05)


@_sprite
def _jaw_sealer_low() -> Relief:
    r = Relief()
    edge = bend([(-0.6, 0.0), (2.5, 0.0), (5.5, 0.0), (8.6, 0.0)], 1.1)
    back = bend(
        [(9.3, -0.4), (8.9, -0.9), (6.0, -1.2), (2.8, -1.3), (0.2, -1.2), (-0.6, -0.7)], 1.1
    )
    r.add(r.polygon([*edge, *back], 0.12), rounding=0.7, metal=0.0, tint=1.0)
    plate = bend([(1.0, 0.0), (4.0, 0.0), (8.8, 0.0), (8.9, -0.34), (4.0, -0.4), (1.0, -0.4)], 1.1)
    return r.add(r.polygon(plate, 0.05), rounding=0.15, lift=0.6, tone=1.05)


@_sprite
def _jaw_clamp() -> Relief:
    """Clamp: very long, slim, parallel, with a rubber-like lining."""
    r = Relief()
    r.add(
        r.polygon(
            [
                (-0.5, 0.0),
                (12.4, 0.02),
                (12.9, 0.25),
                (12.3, 0.52),
                (6.0, 0.72),
                (1.2, 0.85),
                (-0.5, 0.55),
            ],
            0.08,
        ),
        rounding=0.4,
    )
    r.add(r.box(2.0, 12.5, -0.04, 0.22, 0.06), rounding=0.12, lift=0.36, metal=0.0, tint=1.0)
    return r.teeth(2.2, 12.4, 0.36, 0.16)


@_sprite
def _jaw_fan() -> Relief:
    """Outer finger of the fan retractor, blunt paddle end."""
    r = Relief()
    r.add(r.path([(0.0, 0.0), (1.2, 0.5), (5.0, 1.1), (9.4, 1.6)], 0.38, 0.52), rounding=0.45)
    return r.add(r.rod((8.6, 1.5), (10.0, 1.68), 0.62), rounding=0.5, tone=1.05)


CATALOGUE: dict[str, Instrument] = {
    "grasper": Instrument("clevis", "jaw_grasper", opening=(0.0, 0.9), wrist=2.4),
    "dissecting grasper": Instrument(
        "clevis", "jaw_maryland", "jaw_maryland_low", opening=(0.0, 0.75), wrist=2.4
    ),
    "needle driver": Instrument(
        "robot_wrist",
        "jaw_driver",
        shaft="shaft_banded",
        opening=(0.0, 0.7),
        bending=0.8,
        wrist=3.6,
        shafts=(GREY, BLACK),
        accent=GOLD,
    ),
    "needle holder": Instrument(
        "clevis",
        "jaw_holder",
        "jaw_holder_low",
        opening=(0.0, 0.6),
        wrist=2.4,
        shafts=(STEEL,),
        accent=GOLD,
    ),
    "bipolar forceps": Instrument(
        "sheath_end",
        "jaw_tines",
        shaft="shaft_plain",
        opening=(0.0, 0.42),
        wrist=0.6,
        shafts=(BLUE, WHITE),
        accent=BLUE,
    ),
    "bipolar": Instrument(
        "robot_wrist",
        "jaw_bipolar",
        shaft="shaft_banded",
        opening=(0.0, 0.9),
        bending=0.8,
        wrist=3.6,
        shafts=(GREY, BLACK),
        accent=(0.86, 0.74, 0.22),
    ),
    "prograsp forceps": Instrument(
        "robot_wrist",
        "jaw_prograsp",
        shaft="shaft_banded",
        opening=(0.0, 0.9),
        bending=0.8,
        wrist=3.6,
        shafts=(GREY, BLACK),
        accent=WHITE,
    ),
    "monopolar scissors": Instrument(
        "boot",
        "blade_curved",
        "blade_curved_low",
        shaft="shaft_banded",
        opening=(0.0, 1.0),
        bending=0.7,
        wrist=3.6,
        shafts=(GREY, BLACK),
        accent=ORANGE,
    ),
    "scissors": Instrument(
        "clevis", "blade_straight", opening=(0.05, 0.85), wrist=2.4, shafts=(BLACK, STEEL)
    ),
    "hook": Instrument("hook", wrist=2.6, shafts=(BLACK, DARK_STEEL), accent=IVORY),
    "clip applier": Instrument(
        "clevis",
        "jaw_clip",
        opening=(-0.12, 0.35),
        radius=1.2,
        wrist=2.4,
        shafts=(STEEL, DARK_STEEL),
        accent=TEAL,
    ),
    "suction": Instrument("suction", shaft="shaft_plain", wrist=3.5, shafts=(STEEL,)),
    "vessel sealer": Instrument(
        "clevis",
        "jaw_sealer",
        "jaw_sealer_low",
        shaft="shaft_plain",
        opening=(0.0, 0.6),
        wrist=2.4,
        shafts=(WHITE, DARK_STEEL),
        accent=(0.62, 0.63, 0.66),
    ),
    "snare": Instrument(
        "snare",
        shaft="shaft_plain",
        opening=(0.25, 1.0),
        radius=0.62,
        wrist=0.6,
        shafts=(BLUE, WHITE, TEAL),
        squeeze=True,
    ),
    "catheter": Instrument(
        "catheter", shaft="shaft_plain", wrist=3.5, radius=0.8, shafts=(IVORY,), accent=IVORY
    ),
    "ultrasound probe": Instrument(
        "ultrasound",
        wrist=3.5,
        bending=0.6,
        shafts=(GREY, BLACK),
        radius=1.1,
        accent=(0.62, 0.64, 0.68),
    ),
    "grasping retractor": Instrument(
        "fan_centre", "jaw_fan", opening=(0.0, 0.7), wrist=2.4, shafts=(STEEL, BLACK), radius=1.1
    ),
    "clamp": Instrument(
        "clevis",
        "jaw_clamp",
        opening=(0.0, 0.45),
        wrist=2.4,
        shafts=(STEEL,),
        accent=(0.20, 0.42, 0.66),
    ),
    "ligature": Instrument(
        "ligature",
        shaft="shaft_plain",
        opening=(0.35, 1.0),
        radius=0.7,
        wrist=0.4,
        shafts=(WHITE, IVORY),
        accent=PURPLE,
        squeeze=True,
    ),
}

THIN = ("suturing needle", "thread")  # optional targets, not on a shaft


def part_sprites(name: str) -> tuple[str, str, str, str]:
    """Name the sprites of shaft, lower jaw, upper jaw and body; '' where there is none."""
    tool = CATALOGUE[name]
    return tool.shaft, tool.lower or tool.upper, tool.upper, tool.body


@functools.lru_cache(maxsize=1)
def sprite_numbers() -> dict[str, int]:
    """Number the sprites in the order in which the atlas holds them."""
    return {name: i for i, name in enumerate(SPRITES)}


@functools.lru_cache(maxsize=4)
def atlas(device: torch.device) -> torch.Tensor:
    """Bake all sprites: float32 [CHANNELS, sprites × HEIGHT, WIDTH], one below the other."""
    baked = [make().bake() for make in SPRITES.values()]
    return torch.cat(baked, dim=1).contiguous().to(device)
