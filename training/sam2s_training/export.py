"""From a training's checkpoint to weights that `load_model` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from sam2s_model.weights import save_weights
from sam2s_training.checkpoint import Checkpoint, find_checkpoint
from sam2s_training.log import CSV_NAME, read_rows
from sam2s_training.recipe import Recipe, parse_recipe
from sam2s_training.scores import SCORES_NAME, read_scores

Metadata = Mapping[str, object]
DtypeName = Literal["float32", "float16"]
DTYPES: dict[DtypeName, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
EXACT = "positional_encoding_gaussian_matrix"
IN_METADATA = ("loss", "drawn_iou", "presence_right", "class_right")  # of the log's last row


def metadata_of(state: Checkpoint) -> dict[str, object]:
    """Say what the weights are and how they came to be, for the file's own metadata."""
    recipe = recipe_of(state)
    done, _ = recipe.locate(max(state.step - 1, 0))
    return {
        "preset": state.preset,
        # The size that the weights were trained for last is the one they are used with.
        "image_size": recipe.phases[min(done, len(recipe.phases) - 1)].image_size,
        "text_bank": recipe.model.text_bank,
        "recipe": recipe.name,
        "recipe_hash": recipe.digest(),
        "seed": recipe.seed,
        "steps": state.step,
        "steps_planned": recipe.steps,
        "clips": state.clips,
        "training_minutes": f"{state.seconds / 60:.1f}",
        "averaged": "exponential moving average of the weights",
    }


def recipe_of(state: Checkpoint) -> Recipe:
    """Give the recipe that a checkpoint was written with."""
    return parse_recipe(state.recipe, f"the checkpoint's recipe {state.recipe.get('name', '')}")


def write_ema(
    state: Checkpoint, path: Path, dtype: DtypeName = "float32", extra: Metadata | None = None
) -> Path:
    """Write a checkpoint's averaged weights as safetensors."""
    tensors = {
        name: tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor
        for name, tensor in state.ema.items()
    }
    # The positions' random matrix takes part in sines of large angles: rounding would move points.
    for name, tensor in state.ema.items():
        if name.endswith(EXACT):
            tensors[name] = tensor
    save_weights(path, tensors, {**metadata_of(state), "dtype": dtype, **(extra or {})})
    return path


def export_checkpoint(
    source: Path, target: Path | None = None, dtype: DtypeName = "float32"
) -> Path:
    """Write the averaged weights of a checkpoint, or of a run's newest.

    What the run's log and scores say of that step goes into the file's metadata.

    Args:
        source: a checkpoint file or a run folder.
        target: a .safetensors file; by default in the run folder.
        dtype: float16 halves the file; `load_model` computes in float32 either way.
    """
    path = find_checkpoint(source)
    state = Checkpoint.load(path)
    run = path.parent.parent
    if target is None:
        target = run / f"{state.recipe['name']}-{state.step:08d}.safetensors"
    return write_ema(state, target, dtype, figures(run, state.step))


def figures(run: Path, step: int) -> dict[str, object]:
    """Give what a run's log and scores say of a step, as metadata."""
    found: dict[str, object] = {}
    rows = [row for row in read_rows(run / CSV_NAME) if int(row["step"]) <= step]
    if rows:
        last = rows[-1]
        found |= {f"log.{name}": last[name] for name in IN_METADATA if last.get(name)}
    for row in read_scores(run / SCORES_NAME):
        if int(row["step"]) == step:
            key = "{suite}.{memory}.{prompt}".format(**row)
            share = "" if row["shard"] == "1/1" else f" (share {row['shard']} of the clips)"
            found[f"score.{key}"] = f"{100 * float(row['jf']):.1f}{share}"
    return found
