"""Procedural endoscopy: simulated surgical video with exact masks and class names."""

from __future__ import annotations

from sam2s_model.synth.errors import SceneError, SuiteError, SynthError
from sam2s_model.synth.ranges import SceneRanges
from sam2s_model.synth.render import Frames, render_batch
from sam2s_model.synth.scene import Camera, Shot, SurgicalScene
from sam2s_model.synth.sequence import RenderedSequence, first_targets
from sam2s_model.synth.suites import SUITES, TRAINING, Clip, Suite, load_suite

__all__ = [
    "SUITES",
    "TRAINING",
    "Camera",
    "Clip",
    "Frames",
    "RenderedSequence",
    "SceneError",
    "SceneRanges",
    "Shot",
    "Suite",
    "SuiteError",
    "SurgicalScene",
    "SynthError",
    "first_targets",
    "load_suite",
    "render_batch",
]
