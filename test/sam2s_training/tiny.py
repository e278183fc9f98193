"""The smallest trainings that still have everything: two frames of 64 pixels, one scene."""

from pathlib import Path

import torch

from sam2s_training.checkpoint import Checkpoint, newest
from sam2s_training.distributed import World
from sam2s_training.log import read_rows
from sam2s_training.recipe import Recipe, parse_recipe
from sam2s_training.schema import merged
from sam2s_training.trainer import Outcome, SliceSettings, Trainer

CONTENT = {
    "name": "tiny",
    "seed": 5,
    "image_size": 64,
    "data": {
        "parts": {"endoscope": {"synthetic": {"scenes": 1, "clips_per_scene": 1000}}},
        "sampler": {"scattered": 1, "consecutive": 1},
        "loader": {"ahead": "none"},
    },
    "optim": {"batch": 1, "warmup": 2, "ema": 0.9},
    "log": {"every": 1, "overlays": 0, "export": 0, "tensorboard": False},
    "phases": [{"name": "clips", "steps": 6}],
}
TIMES = ("minutes", "clips_per_s", "waited")  # columns that no two runs share


def tiny(**changes: object) -> Recipe:
    return parse_recipe(merged(CONTENT, changes), "tiny.yaml")


def train(recipe: Recipe, out: Path, **settings: object) -> Outcome:
    return Trainer(
        recipe, SliceSettings(out, quiet=True, **settings), World(torch.device("cpu"))
    ).run()


def state_of(run: Path) -> Checkpoint:
    found = newest(run / "checkpoints")
    assert found is not None
    return found[1]


def log_of(run: Path) -> list[dict[str, str]]:
    rows = read_rows(run / "log.csv")
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def same_tensors(a: dict, b: dict) -> bool:
    if a.keys() != b.keys():
        return False
    return all(
        same_tensors(a[k], b[k]) if isinstance(a[k], dict) else torch.equal(a[k], b[k]) for k in a
    )
