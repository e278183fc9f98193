"""Several sources as one, by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2s_training.data.clip import Clip, ClipSource, randomness, take
from sam2s_training.data.errors import DataSettingError

STREAM = 7003  # tells these random numbers from others of the same seed
BLOCK = 100  # clips in which each source has its share, to the nearest clip


class Part(NamedTuple):
    """A source and how often it is drawn, relative to the others."""

    source: ClipSource
    weight: float


class MixtureSource:
    """Clips of several sources, in each block of 100 exactly as many as the weights say.

    Within a block the order is random. Each source gives its own clips one after the other, so a
    source that goes through its videos in epochs still does.
    """

    def __init__(self, parts: Mapping[str, Part], *, seed: int = 0) -> None:
        self.parts, self.seed = dict(parts), seed
        self._sources = [part.source for part in self.parts.values()]
        self._counts = _shares({name: part.weight for name, part in self.parts.items()})

    def sample(self, index: int) -> Clip:
        """Give clip `index` of the mixture."""
        which, number = self.locate(index)
        return self._sources[which].sample(number)

    def samples(self, indices: Sequence[int]) -> list[Clip]:
        """Give several clips, each source's in one go."""
        places = [self.locate(index) for index in indices]
        clips: dict[int, Clip] = {}
        for which, source in enumerate(self._sources):
            wanted = [i for i, place in enumerate(places) if place[0] == which]
            if wanted:
                made = take(source, [places[i][1] for i in wanted])
                clips.update(zip(wanted, made, strict=True))
        return [clips[i] for i in range(len(indices))]

    def locate(self, index: int) -> tuple[int, int]:
        """Say which source gives clip `index`, and which of its own clips that is."""
        block, place = divmod(index, BLOCK)
        order = np.repeat(np.arange(len(self._counts)), self._counts)
        randomness(self.seed, STREAM, block).shuffle(order)
        which = int(order[place])
        before = int((order[:place] == which).sum())
        return which, block * int(self._counts[which]) + before


def _shares(weights: Mapping[str, float]) -> NDArray[np.int64]:
    """Divide a block by weight, the largest remainders rounded up: int64 [sources]."""
    if not weights:
        raise DataSettingError("a mixture of no sources; name at least one")
    for name, weight in weights.items():
        if not weight > 0 or not np.isfinite(weight):
            raise DataSettingError(
                f"the weight of {name!r} is {weight}; it must be above 0, or leave the source out"
            )
    total = sum(weights.values())
    exact = np.array(list(weights.values())) / total * BLOCK
    counts = np.floor(exact).astype(np.int64)
    most = np.argsort(counts - exact, kind="stable")
    counts[most[: BLOCK - counts.sum()]] += 1
    for name, count in zip(weights, counts, strict=True):
        if not count:
            raise DataSettingError(
                f"the weight of {name!r}, {weights[name]} of {total:g}, is less than one clip in "
                f"{BLOCK}; raise it, or leave the source out"
            )
    return counts
