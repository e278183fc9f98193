"""From a PyTorch .pt to safetensors, every tensor and bit kept."""

from __future__ import annotations

from pathlib import Path

import torch

from sam2s_model.weights.download import Record, sha256_of
from sam2s_model.weights.errors import CheckpointFormatError, WeightsError
from sam2s_model.weights.formats import read_metadata, read_state_dict, save_weights
from sam2s_model.weights.presets import detect_preset


def convert(source: Path, target: Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a checkpoint as safetensors and read it back to prove that nothing changed.

    Args:
        source: a .pt (or a safetensors file that lacks metadata).
        target: where to; beside the source with the suffix .safetensors by default.
        overwrite: whether an existing target may be replaced.
    """
    target = source.with_suffix(".safetensors") if target is None else target
    if target.exists() and not overwrite:
        raise WeightsError(
            f"{target} exists already; give --out FILE, or --overwrite to replace it"
        )
    tensors = read_state_dict(source)
    try:
        preset = detect_preset(tensors)
    except CheckpointFormatError as error:
        raise CheckpointFormatError(f"{source} holds {error}") from error
    digest = sha256_of(source)
    metadata = read_metadata(source) | {
        "preset": preset,
        "source": source.name,
        "source_sha256": digest,
        "tensors": len(tensors),
    }
    save_weights(target, tensors, metadata)
    written = read_state_dict(target)
    changed = [
        name
        for name, tensor in tensors.items()
        if name not in written
        or written[name].dtype != tensor.dtype
        or not torch.equal(written[name].nan_to_num(), tensor.nan_to_num())
    ]
    if changed or len(written) != len(tensors):
        target.unlink()
        raise WeightsError(
            f"writing {target} changed {len(changed)} tensors such as {changed[:1]}; the disk may "
            "be failing, nothing was kept"
        )
    if Record.read(source) is not None:  # a checked file's copy is checked from now on too
        Record(f"file:{source.name}", target.stat().st_size, sha256_of(target)).write(target)
    return target
