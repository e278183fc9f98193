"""What can go wrong when a simulated scene or a suite is asked for."""

from __future__ import annotations

from sam2s_model.errors import Sam2sError


class SynthError(Sam2sError):
    """The root of the simulated endoscope's errors."""


class SceneError(SynthError):
    """A scene cannot be built or rendered as asked: size, frame number, class or range."""


class SuiteError(SynthError):
    """A suite or one of its clips does not exist, or its cache cannot be used."""
