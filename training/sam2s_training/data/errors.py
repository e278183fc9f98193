"""What can go wrong with training data."""

from __future__ import annotations

from sam2s_model.errors import Sam2sError


class DataError(Sam2sError):
    """The root of the training data's errors."""


class DataSettingError(DataError):
    """A setting of a source, the sampler, the augmentation or the loader that cannot be."""


class NoTargetError(DataError):
    """A clip in which nothing can be prompted on the first frame."""


class ClipError(DataError):
    """A clip that could not be made; names its number and, where known, its video."""


class FolderError(DataError):
    """A data set on disk whose pictures, masks or classes do not fit together."""


class UnknownClassError(DataError):
    """A class name that the text bank lacks."""


class ShardError(DataError):
    """Shards that cannot be written, read or used as asked."""
