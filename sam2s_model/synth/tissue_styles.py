"""How each tissue looks: colours, vessels, lobules, gloss. One entry a class of the bank."""

from __future__ import annotations

from typing import NamedTuple

Colour = tuple[float, float, float]


class TissueStyle(NamedTuple):
    """Surface of a tissue; colours are display RGB in [0, 1]."""

    dark: Colour  # colour in the hollows of the mottling
    light: Colour  # colour on its crests
    mottle: float = 0.5  # how strongly the two mix, 0…1
    vessels: float = 0.4  # opacity of the fine vessel network, 0…1
    vessel: Colour = (0.55, 0.08, 0.10)
    lobules: float = 0.0  # depth of fat-like lobules, 0…1
    lobule_colour: Colour = (0.80, 0.55, 0.30)
    gloss: float = 0.6  # wetness, 0…1
    bump: float = 0.5  # fine relief, 0…1
    dome: float = 0.5  # how far the organ bulges out of its surroundings, 0…1
    fibres: float = 0.0  # opacity of whitish fibres, 0…1


STYLES: dict[str, TissueStyle] = {
    "uterus": TissueStyle(
        (0.72, 0.36, 0.36),
        (0.90, 0.58, 0.54),
        mottle=0.6,
        vessels=0.45,
        gloss=0.8,
        bump=0.35,
        dome=0.9,
    ),
    "liver": TissueStyle(
        (0.36, 0.11, 0.10),
        (0.53, 0.19, 0.15),
        mottle=0.55,
        vessels=0.03,
        gloss=0.8,
        bump=0.22,
        dome=0.8,
    ),
    "fat": TissueStyle(
        (0.84, 0.60, 0.28),
        (0.96, 0.82, 0.50),
        mottle=0.6,
        vessels=0.3,
        lobules=1.0,
        lobule_colour=(0.66, 0.34, 0.18),
        gloss=0.75,
        bump=0.3,
        dome=0.4,
    ),
    "abdominal wall": TissueStyle(
        (0.66, 0.32, 0.28),
        (0.86, 0.54, 0.46),
        mottle=0.7,
        vessels=0.55,
        gloss=0.55,
        bump=0.4,
        dome=0.2,
        fibres=0.35,
    ),
    "polyp": TissueStyle(
        (0.68, 0.24, 0.22),
        (0.88, 0.42, 0.34),
        mottle=0.7,
        vessels=0.5,
        lobules=0.35,
        lobule_colour=(0.55, 0.14, 0.14),
        gloss=0.9,
        bump=0.7,
        dome=1.0,
    ),
    "gastrointestinal tract": TissueStyle(
        (0.80, 0.48, 0.42),
        (0.94, 0.70, 0.62),
        mottle=0.5,
        vessels=0.5,
        gloss=0.75,
        bump=0.3,
        dome=0.7,
    ),
    "gallbladder": TissueStyle(
        (0.36, 0.46, 0.34),
        (0.60, 0.69, 0.50),
        mottle=0.55,
        vessels=0.6,
        vessel=(0.62, 0.14, 0.12),
        gloss=0.95,
        bump=0.2,
        dome=1.0,
    ),
    "connective tissue": TissueStyle(
        (0.80, 0.60, 0.54),
        (0.97, 0.88, 0.82),
        mottle=0.8,
        vessels=0.35,
        gloss=0.7,
        bump=0.6,
        dome=0.2,
        fibres=0.9,
    ),
    "spleen": TissueStyle(
        (0.30, 0.10, 0.20),
        (0.50, 0.20, 0.32),
        mottle=0.5,
        vessels=0.05,
        gloss=0.8,
        bump=0.3,
        dome=0.8,
    ),
    "hepatic vein": TissueStyle(
        (0.22, 0.20, 0.40),
        (0.40, 0.34, 0.56),
        mottle=0.4,
        vessels=0.05,
        gloss=0.9,
        bump=0.1,
        dome=0.8,
    ),
    "liver ligament": TissueStyle(
        (0.80, 0.66, 0.58),
        (0.97, 0.90, 0.82),
        mottle=0.6,
        vessels=0.35,
        gloss=0.6,
        bump=0.4,
        dome=0.5,
        fibres=0.9,
    ),
    "colon": TissueStyle(
        (0.76, 0.46, 0.38),
        (0.93, 0.70, 0.58),
        mottle=0.5,
        vessels=0.6,
        gloss=0.75,
        bump=0.3,
        dome=1.0,
        fibres=0.2,
    ),
    "kidney parenchyma": TissueStyle(
        (0.46, 0.16, 0.12),
        (0.66, 0.28, 0.22),
        mottle=0.5,
        vessels=0.2,
        gloss=0.8,
        bump=0.3,
        dome=0.9,
    ),
    "covered kidney": TissueStyle(
        (0.72, 0.50, 0.32),
        (0.90, 0.72, 0.52),
        mottle=0.6,
        vessels=0.5,
        lobules=0.4,
        lobule_colour=(0.58, 0.24, 0.18),
        gloss=0.7,
        bump=0.4,
        dome=0.9,
        fibres=0.4,
    ),
    "small intestine": TissueStyle(
        (0.82, 0.46, 0.42),
        (0.95, 0.66, 0.60),
        mottle=0.45,
        vessels=0.65,
        gloss=0.85,
        bump=0.25,
        dome=1.0,
    ),
    "cystic duct": TissueStyle(
        (0.62, 0.56, 0.36),
        (0.84, 0.78, 0.56),
        mottle=0.4,
        vessels=0.35,
        gloss=0.9,
        bump=0.15,
        dome=0.9,
    ),
}

# What lies behind the organs; not a target, label 0.
BACKGROUNDS: dict[str, TissueStyle] = {
    "peritoneum": TissueStyle(
        (0.66, 0.30, 0.27),
        (0.87, 0.52, 0.44),
        mottle=0.8,
        vessels=0.6,
        gloss=0.65,
        bump=0.5,
        fibres=0.3,
    ),
    "omentum": TissueStyle(
        (0.78, 0.48, 0.27),
        (0.94, 0.74, 0.46),
        mottle=0.7,
        vessels=0.65,
        lobules=0.85,
        lobule_colour=(0.66, 0.30, 0.20),
        gloss=0.7,
        bump=0.4,
        fibres=0.2,
    ),
    "muscle": TissueStyle(
        (0.52, 0.15, 0.14),
        (0.76, 0.32, 0.28),
        mottle=0.8,
        vessels=0.4,
        gloss=0.6,
        bump=0.7,
        fibres=0.55,
    ),
    "mucosa": TissueStyle(
        (0.78, 0.40, 0.33),
        (0.92, 0.60, 0.48),
        mottle=0.4,
        vessels=0.75,
        gloss=0.9,
        bump=0.25,
    ),
}
