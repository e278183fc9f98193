"""Operators that an opset may have in one piece: told to the exporter as one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROTARY_OPSET = 23  # the first opset with an operator for rotary encoding


@torch.library.custom_op("sam2s::rotary_embedding", mutates_args=())
def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, places: Tensor) -> Tensor:
    """Turn x [N, K, C] by the rows `places` [N, K] of the tables [L, C / 2]."""
    first, second = x.chunk(2, dim=-1)
    c, s = cos[places], sin[places]
    return torch.cat((first * c - second * s, first * s + second * c), dim=-1)


@rotary_embedding.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, places: Tensor) -> Tensor:
    return torch.empty_like(x)


def translations(opset: int) -> dict[Any, Callable[..., Any]]:
    """How the exporter writes these operators in an opset."""
    from onnxscript import opset20 as basic
    from onnxscript import opset23 as newer

    def in_one_piece(x: Any, cos: Any, sin: Any, places: Any) -> Any:
        return newer.RotaryEmbedding(x, cos, sin, places, num_heads=1, interleaved=0)

    def in_steps(x: Any, cos: Any, sin: Any, places: Any) -> Any:
        first, second = basic.Split(x, axis=-1, num_outputs=2)
        c, s = basic.Gather(cos, places), basic.Gather(sin, places)
        return basic.Concat(
            basic.Sub(basic.Mul(first, c), basic.Mul(second, s)),
            basic.Add(basic.Mul(first, s), basic.Mul(second, c)),
            axis=-1,
        )

    chosen = in_one_piece if opset >= ROTARY_OPSET else in_steps
    return {torch.ops.sam2s.rotary_embedding.default: chosen}
