"""Targets that share no pixel: each one belongs to the target that is most certain of it."""

from __future__ import annotations

import torch
from torch import Tensor


def lead_of(logits: Tensor) -> Tensor:
    """How far each target's logits [N, 1, h, w] lie above the most certain other's, N > 1.

    Where it is not positive a pixel is another target's, or equally two targets', and so no one's.
    """
    return logits - rival_of(logits)


def rival_of(logits: Tensor) -> Tensor:
    """The logits of the most certain other target, for each target's logits [N, 1, h, w], N > 1."""
    first, second = logits.topk(2, dim=0).values.unbind(0)
    return torch.where(logits == first, second, first)


def apart(logits: Tensor, lead: Tensor) -> Tensor:
    """The logits without what another target is more certain of; elsewhere as they were."""
    return torch.minimum(logits, lead)


def contested(logits: Tensor, lead: Tensor) -> list[bool]:
    """Which targets' masks [N, 1, h, w] may meet another's, also between cells."""
    mine, others = (_between(part > 0) for part in (logits, logits - lead))
    meets: list[bool] = (mine & others).flatten(1).any(1).tolist()
    return meets


def _between(cells: Tensor) -> Tensor:
    """Where any of four neighbouring cells is set: what lies between them is mixed from these."""
    pairs = cells[..., :-1, :] | cells[..., 1:, :]
    return pairs[..., :-1] | pairs[..., 1:]
