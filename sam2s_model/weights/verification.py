"""What a checkpoint holds, checked: its hash, its format, its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sam2s_model.weights.download import Record, check_digest, sha256_of
from sam2s_model.weights.errors import CheckpointFormatError, ChecksumError
from sam2s_model.weights.formats import FileKind, identify, read_metadata, read_state_dict
from sam2s_model.weights.presets import detect_preset, semantic_changes


@dataclass(frozen=True)
class Report:
    """What `verify` found in a good file."""

    path: Path
    kind: FileKind
    size: int  # bytes
    sha256: str
    compared_with: str  # demanded, recorded, published, or "nothing"
    preset: str
    tensors: int
    parameters: int  # numbers in all tensors
    dtypes: dict[str, int]  # dtype name -> tensors
    absent: tuple[str, ...]  # SAM2S's own tensors that the file lacks, as SAM 2.1's files do
    metadata: dict[str, str]


def verify(
    path: Path,
    *,
    demanded: str | None = None,
    published: str | None = None,
    keep_record: bool = False,
    quiet: bool = True,
) -> Report:
    """Check hash, format and tensors of a checkpoint; raise a sentence at the first fault.

    The tensors must be those of the preset's model, by name and shape, and finite.
    The hash is held against `demanded`, else against the record beside the file, else against
    `published`. With `keep_record` a sound file's hash is recorded beside it for the next time.
    """
    check_digest(demanded)
    kind = identify(path)
    record = Record.read(path)
    digest = sha256_of(path, quiet=quiet)
    for origin, expected in (
        ("demanded", demanded),
        ("recorded", record.sha256 if record and not demanded else None),
        ("published", published if not record and not demanded else None),
    ):
        if expected is not None and digest != expected.lower():
            raise ChecksumError(
                f"{path} has SHA-256 {digest}, {origin} is {expected}: these are other bytes; get "
                "the file again, or accept this one knowingly with --sha256 and its hash"
            )
    tensors = read_state_dict(path)
    try:
        preset = detect_preset(tensors)
    except CheckpointFormatError as error:
        raise CheckpointFormatError(f"{path} holds {error}") from error
    absent = _compare_with_model(path, tensors, preset)
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise CheckpointFormatError(
            f"{path} has NaN or infinite numbers in {len(bad)} tensors such as {bad[0]!r}; the "
            "training that wrote it diverged, take an earlier checkpoint"
        )
    if keep_record and (record is None or record.sha256 != digest):
        Record(f"file:{path.name}", path.stat().st_size, digest).write(path)
    origin = "demanded" if demanded else "recorded" if record else "published" if published else ""
    return Report(
        path=path,
        kind=kind,
        size=path.stat().st_size,
        sha256=digest,
        compared_with=origin or "nothing",
        preset=preset,
        tensors=len(tensors),
        parameters=sum(t.numel() for t in tensors.values()),
        dtypes=dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())),
        absent=absent,
        metadata=read_metadata(path),
    )


def _compare_with_model(path: Path, tensors: Mapping[str, Tensor], preset: str) -> tuple[str, ...]:
    """Load the tensors' shapes into a model without memory; give what SAM2S adds and they lack."""
    # Here, because the model's own loader imports this package.
    from sam2s_model.config import ModelConfig
    from sam2s_model.model import CheckpointMismatchError, Sam2s

    try:
        with torch.device("meta"):
            model = Sam2s(ModelConfig.preset(preset, **semantic_changes(tensors)))
        return tuple(model.load_sam2({name: t.to("meta") for name, t in tensors.items()}))
    except CheckpointMismatchError as error:
        raise CheckpointFormatError(f"{path} cannot be loaded: {error}") from error
