"""One training sample, and the interface of whatever gives samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

NO_CLASS = -1  # a target without an instrument's label: tissue, or unknown


@dataclass(frozen=True)
class Clip:
    """T frames at the network's size with N targets, all on one device.

    The targets are prompted on frame 0, where each can be seen.
    """

    images: Tensor  # uint8 [T, 3, S, S] RGB
    masks: Tensor  # bool [N, T, S, S], one row a target; all False where it cannot be seen
    classes: Tensor  # int64 [N], index into the instruments of the text bank, or NO_CLASS
    name: str  # says where the clip comes from, for messages
    numbers: tuple[int, ...]  # frame numbers in the video, one per frame
    long: int = 0  # frames after the first that act as long-term memories (hybrid: scattered - 1)

    def to(self, device: torch.device | str) -> Clip:
        """Copy the clip to a device; from pinned memory without waiting."""
        images, masks, classes = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.images, self.masks, self.classes)
        )
        return replace(self, images=images, masks=masks, classes=classes)

    def pin_memory(self) -> Clip:
        """Copy the clip to pinned memory, from which a GPU copies without the CPU waiting."""
        return replace(
            self,
            images=self.images.pin_memory(),
            masks=self.masks.pin_memory(),
            classes=self.classes.pin_memory(),
        )


class ClipSource(Protocol):
    """Gives clips by number."""

    def sample(self, index: int) -> Clip:
        """Give clip `index` (any number from 0): the same index, the same clip."""


@runtime_checkable
class BatchSource(Protocol):
    """A source that makes several clips at once faster than one by one, as on a GPU."""

    def sample(self, index: int) -> Clip:
        """Give clip `index`."""

    def samples(self, indices: Sequence[int]) -> list[Clip]:
        """Give several clips, each as `sample` would."""


def take(source: ClipSource, indices: Sequence[int]) -> list[Clip]:
    """Give several clips, in one go where the source can."""
    if isinstance(source, BatchSource):
        return source.samples(indices)
    return [source.sample(index) for index in indices]


def randomness(seed: int, *keys: int) -> np.random.Generator:
    """Make the random numbers of one draw, a function of seed and keys alone."""
    return np.random.default_rng([seed, *keys])
