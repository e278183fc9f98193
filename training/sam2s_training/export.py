"""From a training's checkpoint to weights that `load_model` reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from sam2s_model.weights import save_weights
from sam2s_training.checkpoint import Checkpoint, CheckpointError, find_checkpoint
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
    sources: Path | Sequence[Path], target: Path | None = None, dtype: DtypeName = "float32"
) -> Path:
    """Write the averaged weights of a checkpoint, or of a run's newest.

    What the run's log and scores say of that step goes into the file's metadata. Of several
    checkpoints the mean is written, with the metadata of the last one but for these figures.

    Args:
        sources: checkpoint files or run folders.
        target: a .safetensors file; by default in the (last) run folder.
        dtype: float16 halves the file; `load_model` computes in float32 either way.
    """
    paths = [find_checkpoint(p) for p in ([sources] if isinstance(sources, Path) else sources)]
    states = [Checkpoint.load(path) for path in paths]
    run, state = paths[-1].parent.parent, states[-1]
    extra = figures(run, state.step)
    if len(states) > 1:
        state = mean_of(states, paths)
        steps = ", ".join(f"{one.step:,}" for one in states)
        extra = {"averaged": f"mean over steps {steps} of the weights' exponential moving averages"}
    if target is None:
        mean = "-mean" if len(paths) > 1 else ""
        target = run / f"{state.recipe['name']}-{state.step:08d}{mean}.safetensors"
    return write_ema(state, target, dtype, extra)


def mean_of(states: Sequence[Checkpoint], paths: Sequence[Path]) -> Checkpoint:
    """Give the last of several checkpoints with the mean of all their averaged weights.

    Where one was trained from the other and both at a low learning rate in the end, the mean can
    be better than each (docs/nano.md has figures).
    """
    last = states[-1]
    for state, path in zip(states, paths, strict=True):
        for name in sorted(state.ema.keys() | last.ema.keys()):
            shapes = [one.ema[name].shape if name in one.ema else None for one in (state, last)]
            if shapes[0] != shapes[1]:
                found, wanted = ("none" if s is None else f"{list(s)}" for s in shapes)
                raise CheckpointError(
                    f"{path} and {paths[-1]} cannot be averaged: {name} is {found} in one and "
                    f"{wanted} in the other; give checkpoints of one model"
                )
    ema = {
        name: torch.stack([state.ema[name] for state in states]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in last.ema.items()
    }
    return dataclasses.replace(last, ema=ema)


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
