"""The optimiser with layer-wise learning rates, the cosine schedule, and averaged weights (EMA)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sam2s_model.errors import Sam2sError
from sam2s_model.model import OWN_TENSORS
from sam2s_training import muon
from sam2s_training.recipe import OptimSettings

TRUNK = "image_encoder.trunk."
_BLOCK = re.compile(re.escape(TRUNK) + r"blocks\.(\d+)\.")
# Embeddings are looked up or added, not multiplied: shrinking them serves nothing.
_EMBEDDINGS = re.compile(
    r"pos_embed|point_embeddings|not_a_point_embed|no_mask_embed|tpos_enc|no_mem_|no_obj_"
    r"|_tokens?\.weight|semantic\.cls"
)


class OptimizerStateError(Sam2sError):
    """An optimiser's state that does not fit the model's parameters."""


def learning_rate_factor(name: str, settings: OptimSettings, blocks: int) -> float:
    """Give a parameter's share of the learning rate.

    Args:
        name: the parameter's name in the model.
        settings: the trunk's factor, the decay per block and the new tensors' factor.
        blocks: number of the trunk's blocks; the last has the trunk's full rate.
    """
    if name.startswith(OWN_TENSORS):
        return settings.new_lr
    if not name.startswith(TRUNK):
        return 1.0
    block = _BLOCK.match(name)
    # The patch embedding and the position maps lie one layer before the first block.
    layers_above = blocks - 1 - int(block.group(1)) if block else blocks
    return float(settings.trunk_lr * settings.layer_decay**layers_above)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices and kernels, not to norms and embeddings."""
    return parameter.ndim >= 2 and not _EMBEDDINGS.search(name)


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name the parameters that are trained."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Group the model's parameters by learning rate, weight decay and kind of step."""
    parameters = named_parameters(model)
    found = [_BLOCK.match(name) for name in parameters]
    blocks = 1 + max((int(match.group(1)) for match in found if match), default=0)
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        factor = learning_rate_factor(name, settings, blocks)
        decayed = is_decayed(name, parameter)
        decay = settings.weight_decay if decayed else 0.0
        orthogonal = settings.kind == "muon" and decayed and muon.suits(parameter)
        groups.setdefault((factor, decay, orthogonal), []).append(parameter)
    kind = muon.Muon if settings.kind == "muon" else torch.optim.AdamW
    return kind(
        [
            {"params": members, "factor": factor, "weight_decay": decay, "orthogonal": orthogonal}
            for (factor, decay, orthogonal), members in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        fused=True,
    )


def learning_rate(settings: OptimSettings, step: int, steps: int) -> float:
    """Warm-up, then a cosine from `lr` to `lr · lr_end`, at a phase's step (from 0)."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, steps - settings.warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return settings.lr * (settings.lr_end + (1.0 - settings.lr_end) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group, each by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Give the optimiser's state by parameter name, so that another grouping can take it over."""
    return {
        name: {key: value.detach().clone() for key, value in optimizer.state[parameter].items()}
        for name, parameter in parameters.items()
        if parameter in optimizer.state
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Put back what `optimizer_state` gave; what another kind of step kept is left out."""
    orthogonal = {
        parameter
        for group in optimizer.param_groups
        if group.get("orthogonal", False)
        for parameter in group["params"]
    }
    for name, entries in state.items():
        if name not in parameters:
            raise OptimizerStateError(
                f"the optimiser's state names '{name}', which this model has not; resume with the "
                "recipe that the checkpoint was written with"
            )
        parameter = parameters[name]
        if ("momentum" in entries) != (parameter in orthogonal):
            continue
        kept: dict[str, Any] = {}
        for key, value in entries.items():
            if value.ndim and value.shape != parameter.shape:
                raise OptimizerStateError(
                    f"the optimiser's state of '{name}' is {list(value.shape)}, the parameter "
                    f"{list(parameter.shape)}; the checkpoint is another model's"
                )
            kept[key] = value.to(parameter.device, copy=True)
        optimizer.state[parameter] = kept


class Ema:
    """An exponential moving average of a model's weights, kept in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {
            name: tensor.detach().float().clone() if tensor.is_floating_point() else tensor.clone()
            for name, tensor in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights in."""
        self.updates += 1
        # The first averages would otherwise consist of the random weights at the start.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averaged, present = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self.weights[name])
                present.append(tensor.detach().float())
            else:
                self.weights[name].copy_(tensor)
        torch._foreach_lerp_(averaged, present, 1.0 - decay)

    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on from saved averages."""
        self.updates = updates
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
