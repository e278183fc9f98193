"""Prompts as a user would give them, drawn from true masks, and clicks that correct errors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2s_model.errors import Sam2sError
from sam2s_model.prompt import BOX_FIRST, BOX_LAST, NEGATIVE, NOT_A_POINT, POSITIVE

CLICK, BOX, MASK = "click", "box", "mask"
EROSIONS = (1, 2, 4, 8, 16)  # pixels taken off a region, in turn, on the way to its middle


class PromptSettingsError(Sam2sError):
    """Prompt settings that cannot work."""


@dataclass(frozen=True)
class PromptSettings:
    """How targets are marked and corrected in training."""

    click: float = 0.6  # shares of the prompts that begin a target; they are scaled to sum to 1
    box: float = 0.2
    mask: float = 0.2
    more_clicks: float = (
        0.5  # share of targets begun by clicks or a box that get further clicks ...
    )
    max_clicks: int = 2  # ... on the same frame, this many at most
    correct: float = 0.3  # share of clips with corrective clicks on later frames ...
    max_corrected: int = 2  # ... on this many frames at most
    late: float = 0.15  # share of targets whose first prompt comes later than on the first frame
    middle: float = 0.5  # share of clicks in the middle of a region; the others lie anywhere in it
    box_jitter: float = 0.1  # standard deviation of a box's corners, in sides of the box

    def __post_init__(self) -> None:
        if min(self.click, self.box, self.mask) < 0 or self.click + self.box + self.mask <= 0:
            raise PromptSettingsError(
                "the shares of click, box and mask must not be negative, and one must be above 0"
            )
        for name in ("more_clicks", "correct", "late", "middle"):
            if not 0 <= getattr(self, name) <= 1:
                raise PromptSettingsError(f"{name} is {getattr(self, name)}; it must lie in 0..1")


class Dice:
    """One clip's source of chance: the same seed, the same prompts in any batch."""

    def __init__(self, seed: int) -> None:
        self.python = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def chance(self, share: float) -> bool:
        """Be true as often as `share` says."""
        return self.python.random() < share

    def noise(self, size: int) -> Tensor:
        """Uniform numbers in (0, 1]: [size, size]."""
        return 1 - torch.rand(size, size, generator=self.torch)


def kind_of_prompt(settings: PromptSettings, dice: Dice) -> str:
    """Draw what a target begins with."""
    shares = (settings.click, settings.box, settings.mask)
    return dice.python.choices((CLICK, BOX, MASK), shares)[0]


def frames_to_correct(settings: PromptSettings, frames: int, dice: Dice) -> set[int]:
    """Draw the later frames of a clip on which errors are corrected."""
    if frames < 2 or not settings.max_corrected or not dice.chance(settings.correct):
        return set()
    count = dice.python.randint(1, min(settings.max_corrected, frames - 1))
    return set(dice.python.sample(range(1, frames), count))


def first_frame(visible: Sequence[bool], settings: PromptSettings, dice: Dice) -> int:
    """Draw the frame on which a target is prompted; their number if it is never visible.

    A late prompt leaves at least one frame to be tracked.
    """
    seen = [frame for frame, there in enumerate(visible) if there]
    if not seen:
        return len(visible)
    later = [frame for frame in seen[1:] if frame < len(visible) - 1]
    if later and dice.chance(settings.late):
        return dice.python.choice(later)
    return seen[0]


def clicks(regions: Tensor, settings: PromptSettings, dice: Sequence[Dice]) -> Tensor:
    """Click into each region [N, S, S] bool: pixels x, y as [N, 2] float; anything if it is empty.

    A click lies anywhere in its region, or in what is left of it after as many erosions as it
    bears.
    """
    middle = [d.chance(settings.middle) for d in dice]
    if any(middle):
        deep = torch.tensor([i for i, wanted in enumerate(middle) if wanted], device=regions.device)
        regions = regions.index_copy(0, deep, _middle(regions[deep]))
    size = regions.shape[-1]
    noise = torch.stack([d.noise(size) for d in dice]).to(regions.device)
    pixel = (noise * regions).flatten(1).argmax(1)
    return torch.stack((pixel % size, pixel // size), dim=1).float()


def _middle(regions: Tensor) -> Tensor:
    """Erode each region [N, S, S] bool until the next erosion would leave nothing."""
    current = regions
    for radius in EROSIONS:
        inner = _eroded(current, radius)
        left = inner.flatten(1).any(1)
        current = torch.where(left[:, None, None], inner, current)
    return current


def _eroded(regions: Tensor, radius: int) -> Tensor:
    """Keep the pixels of regions [N, S, S] bool whose square around lies in the region.

    Runs of pixels are joined to runs of twice the length, whatever the square's size.
    """
    side = 2 * radius + 1
    inner = F.pad(regions, (radius, radius, radius, radius))  # nothing lies beyond the border
    for axis in (1, 2):
        run = 1
        while run < side:
            step = min(run, side - run)
            count = inner.shape[axis] - step
            inner = inner.narrow(axis, 0, count) & inner.narrow(axis, step, count)
            run += step
    return inner


def corrections(
    truth: Tensor, drawn: Tensor, settings: PromptSettings, dice: Sequence[Dice]
) -> tuple[Tensor, Tensor, Tensor]:
    """Click where each mask is wrong: into the larger of what is missing and what is too much.

    Args:
        truth: [N, S, S] bool.
        drawn: [N, S, S] bool.
        settings: how clicks are placed.
        dice: one per mask.

    Returns:
        Pixels [N, 2], labels [N] and whether there was anything to correct [N].
    """
    missing, extra = truth & ~drawn, drawn & ~truth
    lacking = missing.flatten(1).sum(1) > extra.flatten(1).sum(1)
    region = torch.where(lacking[:, None, None], missing, extra)
    xy = clicks(region, settings, dice)
    labels = torch.where(lacking, POSITIVE, NEGATIVE)
    return xy, labels, region.flatten(1).any(1)


def boxes(masks: Tensor, settings: PromptSettings, dice: Sequence[Dice]) -> Tensor:
    """Draw a box around each mask [N, S, S] bool, not quite exactly: corners [N, 2, 2]."""
    size = masks.shape[-1]
    ends = []
    for seen in (masks.any(1), masks.any(2)):  # over columns: x; over rows: y
        seen = seen.float()
        ends.append(torch.stack((seen.argmax(1), size - seen.flip(1).argmax(1)), dim=1))
    corners = torch.stack(ends, dim=2).float()  # [N, first and last, x and y]
    sides = (corners[:, 1] - corners[:, 0])[:, None]
    noise = torch.stack([torch.randn(2, 2, generator=d.torch) for d in dice]).to(masks.device)
    moved = corners + noise.clamp(-2, 2) * settings.box_jitter * sides
    return moved.clamp(0, size)


def point_tokens(
    points: Sequence[Tensor], labels: Sequence[Tensor], absent: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pad point tokens to one length: xy [N, P, 2] and labels [N, P].

    Points are followed by one token that says there are no more; no points at all are one more of
    them. What is left is filled with `absent`.
    """
    length = max(max(len(kinds), 1) + 1 for kinds in labels)
    xy = torch.zeros(len(labels), length, 2, device=device)
    kind = torch.full((len(labels), length), absent, device=device)
    for i, (places, kinds) in enumerate(zip(points, labels, strict=True)):
        count = len(kinds)
        xy[i, :count] = places
        kind[i, :count] = kinds
        kind[i, count : max(count, 1) + 1] = NOT_A_POINT
    return xy, kind


def box_labels(device: torch.device) -> Tensor:
    """The labels of a box's two corners."""
    return torch.tensor([BOX_FIRST, BOX_LAST], device=device)
