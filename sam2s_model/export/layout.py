"""Names, types and shapes of what goes into the exported graphs and comes out of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from sam2s_model.config import ModelConfig

# Dimensions that are chosen at run time.
TARGETS, SLOTS, POINTERS, SEEN, POINTS = "targets", "slots", "pointers", "slots+pointers", "points"

Shape = tuple[int | str, ...]


class Port(NamedTuple):
    """An input or output of a graph."""

    name: str
    dtype: torch.dtype
    shape: Shape  # a name where the size is chosen at run time

    def sized(self, sizes: Mapping[str, int]) -> list[int]:
        """The shape, with names replaced by sizes."""
        return [sizes[size] if isinstance(size, str) else size for size in self.shape]


class Ports(NamedTuple):
    """What a graph takes and gives."""

    inputs: list[Port]
    outputs: list[Port]


def stage_ports(config: ModelConfig, semantics: bool) -> dict[str, Ports]:
    """Describe the four stages of a model, in the order in which a frame passes them."""
    width, narrow = config.hidden_dim, config.memory_dim
    size, side = config.feature_size, config.image_size
    cells, mask = config.memory_size**2, config.mask_size
    real, whole, flag = torch.float32, torch.long, torch.bool
    coarse = Port("coarse", real, (1, width, size, size))
    fine_4 = Port("fine_4", real, (1, width // 8, 4 * size, 4 * size))
    fine_8 = Port("fine_8", real, (1, width // 4, 2 * size, 2 * size))
    conditioned = Port("conditioned", real, (TARGETS, width, size, size))
    vectors = [Port("semantics", real, (TARGETS, config.semantic_dim))] if semantics else []
    logits = Port("logits", real, (TARGETS, 1, mask, mask))
    score = Port("object_score", real, (TARGETS,))
    return {
        "encode_image": Ports(
            [Port("image", real, (1, 3, side, side))],
            [coarse, fine_4, fine_8],
        ),
        "attend_memory": Ports(
            [
                coarse,
                Port("spatial", real, (TARGETS, SLOTS, cells, narrow)),
                Port("role", whole, (TARGETS, SLOTS)),
                Port("pointers", real, (TARGETS, POINTERS, width)),
                Port("distance", real, (TARGETS, POINTERS)),
                Port("seen", flag, (TARGETS, SEEN)),
            ],
            [conditioned, *vectors],
        ),
        "decode": Ports(
            [
                fine_4,
                fine_8,
                conditioned,
                Port("xy", real, (TARGETS, POINTS, 2)),
                Port("labels", whole, (TARGETS, POINTS)),
                Port("masks", real, (TARGETS, 1, *[config.prompt_mask_size] * 2)),
                Port("mask_given", flag, (TARGETS,)),
                Port("ambiguous", flag, (TARGETS,)),
            ],
            [
                logits,
                Port("iou", real, (TARGETS,)),
                score,
                Port("pointer", real, (TARGETS, width)),
            ],
        ),
        "encode_memory": Ports(
            [coarse, logits, score, Port("binary", flag, (TARGETS,))],
            [Port("memory", real, (TARGETS, cells, narrow))],
        ),
    }
