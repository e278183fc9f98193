"""Augmentation that is consistent over a clip: one draw for all its frames.

Geometry moves pictures and masks alike; colour, blur and noise touch pictures alone. A small jitter
from frame to frame can be added to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2s_training.data.clip import Clip, ClipSource, randomness, take
from sam2s_training.data.errors import DataSettingError

STREAM = 7001  # tells these random numbers from others of the same seed and clip
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in brightness
PLANE_BITS = 24  # targets that fit into the exact whole numbers of float32
PIVOT = 0.45  # brightness that a change of contrast leaves alone, about a surgical picture's mean


@dataclass(frozen=True)
class AugmentSettings:
    """How far clips are changed; 0 switches a change off."""

    flip: float = 0.5  # probability of a mirror image, left and right swapped
    flip_vertical: float = 0.0  # the same, top and bottom; scenes rarely stand on their heads
    geometry: float = 0.5  # probability of the affine changes that follow
    rotate: float = 20.0  # degrees, to either side
    zoom: tuple[float, float] = (0.8, 1.5)  # magnification; below 1 shows a black border
    aspect: float = 0.2  # up to 1.2 times wider or narrower
    shear: float = 0.1  # sideways shift over the picture's height
    shift: float = 0.15  # of the picture, share of its size
    shake: float = 0.0  # shift from frame to frame, standard deviation, share of the picture
    round: float = 0.0  # probability of a round picture, black outside, as endoscopes give it
    round_radius: tuple[float, float] = (0.75, 1.15)  # of it, in half picture sides
    colour: float = 0.8  # probability of the changes of colour that follow
    brightness: float = 0.25  # factor up to 1.25 brighter or darker
    contrast: float = 0.25
    saturation: float = 0.3
    hue: float = 12.0  # degrees on the colour wheel, to either side
    gamma: float = 0.2  # exponent up to 1.2 or 1/1.2
    tint: float = 0.15  # factor up to 1.15 for red, green and blue each: white balance, filters
    grey: float = 0.02  # probability of a picture without colours
    flicker: float = 0.03  # brightness from frame to frame, standard deviation
    shade: float = 0.3  # light is lost towards the far side of a point in the picture, up to this
    blur: float = 0.15  # probability of a blur
    blur_sigma: float = 0.006  # widest blur, share of the picture
    noise: float = 0.25  # probability of noise
    noise_sigma: float = 0.04  # strongest noise, share of full scale
    min_pixels: int = 20  # a target with fewer on the first frame is left out of the clip

    def __post_init__(self) -> None:
        for name in (
            *("flip", "flip_vertical", "geometry", "round"),
            *("colour", "grey", "blur", "noise"),
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise DataSettingError(
                    f"augment {name} is {getattr(self, name)}; a probability is 0 to 1"
                )
        for name in (
            *("rotate", "aspect", "shear", "shift", "shake", "brightness", "contrast"),
            *("saturation", "hue", "gamma", "tint", "shade", "flicker", "blur_sigma"),
            *("noise_sigma", "min_pixels"),
        ):
            if getattr(self, name) < 0:
                raise DataSettingError(
                    f"augment {name} is {getattr(self, name)}; it must not be negative"
                )
        if self.shade >= 1:
            raise DataSettingError(f"augment shade is {self.shade}; it must lie below 1")
        for name in ("zoom", "round_radius"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise DataSettingError(
                    f"augment {name} is {(low, high)}; expected [low, high], both above 0"
                )


class AugmentedSource:
    """Another source's clips, changed at random; the same index, the same change."""

    def __init__(
        self, source: ClipSource, settings: AugmentSettings | None = None, *, seed: int = 0
    ) -> None:
        self.source, self.settings, self.seed = source, settings or AugmentSettings(), seed

    def sample(self, index: int) -> Clip:
        """Give clip `index`, changed."""
        return self.samples([index])[0]

    def samples(self, indices: Sequence[int]) -> list[Clip]:
        """Give several clips, changed."""
        return [
            augment(clip, self.settings, randomness(self.seed, STREAM, index))
            for index, clip in zip(indices, take(self.source, indices), strict=True)
        ]


def augment(clip: Clip, settings: AugmentSettings, random: np.random.Generator) -> Clip:
    """Change a clip by one draw of `random`.

    A target that leaves the first frame is left out; if none would stay, the geometry is kept.
    """
    # All draws come first and always: switching one change off leaves the others as they were.
    flips = random.random(2) < (settings.flip, settings.flip_vertical)
    affine = _draw_affine(settings, len(clip.images), random)
    colour = _Colour.draw(settings, len(clip.images), random)
    rim = _draw_rim(settings, random)
    clip = _flipped(clip, *(bool(flip) for flip in flips))
    if affine is not None:
        clip = _warped(clip, affine, settings.min_pixels)
    clip = replace(clip, images=colour.apply(clip.images))
    return clip if rim is None else _rimmed(clip, rim, settings.min_pixels)


def _flipped(clip: Clip, horizontal: bool, vertical: bool) -> Clip:
    axes = [-1] * horizontal + [-2] * vertical
    if not axes:
        return clip
    return replace(clip, images=clip.images.flip(axes), masks=clip.masks.flip(axes))


def _draw_affine(
    settings: AugmentSettings, frames: int, random: np.random.Generator
) -> Tensor | None:
    """Draw the map from output to input positions, both −1 … 1: float32 [T, 2, 3]."""
    s = settings
    wanted = random.random() < s.geometry
    angle = np.deg2rad(s.rotate) * random.uniform(-1, 1)
    zoom = np.exp(random.uniform(np.log(s.zoom[0]), np.log(s.zoom[1])))
    stretch = np.exp(np.log1p(s.aspect) * random.uniform(-1, 1) / 2)
    shear = s.shear * random.uniform(-1, 1)
    shift = 2 * s.shift * random.uniform(-1, 1, 2)
    shake = 2 * s.shake * random.normal(size=(frames, 2))
    if not wanted and not s.shake:
        return None
    linear = np.eye(2)
    if wanted:
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
        linear = linear @ np.diag([stretch, 1 / stretch]) / zoom
    offsets = shake + (shift if wanted else 0.0)  # [T, 2]
    maps = np.concatenate((np.broadcast_to(linear, (frames, 2, 2)), offsets[:, :, None]), axis=2)
    return torch.from_numpy(maps.astype(np.float32))


def _warped(clip: Clip, affine: Tensor, min_pixels: int) -> Clip:
    """Move pictures and masks; black and no target where the picture ends."""
    count, _, height, width = clip.images.shape
    # Without shake all frames share one map, so one grid is enough.
    maps = affine[:1] if bool((affine == affine[:1]).all()) else affine
    grid = F.affine_grid(
        maps.to(clip.images.device), [len(maps), 1, height, width], align_corners=False
    ).expand(count, height, width, 2)
    masks = _warped_masks(clip.masks, grid)
    kept = masks[:, 0].flatten(1).sum(1) >= max(min_pixels, 1)
    if not bool(kept.any()):
        return clip
    images = F.grid_sample(clip.images.float(), grid, mode="bilinear", align_corners=False)
    return replace(
        clip,
        images=images.round_().clamp_(0, 255).to(torch.uint8),
        masks=masks[kept],
        classes=clip.classes[kept],
    )


def _warped_masks(masks: Tensor, grid: Tensor) -> Tensor:
    """Move masks [N, T, S, S], each pixel the nearest one's."""
    out = []
    for start in range(0, len(masks), PLANE_BITS):
        part = masks[start : start + PLANE_BITS]
        # One bit a target: all are moved as one plane.
        values = 2.0 ** torch.arange(len(part), device=masks.device)
        plane = torch.tensordot(values, part.float(), 1)[:, None]
        moved = F.grid_sample(plane, grid, mode="nearest", align_corners=False)[:, 0].int()
        out += [(moved & (1 << bit)) != 0 for bit in range(len(part))]
    return torch.stack(out)


class _Rim(NamedTuple):
    """A round picture: −1 … 1 is the picture's width and height."""

    radius: float
    x: float
    y: float


def _draw_rim(settings: AugmentSettings, random: np.random.Generator) -> _Rim | None:
    wanted = random.random() < settings.round
    radius, (x, y) = random.uniform(*settings.round_radius), random.uniform(-0.1, 0.1, 2)
    return _Rim(float(radius), float(x), float(y)) if wanted else None


def _rimmed(clip: Clip, rim: _Rim, min_pixels: int) -> Clip:
    """Black and no target outside the circle; the clip as it is if no target would stay."""
    height, width = clip.images.shape[-2:]
    device = clip.images.device
    across = torch.linspace(-1.0, 1.0, width, device=device) - rim.x
    down = torch.linspace(-1.0, 1.0, height, device=device) - rim.y
    inside = across[None, :] ** 2 + down[:, None] ** 2 <= rim.radius**2
    masks = clip.masks & inside
    kept = masks[:, 0].flatten(1).sum(1) >= max(min_pixels, 1)
    if not bool(kept.any()):
        return clip
    return replace(clip, images=clip.images * inside, masks=masks[kept], classes=clip.classes[kept])


@dataclass(frozen=True)
class _Colour:
    """One draw of what happens to the pictures alone."""

    matrix: Tensor  # [T, 3, 3], RGB to RGB
    offset: Tensor  # [T, 3], of full scale
    gamma: float
    shade: float  # share of the light that is lost farthest from the centre
    centre: tuple[float, float]  # where no light is lost, x and y in −1 … 1
    sigma: float  # of the blur, share of the picture
    noise: float  # share of full scale
    noise_seed: int
    changes: bool  # whether colours change at all

    @staticmethod
    def draw(settings: AugmentSettings, frames: int, random: np.random.Generator) -> _Colour:
        s = settings
        wanted, grey, blurred, noisy = random.random(4) < (s.colour, s.grey, s.blur, s.noise)
        bright, contrast, saturation, gamma = (
            np.exp(np.log1p(amount) * random.uniform(-1, 1))
            for amount in (s.brightness, s.contrast, s.saturation, s.gamma)
        )
        hue = np.deg2rad(s.hue) * random.uniform(-1, 1)
        flicker = np.exp(s.flicker * random.normal(size=frames))  # [T]
        sigma, noise = s.blur_sigma * random.uniform(), s.noise_sigma * random.uniform()
        seed = int(random.integers(2**62))
        tint = np.exp(np.log1p(s.tint) * random.uniform(-1, 1, 3))
        shade, centre = s.shade * random.uniform(), random.uniform(-0.5, 0.5, 2)
        luma = np.broadcast_to(np.array(LUMA), (3, 3))
        matrix, offset, gains = np.eye(3), 0.0, np.ones(frames)
        if wanted:
            matrix = luma + saturation * (np.eye(3) - luma) @ _turn(hue)
            matrix = contrast * bright * tint[:, None] * matrix
            offset = PIVOT * (1 - contrast)
            gains = flicker
        if grey:
            matrix = luma @ matrix
        return _Colour(
            torch.from_numpy((gains[:, None, None] * matrix).astype(np.float32)),
            torch.from_numpy(np.repeat((gains * offset)[:, None], 3, 1).astype(np.float32)),
            float(gamma) if wanted else 1.0,
            float(shade) if wanted else 0.0,
            (float(centre[0]), float(centre[1])),
            float(sigma) if blurred else 0.0,
            float(noise) if noisy else 0.0,
            seed,
            bool(wanted or grey),
        )

    def apply(self, images: Tensor) -> Tensor:
        """Change pictures uint8 [T, 3, S, S]."""
        if not (self.changes or self.sigma or self.noise):
            return images
        device = images.device
        levels = torch.linspace(0.0, 1.0, 256, device=device) ** self.gamma
        x = levels[images.int()]  # a table is much faster than a power a pixel
        if self.changes:
            matrix, offset = self.matrix.to(device), self.offset[..., None].to(device)
            x = torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x)
        if self.shade:
            x = x * self._light(images.shape[-1], device)
        if self.sigma:
            x = blur(x, self.sigma * images.shape[-1])
        if self.noise:
            generator = torch.Generator(device).manual_seed(self.noise_seed)
            x = x + self.noise * torch.randn(x.shape, generator=generator, device=device)
        return x.clamp(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)

    def _light(self, side: int, device: torch.device) -> Tensor:
        """Tell the share of light that each pixel keeps: [S, S]."""
        line = torch.linspace(-1.0, 1.0, side, device=device)
        across, down = ((line - c) ** 2 for c in self.centre)
        distance = down[:, None] + across[None, :]
        return 1.0 - self.shade * distance / distance.max()


def _turn(angle: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Turn the hue: a rotation of RGB about the grey axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3.0)
    return np.asarray(cos * np.eye(3) + sin * cross + (1 - cos) / 3.0)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur [B, C, H, W] by a Gaussian of `sigma` pixels; the border repeats."""
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    weights = (kernel / kernel.sum()).tolist()
    height, width = x.shape[-2:]
    # A weighted sum of shifted copies: on a CPU several times faster than a convolution.
    padded = F.pad(x, (reach, reach, 0, 0), mode="replicate")
    rows = padded[..., :width] * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        rows.add_(padded[..., shift : shift + width], alpha=weight)
    padded = F.pad(rows, (0, 0, reach, reach), mode="replicate")
    out: Tensor = padded[..., :height, :] * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        out.add_(padded[..., shift : shift + height, :], alpha=weight)
    return out
