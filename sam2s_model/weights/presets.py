"""Which preset a state dict belongs to, told from its tensors' shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from sam2s_model.config import PRESETS
from sam2s_model.weights.errors import CheckpointFormatError

TRUNK = "image_encoder.trunk."
CLASS_VECTORS = "semantic.project.weight"  # [width of the text bank, hidden width]
PATCH_EMBED = TRUNK + "patch_embed.proj.weight"  # [width, 3, 7, 7]
_BLOCK = re.compile(re.escape(TRUNK) + r"blocks\.(\d+)\.")


def detect_preset(state_dict: Mapping[str, Tensor]) -> str:
    """Name the preset whose trunk has this state dict's width and number of blocks.

    The width is the first dimension of `image_encoder.trunk.patch_embed.proj.weight`, the depth
    the number of `image_encoder.trunk.blocks.*`; no two presets agree in both.
    """
    stem = state_dict.get(PATCH_EMBED)
    if stem is None or stem.ndim != 4:
        sample = ", ".join(f"{name!r} {list(t.shape)}" for name, t in [*state_dict.items()][:2])
        held = f"{len(state_dict)} tensors" + (f" such as {sample}" if sample else "")
        raise CheckpointFormatError(
            f"a state dict of {held}, but no image encoder of SAM 2.1: expected {PATCH_EMBED!r} "
            "[width, 3, 7, 7] and the rest of a SAM 2.1 or SAM2S model"
        )
    blocks = {int(found.group(1)) for name in state_dict if (found := _BLOCK.match(name))}
    key = (int(stem.shape[0]), len(blocks))
    known = {(c.embed_dim, sum(c.stages)): name for name, c in PRESETS.items()}
    if key not in known:
        listed = ", ".join(f"{name} {width} and {depth}" for (width, depth), name in known.items())
        raise CheckpointFormatError(
            f"a trunk of width {key[0]} with {key[1]} blocks belongs to no preset; expected one "
            f"of (width and blocks): {listed}"
        )
    return known[key]


def semantic_changes(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    """What a preset must change for the text bank that the weights were trained with."""
    projection = state_dict.get(CLASS_VECTORS)
    return {} if projection is None else {"semantic_dim": int(projection.shape[0])}
