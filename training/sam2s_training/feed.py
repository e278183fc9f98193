"""From a phase's `data` section to batches of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sam2s_training.data.annotators import AnnotatedSource, AnnotatorSettings
from sam2s_training.data.augment import AugmentedSource, AugmentSettings
from sam2s_training.data.clip import ClipSource
from sam2s_training.data.loader import Loader, LoaderSettings
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.synthetic import SyntheticSettings, SyntheticSource
from sam2s_training.distributed import World


@dataclass(frozen=True)
class DataSettings:
    """Where clips come from, and who makes them."""

    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    augment: AugmentSettings | None = None  # None: clips as they are
    annotators: AnnotatorSettings | None = None  # None: masks as they are
    loader: LoaderSettings = field(default_factory=LoaderSettings)


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
    source: ClipSource = SyntheticSource(
        size,
        settings.synthetic,
        settings.sampler,
        seed=seed,
        instruments=instruments,
        device=device,
    )
    # An annotator draws what was there to see, before the picture is changed.
    if settings.annotators is not None:
        source = AnnotatedSource(source, settings.annotators, seed=seed)
    if settings.augment is not None:
        source = AugmentedSource(source, settings.augment, seed=seed)
    return Loader(
        source,
        batch,
        settings.loader,
        first=first,
        rank=world.rank,
        world=world.size,
        device=world.device,
    )
