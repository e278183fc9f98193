"""Which organs lie where: themes after real operations, and the distance field of each organ.

World coordinates: the camera's home view is y in [-1, 1], downwards, x to the right; the tissue
map covers [-EXTENT, EXTENT] in both. Distances are negative inside an organ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from sam2s_model.synth.noise import smooth_noise, uniform_one

EXTENT = 2.4  # half width of the tissue map, world units
COARSE = 288  # nodes across the map for organ shapes: a fixed grid, whatever is rendered

Field = torch.Tensor  # float32 [COARSE, COARSE]


class Organ(NamedTuple):
    """One bounded region: its class, how its distance field is made, and its own style draw."""

    name: str  # a tissue of the bank
    shape: str  # a key of SHAPES
    x: float
    y: float
    size: float  # half width of the region, world units
    angle: float = 0.0  # radians
    aspect: float = 1.0  # length over width
    wobble: float = 0.06  # how far the border wanders, world units


class Theme(NamedTuple):
    """An operation: its background and its organs, the upper ones last."""

    background: str
    organs: tuple[Organ, ...]


THEMES: dict[str, Theme] = {
    "cholecystectomy": Theme(
        "omentum",
        (
            Organ("fat", "blob", 0.55, 0.95, 0.75, 0.2, 1.8, 0.12),
            Organ("gastrointestinal tract", "tube", -1.05, 0.95, 0.36, -0.35, 3.0),
            Organ("liver", "edge", 0.0, -0.42, 1.0, 0.10),
            Organ("connective tissue", "blob", 0.18, 0.30, 0.27, 0.4, 1.5, 0.10),
            Organ("cystic duct", "tube", 0.34, 0.36, 0.055, 0.5, 6.0, 0.02),
            Organ("gallbladder", "pear", -0.12, -0.06, 0.25, 0.62, 2.2, 0.03),
        ),
    ),
    "colectomy": Theme(
        "peritoneum",
        (
            Organ("fat", "blob", 0.0, 0.15, 0.6, 0.1, 2.2, 0.14),
            Organ("small intestine", "serpent", 0.35, 0.72, 0.17, 0.1, 1.0, 0.03),
            Organ("abdominal wall", "edge", 0.0, -0.92, 1.0, -0.12),
            Organ("colon", "haustra", -0.15, -0.28, 0.25, 0.18, 5.0, 0.03),
        ),
    ),
    "gynecology": Theme(
        "peritoneum",
        (
            Organ("abdominal wall", "edge", 0.0, -0.80, 1.0, 0.05),
            Organ("fat", "blob", -0.95, 0.45, 0.36, 0.6, 1.5, 0.10),
            Organ("colon", "haustra", 0.75, 0.70, 0.22, -0.7, 4.0, 0.03),
            Organ("connective tissue", "blob", 0.66, -0.12, 0.28, 0.2, 1.9, 0.10),
            Organ("uterus", "pear", 0.0, 0.22, 0.46, -1.45, 1.5, 0.04),
        ),
    ),
    "nephrectomy": Theme(
        "omentum",
        (
            Organ("colon", "haustra", -0.85, 0.55, 0.24, 1.0, 5.0, 0.03),
            Organ("covered kidney", "bean", 0.32, -0.02, 0.66, 0.5, 1.45, 0.07),
            Organ("kidney parenchyma", "blob", 0.28, -0.12, 0.33, 0.4, 1.35, 0.07),
            Organ("hepatic vein", "tube", -0.30, 0.10, 0.075, 0.25, 6.0, 0.02),
            Organ("connective tissue", "blob", -0.25, 0.34, 0.2, 0.4, 1.8, 0.10),
        ),
    ),
    "splenectomy": Theme(
        "omentum",
        (
            Organ("gastrointestinal tract", "tube", -0.72, 0.05, 0.42, 1.1, 2.6, 0.05),
            Organ("small intestine", "serpent", 0.3, 0.95, 0.15, -0.1, 1.0, 0.03),
            Organ("fat", "blob", 0.0, 0.42, 0.34, 0.3, 2.0, 0.10),
            Organ("spleen", "bean", 0.58, -0.22, 0.46, -0.6, 1.6, 0.05),
        ),
    ),
    "hepatectomy": Theme(
        "muscle",
        (
            Organ("abdominal wall", "edge", 0.0, -0.98, 1.0, -0.08),
            Organ("liver", "blob", 0.05, 0.05, 0.95, 0.1, 1.45, 0.14),
            Organ("hepatic vein", "tube", 0.28, 0.18, 0.085, 0.9, 5.0, 0.02),
            Organ("liver ligament", "tube", -0.28, -0.32, 0.11, 1.35, 5.5, 0.04),
            Organ("fat", "blob", 0.45, 1.0, 0.42, 0.1, 2.2, 0.10),
        ),
    ),
    "polypectomy": Theme(
        "mucosa",
        (
            Organ("polyp", "pear", 0.18, 0.12, 0.24, 0.9, 1.25, 0.05),
            Organ("polyp", "blob", -0.55, -0.35, 0.13, 0.2, 1.2, 0.03),
        ),
    ),
}


class Layout(NamedTuple):
    """A scene's anatomy: theme name, background style, organs, and label of each organ."""

    theme: str
    background: str
    organs: tuple[Organ, ...]


def draw_layout(seed: int, theme: str | None = None) -> Layout:
    """Choose a theme by the seed (or take the given one) and jitter, mirror and turn its organs."""
    names = list(THEMES)
    # The endoscopic theme is one of seven; it is drawn as often as the others.
    chosen = theme or names[int(uniform_one(seed, "theme") * len(names))]
    plan = THEMES[chosen]
    mirror = -1.0 if uniform_one(seed, "theme.mirror") < 0.5 else 1.0
    organs = []
    for i, organ in enumerate(plan.organs):
        scale = uniform_one(seed, "organ.size", i, low=0.85, high=1.2)
        organs.append(
            organ._replace(
                x=mirror * organ.x + uniform_one(seed, "organ.x", i, low=-0.13, high=0.13),
                y=organ.y + uniform_one(seed, "organ.y", i, low=-0.10, high=0.10),
                size=organ.size * scale,
                angle=mirror * organ.angle + uniform_one(seed, "organ.a", i, low=-0.2, high=0.2),
                aspect=organ.aspect * uniform_one(seed, "organ.r", i, low=0.88, high=1.15),
            )
        )
    return Layout(chosen, plan.background, tuple(organs))


def organ_field(organ: Organ, seed: int, index: int, device: torch.device) -> Field:
    """Compute the organ's distance field on the coarse grid, world units, negative inside."""
    axis = torch.linspace(-EXTENT, EXTENT, COARSE, device=device)
    wander_x = organ.wobble * smooth_noise(seed, f"organ.wx{index}", COARSE, 13, device)
    wander_y = organ.wobble * smooth_noise(seed, f"organ.wy{index}", COARSE, 13, device)
    fine = 0.25 * organ.wobble * smooth_noise(seed, f"organ.wf{index}", COARSE, 41, device)
    x = axis[None, :] - organ.x + wander_x
    y = axis[:, None] - organ.y + wander_y
    cos, sin = float(np.cos(organ.angle)), float(np.sin(organ.angle))
    return SHAPES[organ.shape](organ, cos * x + sin * y, cos * y - sin * x) + fine


def _blob(organ: Organ, x: Field, y: Field) -> Field:
    scaled = torch.sqrt((x / organ.aspect) ** 2 + y**2 + 1e-8)
    slope = torch.sqrt((x / organ.aspect**2) ** 2 + y**2 + 1e-8) / scaled
    return (scaled - organ.size) / slope.clamp_min(0.4)


def _edge(organ: Organ, x: Field, y: Field) -> Field:
    # Everything above a gently curved border, like a liver lobe hanging into the view.
    return y - 0.10 * torch.sin(2.1 * x) - 0.05 * torch.sin(5.3 * x + 1.0)


def _pear(organ: Organ, x: Field, y: Field) -> Field:
    length = organ.size * organ.aspect
    along = (x / length + 0.5).clamp(0.0, 1.0)
    radius = organ.size * (1.0 - 0.55 * along * along)
    return torch.sqrt((x - (along - 0.5) * length) ** 2 + y**2 + 1e-8) - radius


def _bean(organ: Organ, x: Field, y: Field) -> Field:
    bent = y + 0.35 * organ.size * (1.0 - (x / (organ.size * organ.aspect)) ** 2)
    return _blob(organ, x, bent)


def _tube(organ: Organ, x: Field, y: Field) -> Field:
    half = organ.size * organ.aspect
    bend = 0.5 * organ.size * torch.sin(x / (organ.size * 1.7))
    beyond = (x.abs() - half).clamp_min(0.0)
    return torch.sqrt(beyond**2 + (y - bend) ** 2 + 1e-8) - organ.size


def _haustra(organ: Organ, x: Field, y: Field) -> Field:
    half = organ.size * organ.aspect
    bend = 0.6 * organ.size * torch.sin(x / (organ.size * 3.0))
    beyond = (x.abs() - half).clamp_min(0.0)
    pouches = 0.16 * organ.size * torch.cos(x * (3.6 / organ.size)).abs()
    return torch.sqrt(beyond**2 + (y - bend) ** 2 + 1e-8) - organ.size * 0.92 - pouches


def _serpent(organ: Organ, x: Field, y: Field) -> Field:
    # Loops of bowel: rows of tube whose ends turn into the next row.
    pitch = 2.05 * organ.size
    sway = y + 0.55 * organ.size * torch.sin(x / (organ.size * 1.5))
    row = torch.round(sway / pitch).clamp(-2.0, 2.0)
    half = organ.size * (4.2 - 0.5 * row.abs())
    beyond = ((x - 0.6 * organ.size * row).abs() - half).clamp_min(0.0)
    return torch.sqrt(beyond**2 + (sway - row * pitch) ** 2 + 1e-8) - organ.size


SHAPES: dict[str, Callable[[Organ, Field, Field], Field]] = {
    "blob": _blob,
    "edge": _edge,
    "pear": _pear,
    "bean": _bean,
    "tube": _tube,
    "haustra": _haustra,
    "serpent": _serpent,
}
