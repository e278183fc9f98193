"""What can go wrong with exported graphs."""

from __future__ import annotations

from sam2s_model.errors import Sam2sError


class ExportError(Sam2sError):
    """A model that cannot be exported as asked."""


class ParityError(ExportError):
    """Exported graphs that do not compute what the model computes."""


class ExportFolderError(Sam2sError):
    """A folder of exported graphs that cannot be used."""


class ManifestError(ExportFolderError):
    """A manifest that is missing, unreadable, or contradicts itself or its graphs."""


class NewerExportError(ExportFolderError):
    """Graphs that were written by a newer version, or for a newer ONNX Runtime."""


class CapacityError(ExportFolderError):
    """Memory settings that need more slots than the graphs were exported for."""
