"""Procedural endoscopy: simulated surgical video with exact masks and class names."""

from __future__ import annotations

from sam2s_model.synth.errors import SceneError, SuiteError, SynthError
from sam2s_model.synth.ranges import SceneRanges
from sam2s_model.synth.render import Frames, render_batch
from sam2s_model.synth.scene import Camera, Shot, SurgicalScene

__all__ = [
    "Camera",
    "Frames",
    "SceneError",
    "SceneRanges",
    "Shot",
    "SuiteError",
    "SurgicalScene",
    "SynthError",
    "render_batch",
]
