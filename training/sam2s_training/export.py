"""From a training's checkpoint to weights that `load_model` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam2s_model.weights import save_weights
from sam2s_training.checkpoint import Checkpoint, find_checkpoint
from sam2s_training.recipe import Recipe, parse_recipe

Metadata = Mapping[str, object]


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


def write_ema(state: Checkpoint, path: Path, extra: Metadata | None = None) -> Path:
    """Write a checkpoint's averaged weights as safetensors."""
    save_weights(path, state.ema, {**metadata_of(state), **(extra or {})})
    return path


def export_checkpoint(source: Path, target: Path | None = None) -> Path:
    """Write the averaged weights of a checkpoint, or of a run's newest.

    Args:
        source: a checkpoint file or a run folder.
        target: a .safetensors file; by default beside the run's checkpoints.
    """
    path = find_checkpoint(source)
    state = Checkpoint.load(path)
    if target is None:
        target = path.parent.parent / f"{state.recipe['name']}-{state.step:08d}.safetensors"
    return write_ema(state, target)
