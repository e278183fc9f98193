"""What can go wrong with weights; every message ends with the remedy."""

from __future__ import annotations

from sam2s_model.errors import Sam2sError


class WeightsError(Sam2sError):
    """Root of this room's errors."""


class UnknownWeightsError(WeightsError):
    """Neither a known name nor an existing file."""


class WeightsUnavailableError(WeightsError):
    """A known name whose file is not on this machine."""


class DownloadError(WeightsError):
    """The server, the network or the disk would not deliver the file."""


class ChecksumError(WeightsError):
    """The bytes are not the ones that were recorded, published or demanded."""


class CheckpointFormatError(WeightsError):
    """A truncated or foreign file, or one whose tensors are not a SAM 2.1 model's."""


class UnsafePickleError(CheckpointFormatError):
    """A pickle that asks for code beyond plain tensors; it was not executed."""
