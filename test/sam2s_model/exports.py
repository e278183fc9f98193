"""One export of a small model for all tests that need one: tracing takes most of a minute."""

from __future__ import annotations

import atexit
import contextlib
import io
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from builders import click, clip, lively_model, prompts, small_bank

from sam2s_model.cli import main
from sam2s_model.export.parity import Clip
from sam2s_model.loading import load_model
from sam2s_model.model import Sam2s
from sam2s_model.prompt import Prompt
from sam2s_model.weights import save_weights


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where the tests' exports and weights lie."""
    path = Path(tempfile.mkdtemp(prefix="sam2s-exports-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@lru_cache(maxsize=1)
def weights() -> Path:
    """Weights of a lively nano of 64 pixels, which name a bank of three classes."""
    bank = small_bank().save(folder() / "bank.npz")
    path = folder() / "weights.safetensors"
    metadata = {"preset": "nano", "image_size": 64, "text_bank": str(bank)}
    save_weights(path, lively_model().state_dict(), metadata)
    return path


def model() -> Sam2s:
    """The model that was exported, anew."""
    return load_model(str(weights()))


@lru_cache(maxsize=1)
def exported() -> tuple[Path, str]:
    """The export that `sam2s export --verify` makes of the weights, and what it prints."""
    path = folder() / "fp32"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(
            ["export", "--weights", str(weights()), "--out", str(path), "--verify", "--frames", "8"]
        )
    assert code == 0, printed.getvalue()
    return path, printed.getvalue()


def copy(to: Path) -> Path:
    """A copy of the export that a test may spoil."""
    shutil.copytree(exported()[0], to)
    return to


def busy_clip(length: int = 16) -> Clip:
    """Three targets marked in every way at different times, two of them corrected."""
    given = prompts()
    return Clip(
        clip(length),
        {
            0: {"a": given["click"]},
            3: {"b": given["box and click"], "a": Prompt(points=[[30, 20], [2, 2]], labels=[1, 0])},
            5: {"c": given["mask"]},
            11: {"b": click(20, 45)},
        },
    )
