"""What can go wrong with a replay."""

from __future__ import annotations

from sam2s_model.errors import Sam2sError


class ReplayError(Sam2sError):
    """A replay that cannot be done as asked."""


class PromptsFileError(ReplayError):
    """A prompts file that cannot be understood; names the file and the entry."""


class NoPromptsError(ReplayError):
    """Nothing says what to track."""


class NoFramesError(ReplayError):
    """A bag without a single usable image."""


class TruthError(ReplayError):
    """Ground truth that cannot be used."""


class OutputExistsError(ReplayError):
    """Something else is already where the results shall go."""


class ResultsError(ReplayError):
    """A results file that cannot be read, or results that do not belong together."""
