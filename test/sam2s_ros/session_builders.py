"""Results of a session, as a tracker's logits make them."""

from __future__ import annotations

import numpy as np
import torch

from sam2s_model.result import FrameResult, TargetResult, TrackState
from sam2s_ros.masks import source_patch
from sam2s_ros.session_types import SessionObject, SessionResult

STAMP = 12 * 10**9 + 345
HEIGHT, WIDTH = 96, 128


def blob(
    x: float, y: float, radius: float, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> torch.Tensor:
    """Logits [H/4, W/4] of a disc; the place and the radius are pixels of the source image."""
    height, width = size
    ys, xs = torch.meshgrid(
        torch.arange(2.0, height, 4), torch.arange(2.0, width, 4), indexing="ij"
    )
    return (radius - ((xs - x) ** 2 + (ys - y) ** 2).sqrt()) / 4


def session_object(
    target: TargetResult, label_value: int, class_name: str = "hook", confidence: float = 0.75
) -> SessionObject:
    return SessionObject(
        name=target.name, label_value=label_value, state=target.state, iou=target.iou,
        presence=target.presence, class_name=class_name, class_confidence=confidence,
        class_scores=target.label_scores, drawn=source_patch(target),
    )  # fmt: skip


def session_result(
    *targets: tuple[str, torch.Tensor, TrackState],
    size: tuple[int, int] = (HEIGHT, WIDTH),
    **changes: object,
) -> SessionResult:
    """A frame with these targets: name, logits, state. Label values are 3, 5, 7, …"""
    results = {
        name: TargetResult(
            name=name, low_res_logits=logits, source_size=size, iou=0.5 + 0.1 * n,
            object_score=2.0 - n, state=state, label="hook",
            label_scores={"grasper": 0.1, "hook": 0.75, "clamp": 0.05, "snare": 0.1 - 1e-3},
        )
        for n, (name, logits, state) in enumerate(targets)
    }  # fmt: skip
    fields: dict[str, object] = {
        "stamp_ns": STAMP, "frame_id": "scope", "frame_index": 41, "height": size[0],
        "width": size[1], "result": FrameResult(41, results),
        "objects": tuple(
            session_object(target, 3 + 2 * n) for n, target in enumerate(results.values())
        ),
    }  # fmt: skip
    return SessionResult(**{**fields, **changes})


def two_and_a_lost_one() -> SessionResult:
    """Two discs that overlap, and a target without a mask."""
    return session_result(
        ("left", blob(48, 40, 26), TrackState.TRACKING),
        ("right", blob(80, 52, 20), TrackState.TRACKING),
        ("gone", torch.full((HEIGHT // 4, WIDTH // 4), -9.0), TrackState.LOST),
    )


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
