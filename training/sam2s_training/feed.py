"""From a phase's `data` section to batches of clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sam2s_training.data.clip import Clip, take
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.synthetic import SyntheticSettings, SyntheticSource
from sam2s_training.distributed import World


@dataclass(frozen=True)
class DataSettings:
    """Where clips come from."""

    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)


@dataclass(frozen=True)
class Batch:
    """Clips of one micro-step, and their numbers."""

    clips: list[Clip]
    indices: list[int]


def batches(
    settings: DataSettings,
    *,
    size: int,
    seed: int,
    instruments: Sequence[str],
    batch: int,
    first: int,
    world: World,
) -> Iterator[Batch]:
    """Give this process's batches, for ever.

    Of `n = batch · world.size` clips in a row from `first` on, process r takes those numbered
    first + r, first + r + world.size, …: all processes together have what one would have.
    """
    source = SyntheticSource(
        size,
        settings.synthetic,
        settings.sampler,
        seed=seed,
        instruments=instruments,
        device=world.device,
    )
    while True:
        indices = [first + world.rank + k * world.size for k in range(batch)]
        yield Batch(take(source, indices), indices)
        first += batch * world.size
