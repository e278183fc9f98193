"""Layers of weights that were multiplied out."""

from __future__ import annotations

from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer of these weights."""
    assert bias is not None
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def by_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer to [N, K, C] as one matrix product, which takes its bias along."""
    result: Tensor = layer(x.flatten(0, 1))
    return result.view(x.shape[0], x.shape[1], result.shape[-1])
