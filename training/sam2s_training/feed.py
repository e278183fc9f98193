"""From a phase's `data` section to batches of clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sam2s_training.data.annotators import AnnotatedSource, AnnotatorSettings
from sam2s_training.data.augment import AugmentedSource, AugmentSettings
from sam2s_training.data.clip import ClipSource
from sam2s_training.data.errors import DataSettingError
from sam2s_training.data.loader import Loader, LoaderSettings
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.shards import Codec, Manifest, write_shards
from sam2s_training.data.sources import PartSettings, open_source
from sam2s_training.data.synthetic import SyntheticSettings
from sam2s_training.distributed import World
from sam2s_training.schema import plain


def _rendered() -> dict[str, PartSettings | None]:
    return {"endoscope": PartSettings(synthetic=SyntheticSettings())}


@dataclass(frozen=True)
class DataSettings:
    """Where clips come from, what happens to them, and who makes them."""

    # Sources by any name, mixed by weight; null leaves one out that the defaults of the recipe
    # have. Each is one of: synthetic (the simulated endoscope), folder (DAVIS layout), shards.
    parts: dict[str, PartSettings | None] = field(default_factory=_rendered)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    augment: AugmentSettings | None = None  # None: clips as they are
    annotators: AnnotatorSettings | None = None  # who draws all masks anew; None: as they are
    loader: LoaderSettings = field(default_factory=LoaderSettings)

    def __post_init__(self) -> None:
        if not any(self.parts.values()):
            raise DataSettingError(
                "no source; name at least one, such as parts: {endoscope: {synthetic: {}}}"
            )


def make_source(
    settings: DataSettings,
    *,
    size: int,
    seed: int,
    instruments: Sequence[str],
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> ClipSource:
    """Build a phase's source; what is on disk is checked.

    Args:
        settings: the phase's `data` section.
        size: side of the clips, pixels.
        seed: the recipe's.
        instruments: of the text bank, in its order.
        device: where the simulated endoscope is rendered.
        progress: show a bar while folders are checked.
    """
    source = open_source(
        {name: part for name, part in settings.parts.items() if part is not None},
        size,
        settings.sampler,
        seed=seed,
        instruments=instruments,
        device=device,
        progress=progress,
    )
    # An annotator draws what was there to see, before the picture is changed.
    if settings.annotators is not None:
        source = AnnotatedSource(source, settings.annotators, seed=seed)
    if settings.augment is not None:
        source = AugmentedSource(source, settings.augment, seed=seed)
    return source


def open_loader(
    settings: DataSettings,
    *,
    size: int,
    seed: int,
    instruments: Sequence[str],
    batch: int,
    first: int,
    world: World,
) -> Loader:
    """Open the data of a phase.

    Args:
        settings: the phase's `data` section.
        size: side of the clips, pixels.
        seed: the recipe's.
        instruments: of the text bank, in its order.
        batch: clips per process and micro-step.
        first: number of the first clip, over all processes.
        world: the processes that train together.
    """
    # Worker processes render on the CPU; a thread, or nobody, where the training computes.
    device = "cpu" if settings.loader.ahead == "processes" else world.device
    return Loader(
        make_source(settings, size=size, seed=seed, instruments=instruments, device=device),
        batch,
        settings.loader,
        first=first,
        rank=world.rank,
        world=world.size,
        device=world.device,
    )


def write_phase_shards(
    settings: DataSettings,
    folder: Path,
    clips: int,
    *,
    size: int,
    seed: int,
    instruments: Sequence[str],
    codec: Codec = "jpeg",
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Manifest:
    """Render a phase's clips to disk as their sources give them.

    Augmentation and annotators are left to the training, and so differ each time a clip is read.

    Args:
        settings: the phase's `data` section.
        folder: where the shards go.
        clips: how many.
        size: side of the clips, pixels.
        seed: the recipe's.
        instruments: of the text bank, in its order.
        codec: of the pictures.
        device: where the simulated endoscope is rendered, unless by worker processes.
        progress: show a bar.
    """
    plainly = replace(settings, augment=None, annotators=None)
    place = "cpu" if settings.loader.ahead == "processes" else device
    what = {"parts": plain(settings.parts), "sampler": plain(settings.sampler)}
    return write_shards(
        make_source(plainly, size=size, seed=seed, instruments=instruments, device=place),
        folder,
        clips,
        origin=json.dumps({**what, "size": size, "seed": seed}),
        loader=settings.loader,
        codec=codec,
        instruments=instruments,
        progress=progress,
    )
