"""From a phase's `data` section to batches of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sam2s_training.data.annotators import AnnotatedSource, AnnotatorSettings
from sam2s_training.data.augment import AugmentedSource, AugmentSettings
from sam2s_training.data.clip import ClipSource
from sam2s_training.data.errors import DataSettingError
from sam2s_training.data.folder import FolderSettings, FolderSource
from sam2s_training.data.loader import Loader, LoaderSettings
from sam2s_training.data.mixture import MixtureSource, Part
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.synthetic import SyntheticSettings, SyntheticSource
from sam2s_training.distributed import World


@dataclass(frozen=True)
class SyntheticPart(SyntheticSettings):
    """The simulated endoscope's share of a mixture."""

    weight: float = 1.0  # how often it is drawn, relative to the other sources


@dataclass(frozen=True)
class FolderPart(FolderSettings):
    """A folder's share of a mixture."""

    weight: float = 1.0  # how often it is drawn, relative to the other sources


@dataclass(frozen=True)
class DataSettings:
    """Where clips come from, what happens to them, and who makes them."""

    synthetic: SyntheticPart | None = field(default_factory=SyntheticPart)  # None: none of it
    folders: dict[str, FolderPart] = field(default_factory=dict)  # in DAVIS layout, by any name
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    augment: AugmentSettings | None = None  # None: clips as they are
    annotators: AnnotatorSettings | None = None  # who draws the simulated endoscope's masks anew
    loader: LoaderSettings = field(default_factory=LoaderSettings)

    def __post_init__(self) -> None:
        if self.synthetic is None and not self.folders:
            raise DataSettingError("no source: leave synthetic in, or name folders")


def make_source(
    settings: DataSettings,
    *,
    size: int,
    seed: int,
    instruments: Sequence[str],
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> ClipSource:
    """Build a phase's source; folders are checked.

    Args:
        settings: the phase's `data` section.
        size: side of the clips, pixels.
        seed: the recipe's.
        instruments: of the text bank, in its order.
        device: where the simulated endoscope is rendered.
        progress: show a bar while folders are checked.
    """
    parts: dict[str, Part] = {}
    if settings.synthetic is not None:
        rendered: ClipSource = SyntheticSource(
            size,
            settings.synthetic,
            settings.sampler,
            seed=seed,
            instruments=instruments,
            device=device,
        )
        # An annotator draws what was there to see, before the picture is changed.
        if settings.annotators is not None:
            rendered = AnnotatedSource(rendered, settings.annotators, seed=seed)
        parts["synthetic"] = Part(rendered, settings.synthetic.weight)
    for name, folder in settings.folders.items():
        read = FolderSource(
            size,
            folder,
            settings.sampler,
            seed=seed,
            instruments=instruments,
            progress=progress,
        )
        parts[f"folder {name}"] = Part(read, folder.weight)
    alone = len(parts) == 1
    source = next(iter(parts.values())).source if alone else MixtureSource(parts, seed=seed)
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
