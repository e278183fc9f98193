"""Random weights that behave like trained ones where a comparison or a timing needs it.

Freshly initialised networks draw masks around zero and hardly listen to memory, so that two
implementations would agree on them whatever their memory does. These weights see an object on
every frame, draw masks of some contrast, and keep apart targets that were prompted apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sam2s_model.config import ModelConfig
from sam2s_model.model import OWN_TENSORS, Sam2s

# What the tensors whose names hold both parts are multiplied by.
# Chosen so that targets stay apart while rounding errors do not grow from frame to frame.
GAINS = (
    ("cross_attn_image.v_proj", "weight", 8.0),
    ("cross_attn_image.out_proj", "weight", 8.0),
    ("memory_encoder.mask_downsampler.encoder.12", "weight", 8.0),
    ("obj_ptr_proj.layers.2", "weight", 30.0),
    ("output_hypernetworks_mlps", "layers.2.weight", 8.0),
)


def lively_weights(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Make a state dict of SAM 2.1's tensors for this configuration, the same for each seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = Sam2s(config).state_dict()
    for name, tensor in weights.items():
        for part, kind, gain in GAINS:
            if part in name and name.endswith(kind):
                tensor *= gain
        if name.endswith("gamma"):
            tensor.fill_(0.5)
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += 5.0
    return {name: tensor for name, tensor in weights.items() if not name.startswith(OWN_TENSORS)}


def lively_model(config: ModelConfig, seed: int = 0) -> Sam2s:
    """Build a model with `lively_weights`; it has no trained class vectors."""
    model = Sam2s(config)
    model.load_sam2(lively_weights(config, seed))
    return model.eval()
