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


@torch.library.custom_op("sam2s::attend", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, any_hidden: Tensor) -> Tensor:
    """Average the values v [N, K, Cv] by softmax(q · k + hidden) of q [N, Q, C] and k [N, K, C].

    `hidden` [N, 1, K] is added only where `any_hidden`, one bool, says that it says anything: over
    a full bank that is one pass less over the largest tensor of a frame.
    """
    return (q @ k.transpose(1, 2) + hidden).softmax(-1) @ v


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, any_hidden: Tensor) -> Tensor:
    return v.new_empty(q.shape[0], q.shape[1], v.shape[2])


@rotary_embedding.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, places: Tensor) -> Tensor:
    return torch.empty_like(x)


def translations(opset: int) -> dict[Any, Callable[..., Any]]:
    """How the exporter writes these operators in an opset."""
    from onnxscript import opset18 as traced  # what the exporter writes before it converts
    from onnxscript import opset20 as basic
    from onnxscript import opset23 as newer
    from onnxscript import script
    from onnxscript.values import Opset

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

    @script(Opset("sam2s", 1), default_opset=traced)
    def in_two_branches(q: Any, k: Any, v: Any, hidden: Any, any_hidden: Any) -> Any:
        if any_hidden:
            masked = traced.Add(traced.MatMul(q, traced.Transpose(k, perm=[0, 2, 1])), hidden)
            out = traced.MatMul(traced.Softmax(masked, axis=-1), v)
        else:
            scores = traced.MatMul(q, traced.Transpose(k, perm=[0, 2, 1]))
            out = traced.MatMul(traced.Softmax(scores, axis=-1), v)
        return out

    chosen = in_one_piece if opset >= ROTARY_OPSET else in_steps
    return {
        torch.ops.sam2s.rotary_embedding.default: chosen,
        torch.ops.sam2s.attend.default: in_two_branches,
    }
