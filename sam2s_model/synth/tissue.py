"""The tissue map of a scene: colour, relief, wetness, bleeding and organ labels, made once.

The map covers the world square of `anatomy.EXTENT`; a frame only samples it. Its fields are defined
on grids of fixed size, so that a coarser map shows the same scene.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sam2s_model.synth.anatomy import EXTENT, Layout, organ_field
from sam2s_model.synth.noise import cells, fractal, smooth_noise, uniform_one, warp
from sam2s_model.synth.tissue_styles import BACKGROUNDS, STYLES, Colour, TissueStyle

CHANNELS = 7  # linear r, g, b; slope x, slope y; gloss; blood arrival
SEAM = 0.035  # width over which an organ's relief meets its surroundings, world units
RELIEF = 0.16  # height of the largest bulge, world units


class TissueMap(NamedTuple):
    """What a frame samples."""

    channels: torch.Tensor  # float32 [CHANNELS, S, S]; arrival is the blood's reach, 0 at a source
    height: torch.Tensor  # float32 [H, H] coarse relief, world units
    labels: torch.Tensor  # float32 [S, S]; 0 background, else organ number from 1
    mean_colour: torch.Tensor  # float32 [3], linear; what metal mirrors


def build_tissue(
    seed: int,
    layout: Layout,
    size: int,
    device: torch.device,
    *,
    hue: Colour,
    vessels: float,
    fold: float,
    gloss: float,
) -> TissueMap:
    """Make the map [.., size, size]; `hue` multiplies the colours, the rest scales the relief."""
    surface = _Surface(seed, size, device, vessels)
    background = BACKGROUNDS[layout.background]
    colour, bump, wet = surface.paint(background, 0)
    height = _background_relief(seed, layout.theme, size, device) * (RELIEF * fold)
    # Organs follow the broad lie of what is below, not its folds, which would shine through.
    base = _smoothed(height, size)
    shade = torch.ones(size, size, device=device)
    if layout.theme == "polypectomy":
        shade *= _lumen_shade(seed, size, device)
    labels = torch.zeros(size, size, device=device)
    texel = 2.0 * EXTENT / size
    for number, organ in enumerate(layout.organs, start=1):
        style = STYLES[organ.name]
        distance = _resize(organ_field(organ, seed, number, device), size)
        inside = (0.5 - distance / (2.0 * texel)).clamp_(0.0, 1.0)
        painted, organ_bump, organ_wet = surface.paint(style, number)
        # A narrow dark seam and a wide soft shadow outside the border set the organ off.
        outside = distance.clamp_min(0.0)
        seam = 1.0 - 0.34 * torch.exp(outside / -0.035) - 0.24 * torch.exp(outside / -0.16)
        shade = torch.lerp(shade * seam, torch.ones_like(shade), inside)
        colour = torch.lerp(colour, painted, inside[None])
        # Seams lie in shadow: no glint may trace them.
        wet = torch.lerp(wet, organ_wet, inside) * (1.0 - 0.9 * torch.exp(distance.abs() / -0.02))
        reach = min(organ.size, 0.42)
        rise = (distance / -reach).clamp_(0.0, 1.0)
        dome = (torch.sqrt(rise * (2.0 - rise) + 0.03) - 0.1732) * (
            RELIEF * style.dome * reach / 0.42 * 1.6
        )
        # Heights meet over a fixed width, so that no cliff one texel wide glitters.
        joined = _smoothstep((0.5 - distance / SEAM).clamp_(0.0, 1.0))
        height = torch.lerp(height, 0.45 * base + dome, joined)
        bump = torch.lerp(bump, organ_bump, joined)
        labels[distance < 0] = number
    slope_x, slope_y, hollow = _slopes(height + 0.011 * bump, size)
    shade = shade * (1.0 - 0.9 * hollow).clamp_(0.35, 1.15)
    tint = torch.tensor(hue, device=device)[:, None, None]
    linear = (colour * tint).clamp_(0.0, 1.0).square_() * shade
    arrival = _blood_reach(seed, size, device, height)
    channels = torch.cat(
        (linear, slope_x[None], slope_y[None], (wet * gloss)[None], arrival[None])
    ).contiguous()
    coarse = F.interpolate(height[None, None], size=(128, 128), mode="area")[0, 0]
    middle = slice(size // 4, 3 * size // 4)
    return TissueMap(channels, coarse, labels, linear[:, middle, middle].mean(dim=(1, 2)))


class _Surface:
    """The noise fields that all tissues of a scene share, and the painting of one style."""

    def __init__(self, seed: int, size: int, device: torch.device, vessels: float) -> None:
        self.seed, self.size, self.device = seed, size, device
        self.mottle = fractal(seed, "mottle", size, 12, 5, device, 0.6)
        self.fine = fractal(seed, "fine", size, 90, 3, device, 0.7)
        self.vessels = self._vessels() * vessels
        lobes, gap = cells(seed, "lobules", min(size, 640), 46, device)
        wobble = 0.022 * smooth_noise(seed, "lobule.wx", size, 34, device)
        wobble_y = 0.022 * smooth_noise(seed, "lobule.wy", size, 34, device)
        self.crease = warp(_resize((1.0 - gap / 0.22).clamp_(0.0, 1.0), size), wobble, wobble_y)
        self.lobe = warp(
            _resize((1.0 - lobes * lobes * 1.2).clamp_(0.0, 1.0), size), wobble, wobble_y
        )
        along = fractal(seed, "fibre.bend", size, 7, 2, device)
        streak = smooth_noise(seed, "fibre", size, 130, device)
        across = smooth_noise(seed, "fibre.long", size, 18, device)
        ridge = 1.0 - (streak * 0.6 + across + along).abs() * 2.4
        self.fibres = ridge.clamp_(0.0, 1.0).square_()

    def _vessels(self) -> torch.Tensor:
        """Lay branching lines where warped noise crosses zero; wider trunks, finer twigs."""
        total = torch.zeros(self.size, self.size, device=self.device)
        for name, nodes, width, weight in (("trunk", 8, 0.035, 1.0), ("twig", 26, 0.06, 0.65)):
            push_x = 0.06 * smooth_noise(self.seed, name + ".x", self.size, nodes * 2, self.device)
            push_y = 0.06 * smooth_noise(self.seed, name + ".y", self.size, nodes * 2, self.device)
            field = warp(fractal(self.seed, name, self.size, nodes, 2, self.device), push_x, push_y)
            line = (1.0 - field.abs() / width).clamp_(0.0, 1.0)
            where = smooth_noise(self.seed, name + ".where", self.size, 7, self.device)
            total = torch.maximum(total, line * weight * (where * 1.5 + 0.55).clamp_(0.0, 1.0))
        return total

    def paint(
        self, style: TissueStyle, number: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return colour [3, S, S] (display RGB), fine relief [S, S] and gloss [S, S]."""
        device = self.device
        tone = uniform_one(self.seed, "organ.tone", number, low=0.9, high=1.08)
        mix = (0.5 + style.mottle * (0.75 * self.mottle + 0.20 * self.fine)).clamp_(0.0, 1.0)
        dark = torch.tensor(style.dark, device=device)[:, None, None] * tone
        light = torch.tensor(style.light, device=device)[:, None, None] * tone
        colour = torch.lerp(dark, light, mix[None])
        bump = style.bump * (0.6 * self.mottle + 0.55 * self.fine)
        gloss = style.gloss * (0.85 + 0.35 * self.mottle).clamp_(0.3, 1.2)
        if style.lobules:
            crease = torch.tensor(style.lobule_colour, device=device)[:, None, None]
            colour = torch.lerp(colour, crease, (0.42 * style.lobules * self.crease)[None])
            bump = bump + style.lobules * (2.0 * self.lobe - 0.45 * self.crease)
        if style.vessels:
            red = torch.tensor(style.vessel, device=device)[:, None, None]
            colour = torch.lerp(colour, red, (style.vessels * self.vessels).clamp_(0.0, 0.85)[None])
            bump = bump + 0.5 * style.vessels * self.vessels
        if style.fibres:
            white = torch.tensor((0.97, 0.88, 0.82), device=device)[:, None, None]
            colour = torch.lerp(colour, white, (0.7 * style.fibres * self.fibres)[None])
            bump = bump + 0.8 * style.fibres * self.fibres
        return colour, bump, gloss


def _resize(field: torch.Tensor, size: int) -> torch.Tensor:
    """Bring a square field to [size, size] by bicubic interpolation, corners aligned."""
    out = F.interpolate(field[None, None], size=(size, size), mode="bicubic", align_corners=True)
    return out[0, 0]


def _smoothstep(x: torch.Tensor) -> torch.Tensor:
    return x * x * (3.0 - 2.0 * x)


def _smoothed(field: torch.Tensor, size: int) -> torch.Tensor:
    small = F.interpolate(field[None, None], size=(24, 24), mode="area")
    return F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False)[0, 0]


def _background_relief(seed: int, theme: str, size: int, device: torch.device) -> torch.Tensor:
    """Folds: ridged, warped noise; in a bowel lumen, rings around its far end."""
    broad = fractal(seed, "relief", size, 6, 3, device)
    push = 0.10 * smooth_noise(seed, "fold.x", size, 7, device)
    ridge = warp(smooth_noise(seed, "fold", size, 11, device), push, push.flip(0))
    folds = (1.0 - ridge.abs() * 2.2).clamp_(0.0, 1.0).square_()
    if theme != "polypectomy":
        return 0.8 * broad + 0.55 * folds
    radius = _lumen_radius(seed, size, device)
    return 0.35 * broad + 1.1 * torch.sqrt(
        torch.sin(9.0 * torch.sqrt(radius.clamp_min(0.0) + 0.05)) ** 2 + 0.03
    )


def _lumen_radius(seed: int, size: int, device: torch.device) -> torch.Tensor:
    axis = torch.linspace(-EXTENT, EXTENT, size, device=device)
    x0 = uniform_one(seed, "lumen.x", low=-0.35, high=0.35)
    y0 = uniform_one(seed, "lumen.y", low=-0.30, high=0.30)
    wobble = 0.10 * smooth_noise(seed, "lumen", size, 9, device)
    return torch.sqrt((axis[None, :] - x0) ** 2 + (axis[:, None] - y0) ** 2 + 1e-6) + wobble


def _lumen_shade(seed: int, size: int, device: torch.device) -> torch.Tensor:
    radius = _lumen_radius(seed, size, device)
    return (radius / 0.75).clamp_(0.03, 1.0)


def _slopes(height: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take the relief's slopes, bounded, and how hollow each place is (negative on crests)."""
    texel = 2.0 * EXTENT / size
    padded = F.pad(height[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    slope_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) / (2.0 * texel)
    slope_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / (2.0 * texel)
    small = F.interpolate(height[None, None], size=(96, 96), mode="area")
    blurred = F.avg_pool2d(F.pad(small, (3, 3, 3, 3), mode="replicate"), 7, stride=1)
    mean = F.interpolate(blurred, size=(size, size), mode="bilinear")[0, 0]
    hollow = ((mean - height) / 0.10).clamp_(-0.3, 1.0)
    bound = torch.sqrt(1.0 + 0.30 * (slope_x**2 + slope_y**2))
    return slope_x / bound, slope_y / bound, hollow


def _blood_reach(seed: int, size: int, device: torch.device, height: torch.Tensor) -> torch.Tensor:
    """How far blood must have spread to reach each place: 0 at the sources, about 1 a unit away."""
    axis = torch.linspace(-EXTENT, EXTENT, size, device=device)
    rough = fractal(seed, "blood", size, 30, 3, device)
    reach = torch.full((size, size), 9.0, device=device)
    for i in range(3):
        x = axis[None, :] - uniform_one(seed, "blood.x", i, low=-0.8, high=0.8)
        y = axis[:, None] - uniform_one(seed, "blood.y", i, low=-0.6, high=0.6)
        # Runs downhill in the picture: shorter reach below the source than above it.
        down = torch.where(y > 0, y * 0.55, y * 1.5)
        late = uniform_one(seed, "blood.late", i, low=0.0, high=0.35) * (i > 0)
        reach = torch.minimum(reach, torch.sqrt(x * x + down * down + 1e-6) + late)
    pooled = 1.1 * (height - height.mean()) / RELIEF
    return (reach * (1.0 + 0.35 * rough) + 0.10 * pooled).clamp_min_(0.0)
