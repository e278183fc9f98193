"""A small model that behaves as a trained one does, and short clips for it to track."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model import random_weights
from sam2s_model.config import ModelConfig
from sam2s_model.model import Sam2s
from sam2s_model.prompt import Prompt
from sam2s_model.textbank import TextBank

Frame = NDArray[np.uint8]

OBJECT_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
IOU_BIAS = "sam_mask_decoder.iou_prediction_head.layers.2.bias"


def lively_model(preset: str = "nano", seed: int = 0, **changes: Any) -> Sam2s:
    """A model with random weights whose targets are present and whose memory matters.

    Its masks are rated above DiveMem's threshold, and it has class vectors, if untrained ones.
    """
    torch.manual_seed(seed)  # of the tensors that SAM 2.1 does not have
    config = ModelConfig.preset(preset, **{"image_size": 64, **changes})
    model = random_weights.lively_model(config, seed)
    model.has_semantics = True
    set_bias(model, IOU_BIAS, 2.0)
    return model


def set_bias(model: Sam2s, name: str, value: float) -> None:
    """Set a head's bias, for example to make all targets present or absent from now on."""
    with torch.no_grad():
        model.get_parameter(name).fill_(value)


def clip(length: int, width: int = 80, height: int = 60, seed: int = 0) -> list[Frame]:
    """Frames of blurred tissue over which two bright shapes move."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 160, (7, 9, 3), dtype=np.uint8)
    tissue = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    frames = []
    for n in range(length):
        frame = np.ascontiguousarray(np.roll(tissue, 2 * n, axis=1))
        centre = (int(width * (0.3 + 0.02 * n)) % width, int(height * 0.4))
        cv2.circle(frame, centre, height // 6, (230, 230, 220), -1)
        corner = (int(width * (0.7 - 0.01 * n)) % width, int(height * 0.5))
        cv2.rectangle(frame, corner, (corner[0] + 15, corner[1] + 20), (40, 60, 200), -1)
        frames.append(frame)
    return frames


def click(x: float = 24, y: float = 24) -> Prompt:
    """One positive point."""
    return Prompt(points=[[x, y]], labels=[1])


def box_mask(x0: int, y0: int, x1: int, y1: int, width: int = 80, height: int = 60) -> Prompt:
    """A mask prompt that is a filled rectangle."""
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = True
    return Prompt(mask=mask)


def prompts() -> dict[str, Prompt]:
    """One prompt of each kind, for frames of 80x60."""
    return {
        "click": click(),
        "clicks": Prompt(points=[[60, 40], [10, 10]], labels=[1, 0]),
        "box": Prompt(box=[50, 20, 75, 55]),
        "box and click": Prompt(box=[5, 30, 30, 58], points=[[20, 45]], labels=[1]),
        "mask": box_mask(10, 8, 36, 40),
    }


def small_bank(dim: int = 384, encoder: str = "test") -> TextBank:
    """Two instruments and a tissue with orthogonal embeddings."""
    return TextBank(
        ("hook", "liver", "scissors"),
        ("instrument", "tissue", "instrument"),
        np.eye(3, dim, dtype=np.float32),
        encoder,
    )


def identical(a: object, b: object) -> bool:
    """Whether two nested states are the same, tensors and types to the bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    return type(a) is type(b) and a == b


def bytes_of(state: object) -> int:
    """The size of a nested state: bytes of its tensors, 8 for every other value."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(bytes_of(key) + bytes_of(value) for key, value in state.items())
    if isinstance(state, (list, tuple)):
        return sum(map(bytes_of, state))
    return 8
