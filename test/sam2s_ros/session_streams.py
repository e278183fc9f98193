"""A small network, a short stream and sessions on them, for tests without ROS."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from sam2s_model import Prompt, Sam2s, StreamTracker
from sam2s_model.config import ModelConfig
from sam2s_model.random_weights import lively_model
from sam2s_ros.session import PromptRequest, Session, SessionResult, SessionSettings

PERIOD = 40_000_000  # nanoseconds between images, 25 Hz
START = 1_000_000_000_000
FRAME_ID = "scope"
IOU_BIAS = "sam_mask_decoder.iou_prediction_head.layers.2.bias"
OBJECT_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def small_model(preset: str = "nano") -> Sam2s:
    """Random weights that see an object on every frame and trust their masks."""
    model = lively_model(ModelConfig.preset(preset, image_size=64))
    set_bias(model, IOU_BIAS, 2.0)
    return model


def set_bias(model: Sam2s, name: str, value: float) -> None:
    """Make all targets present or absent from now on."""
    model.get_parameter(name).data.fill_(value)


def stream(length: int, width: int = 120, height: int = 90) -> list[np.ndarray]:
    """Frames of tissue over which a bright shape moves."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 160, (7, 9, 3), dtype=np.uint8)
    tissue = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    frames = []
    for n in range(length):
        frame = np.ascontiguousarray(np.roll(tissue, 2 * n, axis=1))
        cv2.circle(frame, (width // 3 + n, height // 2), height // 6, (230, 230, 220), -1)
        frames.append(frame)
    return frames


def stamp(n: int) -> int:
    """When the n-th image was taken."""
    return START + n * PERIOD


def make_session(model: Sam2s, max_targets: int = 16, **settings: Any) -> Session:
    """A session of its own tracker."""
    return Session(StreamTracker(model, max_targets=max_targets), SessionSettings(**settings))


def ask(name: str = "a", x: float = 40, y: float = 45, **options: Any) -> PromptRequest:
    """One click on a target."""
    return PromptRequest(name, Prompt(points=[[x, y]], labels=[1]), **options)


def feed(
    session: Session,
    frames: list[np.ndarray],
    prompts: dict[int, list[PromptRequest]] | None = None,
    first: int = 0,
) -> list[SessionResult]:
    """Give a session frames in their rhythm, with prompts by frame number."""
    return [
        session.process(stamp(n), FRAME_ID, frame, (prompts or {}).get(n, ()))
        for n, frame in enumerate(frames, first)
    ]
