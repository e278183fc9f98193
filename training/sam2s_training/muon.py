"""Muon: momentum made orthogonal for matrices, AdamW for everything else.

A matrix's momentum is dominated by few directions; Muon moves all of them by the same length. Steps
are scaled to the size of AdamW's, so both take the same rates and weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# An odd quintic that drives singular values in (0, 1] towards 1; applied five times it leaves them
# between about 0.7 and 1.2, which is as good for training as 1 exactly.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_MOMENTUM = 0.95
_RMS = 0.2  # root mean square of an AdamW step of rate 1, as it is observed
_NARROW = 16  # matrices with a shorter side are mostly heads: AdamW suits them


def suits(parameter: Tensor) -> bool:
    """Tell whether a weight acts as a matrix that is large enough to be made orthogonal."""
    depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
    return parameter.ndim >= 2 and not depthwise and min(_flat(parameter).shape) >= _NARROW


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices [B, M, N] near 1 and keep their directions."""
    x: Tensor = matrices.float()
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.transpose(1, 2)).transpose(1, 2)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    if x.shape[2] < 2 * x.shape[1]:
        for _ in range(_ROUNDS):
            x = _round(x @ x.mT) @ x
        return x
    # All rounds of a long matrix are gathered into one small one first.
    square = x @ x.mT
    gathered = turn = _round(square)
    for _ in range(_ROUNDS - 1):
        square = turn @ square @ turn
        turn = _round(square)
        gathered = turn @ gathered
    return gathered @ x


def _round(square: Tensor) -> Tensor:
    """Give what one round multiplies X with, X Xᵀ being `square` [B, M, M]."""
    a, b, c = _QUINTIC
    turn = torch.baddbmm(square, square, square, beta=b, alpha=c)
    turn.diagonal(dim1=1, dim2=2).add_(a)
    return turn


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `orthogonal: True` follow Muon; those hold what `suits`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move all parameters; a closure is not supported."""
        if closure is not None:
            raise ValueError("this optimiser takes no closure")
        taken: list[tuple[nn.Parameter, Tensor | None]] = []
        for group in self.param_groups:
            if group["orthogonal"]:
                self._move(group)
                taken.extend((p, p.grad) for p in group["params"])
        # AdamW passes over what has no gradient.
        for parameter, _ in taken:
            parameter.grad = None
        super().step()
        for parameter, gradient in taken:
            parameter.grad = gradient

    def _move(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
            ahead = _flat(parameter.grad.lerp(momentum, _MOMENTUM))
            alike.setdefault(ahead.shape, []).append((parameter, ahead))
        for shape, pairs in alike.items():
            steps = orthogonal(torch.stack([ahead for _, ahead in pairs]))
            length = group["lr"] * _RMS * math.sqrt(max(shape))
            for (parameter, _), step in zip(pairs, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(step.to(parameter).view_as(parameter), alpha=length)


def _flat(parameter: Tensor) -> Tensor:
    """See a kernel as the matrix that acts on a patch."""
    return parameter.flatten(1)
