"""SAM2S: streaming segmentation and tracking of surgical instruments and tissue, without ROS."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2s_model.config import MemorySettings, ModelConfig, TrackSettings
    from sam2s_model.errors import Sam2sError
    from sam2s_model.loading import load_model
    from sam2s_model.model import Sam2s
    from sam2s_model.prompt import Prompt
    from sam2s_model.result import FrameResult, TargetResult, TrackState
    from sam2s_model.textbank import TextBank
    from sam2s_model.tracker import StreamTracker

__all__ = [
    "FrameResult",
    "MemorySettings",
    "ModelConfig",
    "Prompt",
    "Sam2s",
    "Sam2sError",
    "StreamTracker",
    "TargetResult",
    "TextBank",
    "TrackSettings",
    "TrackState",
    "load_model",
]

_HOMES = {
    "FrameResult": "result",
    "MemorySettings": "config",
    "ModelConfig": "config",
    "Prompt": "prompt",
    "Sam2s": "model",
    "Sam2sError": "errors",
    "StreamTracker": "tracker",
    "TargetResult": "result",
    "TextBank": "textbank",
    "TrackSettings": "config",
    "TrackState": "result",
    "load_model": "loading",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that `sam2s --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sam2s_model' has no attribute '{name}'")
    return getattr(import_module(f"sam2s_model.{_HOMES[name]}"), name)
