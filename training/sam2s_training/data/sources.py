"""From settings to a source: one or several parts, mixed by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sam2s_model.classes import INSTRUMENTS
from sam2s_training.data.clip import ClipSource
from sam2s_training.data.errors import DataSettingError
from sam2s_training.data.folder import FolderSettings, FolderSource
from sam2s_training.data.mixture import MixtureSource, Part
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.shards import ShardSettings, ShardSource
from sam2s_training.data.synthetic import SyntheticSettings, SyntheticSource

PART_SEEDS = 1_000_003  # from one part's seed to the next, so that no two render the same scenes


@dataclass(frozen=True)
class PartSettings:
    """One part of the training data: exactly one of its kinds."""

    weight: float = 1.0  # share of the clips, relative to the other parts
    synthetic: SyntheticSettings | None = None
    folder: FolderSettings | None = None
    shards: ShardSettings | None = None

    def __post_init__(self) -> None:
        kinds = {k: getattr(self, k) is not None for k in ("synthetic", "folder", "shards")}
        if sum(kinds.values()) != 1:
            given = ", ".join(k for k, there in kinds.items() if there) or "none"
            raise DataSettingError(
                f"a part of the data is one of {', '.join(kinds)}; {given} given (write "
                "`synthetic: {}` for the simulated endoscope with its defaults)"
            )


def open_source(
    parts: Mapping[str, PartSettings],
    size: int,
    sampler: SamplerSettings,
    *,
    seed: int = 0,
    instruments: Sequence[str] = INSTRUMENTS,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> ClipSource:
    """Open all parts, which checks them, and mix them by weight.

    Args:
        parts: by name; their order matters for the seeds.
        size: S, pixels of the network's square input.
        sampler: which frames make a clip; shards must have been rendered with as many.
        seed: of scenes, frames, targets and order.
        instruments: the text bank's instruments, in its order.
        device: where the simulated endoscope renders.
        progress: show a progress bar while files are checked.
    """
    opened: dict[str, Part] = {}
    for number, (name, part) in enumerate(parts.items()):
        own = seed + number * PART_SEEDS
        source: ClipSource
        if part.synthetic is not None:
            source = SyntheticSource(
                size, part.synthetic, sampler, seed=own, instruments=instruments, device=device
            )
        elif part.folder is not None:
            source = FolderSource(
                size, part.folder, sampler, seed=own, instruments=instruments, progress=progress
            )
        elif part.shards is not None:
            source = ShardSource(
                part.shards.folder,
                seed=own,
                instruments=instruments,
                size=size,
                frames=sampler.frames,
                window=part.shards.window,
            )
        opened[name] = Part(source, part.weight)
    if len(opened) == 1:
        return next(iter(opened.values())).source
    return MixtureSource(opened, seed=seed)
