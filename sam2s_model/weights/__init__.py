"""Checkpoints: known names, a checked cache, safe reading, conversion to safetensors."""

from __future__ import annotations

from sam2s_model.weights.conversion import convert
from sam2s_model.weights.download import Record, download, sha256_of
from sam2s_model.weights.errors import (
    CheckpointFormatError,
    ChecksumError,
    DownloadError,
    UnknownWeightsError,
    UnsafePickleError,
    WeightsError,
    WeightsUnavailableError,
)
from sam2s_model.weights.formats import (
    FileKind,
    identify,
    read_metadata,
    read_state_dict,
    save_weights,
)
from sam2s_model.weights.presets import detect_preset
from sam2s_model.weights.store import (
    WeightSource,
    WeightState,
    WeightStatus,
    WeightStore,
    fetch,
    list_weights,
    resolve,
)
from sam2s_model.weights.verification import Report, verify

__all__ = [
    "CheckpointFormatError",
    "ChecksumError",
    "DownloadError",
    "FileKind",
    "Record",
    "Report",
    "UnknownWeightsError",
    "UnsafePickleError",
    "WeightSource",
    "WeightState",
    "WeightStatus",
    "WeightStore",
    "WeightsError",
    "WeightsUnavailableError",
    "convert",
    "detect_preset",
    "download",
    "fetch",
    "identify",
    "list_weights",
    "read_metadata",
    "read_state_dict",
    "resolve",
    "save_weights",
    "sha256_of",
    "verify",
]
