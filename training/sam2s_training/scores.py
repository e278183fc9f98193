"""scores.csv of a run: what its checkpoints reached, a row per step, suite and tracking."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2s_model.evaluation.scores import FIGURES

SCORES_NAME = "scores.csv"
KEYS = ("step", "suite", "memory", "prompt", "shard")  # what tells one row from another
SCORE_COLUMNS = (*KEYS, "targets", *(key for key, _, _ in FIGURES))


def read_scores(path: Path) -> list[dict[str, str]]:
    """Read the scores of a run, one row per checkpoint, suite and way of tracking."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def note_scores(
    path: Path, step: int, how: Mapping[str, str], datasets: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add the scores of each data set; a row of the same kind is replaced."""
    new = [
        {
            "step": str(step),
            "suite": name,
            **how,  # memory, prompt, shard
            "targets": str(group["targets"]),
            **{key: "" if group[key] is None else f"{group[key]:.5f}" for key, _, _ in FIGURES},
        }
        for name, group in datasets.items()
    ]
    rows = [*_without(read_scores(path), new), *new]
    rows.sort(key=lambda row: (int(row["step"]), *(row[key] for key in KEYS[1:])))
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, SCORE_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _without(
    rows: Sequence[dict[str, str]], renewed: Sequence[Mapping[str, str]]
) -> list[dict[str, str]]:
    known = {tuple(row[key] for key in KEYS) for row in renewed}
    return [row for row in rows if tuple(row[key] for key in KEYS) not in known]
