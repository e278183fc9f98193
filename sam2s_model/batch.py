"""Targets that differ in memory and prompts become padded tensors for one pass per stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.bank import MemoryBank
from sam2s_model.model import MemoryBatch, PromptBatch
from sam2s_model.prompt import ABSENT, NOT_A_POINT, Prompt
from sam2s_model.runtime.base import Runtime


class MaskPrompts(NamedTuple):
    """The mask prompts of N targets; zeros where a target has none."""

    output: Tensor  # [N, 1, m, m] the masks as output logits
    logits: Tensor  # [N, 1, m, m] the same as the decoder takes them
    given: Tensor  # [N] bool, who has one


def memory_batch(banks: Sequence[MemoryBank], frame: int, device: torch.device) -> MemoryBatch:
    """Gather what the banks show on a frame into slots, as many as the fullest bank needs."""
    readings = [bank.read(frame) for bank in banks]
    slots = max(len(reading.slots) for reading in readings)
    pointers = max(len(reading.pointers) for reading in readings)
    _, cells, narrow = banks[0].spatial.shape
    width = banks[0].pointers.shape[1]
    spatial = torch.zeros(len(banks), slots, cells, narrow, device=device)
    pointer = torch.zeros(len(banks), pointers, width, device=device)
    # Filled number by number, which numpy does in less time than torch.
    role = np.zeros((len(banks), slots), np.int64)
    distance = np.zeros((len(banks), pointers), np.float32)
    seen = np.zeros((len(banks), slots + pointers), np.bool_)
    for i, (bank, reading) in enumerate(zip(banks, readings, strict=True)):
        spatial[i, : len(reading.slots)] = bank.spatial[reading.slots]
        count = len(reading.pointers)
        pointer[i, :count] = bank.pointers[reading.pointers]
        role[i, : len(reading.roles)] = reading.roles
        distance[i, :count] = reading.distances
        seen[i, : len(reading.slots)] = True
        seen[i, slots : slots + count] = True
    return MemoryBatch(
        spatial,
        torch.from_numpy(role).to(device),
        pointer,
        torch.from_numpy(distance).to(device),
        None if bool(seen.all()) else torch.from_numpy(seen).to(device),
    )


def prompt_batch(
    prompts: Sequence[Prompt | None],
    masks: MaskPrompts | None,
    width: int,
    height: int,
    runtime: Runtime,
) -> PromptBatch:
    """Pad the point tokens of prompts on a frame of this size to one length.

    Points are followed by one not-a-point token; no points at all are one more of them.
    """
    none = np.zeros((0, 2), np.float32)
    tokens = [
        (none, [])
        if prompt is None or prompt.mask is not None
        else prompt.tokens(width, height, runtime.config.image_size)
        for prompt in prompts
    ]
    length = max(max(len(labels), 1) + 1 for _, labels in tokens)
    xy = np.zeros((len(prompts), length, 2), np.float32)
    kind = np.full((len(prompts), length), ABSENT)
    for i, (points, labels) in enumerate(tokens):
        xy[i, : len(points)] = points
        kind[i, : len(labels)] = labels
        kind[i, len(labels) : max(len(labels), 1) + 1] = NOT_A_POINT
    ambiguous = [
        len(labels) <= 1 and (prompt is None or prompt.mask is None)
        for prompt, (_, labels) in zip(prompts, tokens, strict=True)
    ]
    device = runtime.device
    return PromptBatch(
        xy=torch.from_numpy(xy).to(device),
        labels=torch.from_numpy(kind).to(device),
        masks=None if masks is None else masks.logits,
        mask_given=torch.zeros(len(prompts), dtype=torch.bool, device=device)
        if masks is None
        else masks.given,
        ambiguous=torch.tensor(ambiguous, device=device),
        padded=bool((kind == ABSENT).any()),
    )


def mask_prompts(prompts: Sequence[Prompt | None], runtime: Runtime) -> MaskPrompts | None:
    """Turn the masks among the prompts into logits; None when there are none."""
    if all(prompt is None or prompt.mask is None for prompt in prompts):
        return None
    config, device = runtime.config, runtime.device
    output, logits = (
        torch.zeros(len(prompts), 1, size, size, device=device)
        for size in (config.mask_size, config.prompt_mask_size)
    )
    given = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for i, prompt in enumerate(prompts):
        if prompt is None or prompt.mask is None:
            continue
        mask = _scaled(np.asarray(prompt.mask), config.image_size).to(device)
        output[i : i + 1], logits[i : i + 1] = runtime.mask_to_logits(mask)
        given[i] = True
    return MaskPrompts(output, logits, given)


def _scaled(mask: NDArray[np.bool_], size: int) -> Tensor:
    """Scale a mask HxW to the network's input and make it binary again: [1, 1, S, S]."""
    scaled = torch.from_numpy(mask)[None, None].float()
    if mask.shape != (size, size):
        scaled = F.interpolate(
            scaled, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )
        # A thread thinner than a pixel of the input covers none by half; keep what it covers most.
        scaled = (scaled >= scaled.max().clamp_max(0.5)).float()
    return scaled
