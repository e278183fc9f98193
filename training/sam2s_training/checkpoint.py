"""Checkpoints of a training under way: written atomically, the newest sound one is read.

A run folder holds `checkpoints/step-00001200.pt`. Such a file has everything that the next step
depends on. Random numbers need no state: every step seeds its own from the recipe's seed and its
number (`seeds.py`), and the data loader is told the index of the next clip.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam2s_model.errors import Sam2sError

FORMAT = "sam2s training"
VERSION = 1  # raised when older code could no longer read new files rightly
_NAME = re.compile(r"step-(\d+)\.pt$")


class CheckpointError(Sam2sError):
    """A training checkpoint that cannot be used."""


@dataclass
class Checkpoint:
    """The state of a training between two steps."""

    preset: str
    recipe: dict[str, Any]  # plain values, defaults included
    step: int  # steps done, over all phases
    clips: int  # clips taken from the data, over all processes
    seconds: float  # of training so far, over all slices
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    ema_updates: int
    optimizer: dict[str, dict[str, Tensor]]  # by parameter name
    skipped: int = 0  # steps left out because their gradient was not finite
    row: dict[str, float] = field(default_factory=dict)  # what the next row of the log has so far

    def save(self, folder: Path, keep: int) -> Path:
        """Write the checkpoint, and remove all but the `keep` newest."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{self.step:08d}.pt"
        partial = path.with_suffix(".part")
        try:
            with partial.open("wb") as file:
                torch.save({"format": FORMAT, "version": VERSION, **vars(self)}, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise CheckpointError(
                f"{path} cannot be written ({error}); make room or choose another folder (--out), "
                "the checkpoints before it are untouched"
            ) from error
        for old in checkpoints(folder)[:-keep]:
            old.unlink(missing_ok=True)
        return path

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Read a checkpoint; only tensors and plain values, never code."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zipfile, pickle and torch raise what they stumble over
            raise CheckpointError(
                f"{path} cannot be read as a training checkpoint ({type(error).__name__}); it may "
                "be truncated: remove it, and the one before it is taken"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is no training checkpoint; expected a file of a run's checkpoints folder"
            )
        if content["version"] > VERSION:
            raise CheckpointError(
                f"{path} has version {content['version']}, this program reads up to {VERSION}; "
                "update sam2s_training"
            )
        del content["format"], content["version"]
        return Checkpoint(**content)


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, oldest first."""
    found = [
        (int(match.group(1)), path)
        for path in folder.glob("*.pt")
        if (match := _NAME.search(path.name))
    ]
    return [path for _, path in sorted(found)]


def newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """Read the newest checkpoint; one that is damaged is passed over with a warning."""
    paths = checkpoints(folder)
    for path in reversed(paths):
        try:
            return path, Checkpoint.load(path)
        except CheckpointError as error:
            if path == paths[0]:
                raise
            warnings.warn(f"{error}; the one before it is taken", stacklevel=2)
    return None


def find_checkpoint(path: Path) -> Path:
    """Give the file of a checkpoint's path, or the newest of a run folder."""
    if path.is_file():
        return path
    found = checkpoints(path / "checkpoints") or checkpoints(path)
    if not found:
        raise CheckpointError(
            f"{path} is neither a training checkpoint nor a run folder with checkpoints/step-….pt"
        )
    return found[-1]
