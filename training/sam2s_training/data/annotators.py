"""Simulated annotators: people who draw the borders of the same target differently.

Each annotator has habits that last: draws a little outside or inside the border, rounds corners
off, and wavers. What an annotator draws of a clip differs a little from frame to frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2s_training.data.augment import blur
from sam2s_training.data.clip import Clip, ClipSource, randomness, take
from sam2s_training.data.errors import DataSettingError

STREAM = 7002  # tells these random numbers from others of the same seed and clip
SPREAD = 0.7  # blur over the distance that a border moves; less, and it could not be moved so far
MIN_SIGMA = 0.3  # pixels; less moves no border by half a pixel
FINER = 3  # points of the wavering's curve between two of its random nodes


@dataclass(frozen=True)
class AnnotatorSettings:
    """Who annotates, and how far from the truth. Lengths are shares of the picture's size."""

    annotators: int = 4  # different people; each clip is drawn by one of them
    grow: float = 0.010  # border drawn outside (or, half of the people, inside) by up to this
    smooth: float = 0.008  # detail that is rounded off, up to
    jitter: float = 0.008  # amplitude of the hand's wavering, up to
    waves: float = 0.06  # length over which the hand wavers
    per_frame: float = 0.5  # share of the wavering that is new in each frame, 0 to 1

    def __post_init__(self) -> None:
        if self.annotators < 1:
            raise DataSettingError(f"{self.annotators} annotators; at least 1")
        for name in ("grow", "smooth", "jitter"):
            if not 0 <= getattr(self, name) <= 0.1:
                raise DataSettingError(
                    f"annotators' {name} is {getattr(self, name)}; a length is 0 to 0.1 of the "
                    "picture"
                )
        if not 0 < self.waves <= 1:
            raise DataSettingError(f"annotators' waves is {self.waves}; above 0, up to 1")
        if not 0 <= self.per_frame <= 1:
            raise DataSettingError(f"annotators' per_frame is {self.per_frame}; a share is 0 to 1")


@dataclass(frozen=True)
class Annotator:
    """One person's habits; lengths in shares of the picture's size."""

    grow: float  # positive: outside the border
    smooth: float
    jitter: float

    @staticmethod
    def number(which: int, settings: AnnotatorSettings, seed: int) -> Annotator:
        """Make annotator `which`, who is the same in every clip."""
        random = randomness(seed, STREAM, which)
        # Turns in and out, so that few people differ too.
        sign = 1 - 2 * (which % 2)
        grow, smooth, jitter = random.uniform(0.3, 1.0, 3)
        return Annotator(
            sign * grow * settings.grow, smooth * settings.smooth, jitter * settings.jitter
        )


class AnnotatedSource:
    """Another source's clips, their masks as simulated annotators would draw them."""

    def __init__(
        self, source: ClipSource, settings: AnnotatorSettings | None = None, *, seed: int = 0
    ) -> None:
        self.source, self.settings, self.seed = source, settings or AnnotatorSettings(), seed
        self.people = [
            Annotator.number(which, self.settings, seed)
            for which in range(self.settings.annotators)
        ]

    def sample(self, index: int) -> Clip:
        """Give clip `index`, drawn by one of the annotators."""
        return self.samples([index])[0]

    def samples(self, indices: Sequence[int]) -> list[Clip]:
        """Give several clips, each drawn by one of the annotators."""
        return [
            self._annotate(clip, randomness(self.seed, STREAM, index, 0))
            for index, clip in zip(indices, take(self.source, indices), strict=True)
        ]

    def _annotate(self, clip: Clip, random: np.random.Generator) -> Clip:
        person = self.people[int(random.integers(len(self.people)))]
        return replace(clip, masks=annotate(clip.masks, person, self.settings, random))


def annotate(
    masks: Tensor, person: Annotator, settings: AnnotatorSettings, random: np.random.Generator
) -> Tensor:
    """Draw masks bool [N, T, S, S] anew as a person would."""
    height, width = masks.shape[2:]
    seed = int(random.integers(2**62))
    if not len(masks):
        return masks
    sigma = height * max(person.smooth, SPREAD * (abs(person.grow) + person.jitter))
    if sigma < MIN_SIGMA:
        return masks
    offset = person.grow * height + person.jitter * height * _waves(
        masks, max(2, round(1 / settings.waves)), settings.per_frame, seed
    )
    # A straight border, blurred by a Gaussian, is the normal distribution of the distance to it;
    # so the level that the new border follows says how far it lies from the old one.
    level = torch.special.ndtr(-offset / sigma)
    level = F.interpolate(level, size=(height, width), mode="bilinear", align_corners=False)
    drawn = blur(masks.float(), sigma) > level.clamp(1e-3, 1 - 1e-3)
    reach = height * (abs(person.grow) + person.jitter + person.smooth)
    return drawn | (masks & ~_near(drawn, max(2, int(np.ceil(reach)))))


def _near(masks: Tensor, reach: int) -> Tensor:
    """Find what lies within `reach` to twice `reach` pixels of a mask: bool [N, T, S, S].

    Nobody misses what is further than that: a thin part that the blur swallowed is drawn as it is.
    """
    height, width = masks.shape[2:]
    cells = F.max_pool2d(masks.float(), reach, ceil_mode=True)
    near = F.max_pool2d(cells, 3, stride=1, padding=1) > 0
    enlarged = near.repeat_interleave(reach, -2).repeat_interleave(reach, -1)
    return enlarged[..., :height, :width]


def _waves(masks: Tensor, cells: int, per_frame: float, seed: int) -> Tensor:
    """Draw a coarse smooth field a target and frame, of deviation about 1: [N, T, C, C]."""
    targets, frames = masks.shape[:2]
    generator = torch.Generator(masks.device).manual_seed(seed)

    def draw(*lead: int) -> Tensor:
        return torch.randn(*lead, cells, cells, generator=generator, device=masks.device)

    field = (1 - per_frame) ** 0.5 * draw(targets, 1) + per_frame**0.5 * draw(targets, frames)
    return F.interpolate(field, scale_factor=FINER, mode="bicubic", align_corners=False)
