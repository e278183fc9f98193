"""Pictures of a training: losses, learning rate, and scores of its checkpoints over the steps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sam2s_model.errors import Sam2sError
from sam2s_training.log import CSV_NAME, read_rows
from sam2s_training.losses import WEIGHTED
from sam2s_training.scores import SCORES_NAME, read_scores

LOSSES = ("loss", *WEIGHTED)
QUALITY = ("drawn_iou", "presence_right", "name_right", "class_right")
TITLES = {
    "drawn_iou": "IoU of training clips",
    "presence_right": "presence right",
    "name_right": "class right, place known",
    "class_right": "class right",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
}
LINE, FAINT, PHASE = "#1f6f9f", "#b9cfdd", "#d0d4d8"
WINDOW = 10  # rows that the smooth line averages over


class CurvesError(Sam2sError):
    """A run whose curves cannot be drawn."""


def draw_curves(run: Path, target: Path | None = None) -> Path:
    """Draw a run's log.csv, and its scores.csv if it was evaluated; writes curves.png."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CurvesError("curves need matplotlib: pip install matplotlib") from error
    rows = read_rows(run / CSV_NAME)
    if not rows:
        raise CurvesError(f"{run / CSV_NAME} has no row; give the folder of a training (--out)")
    scores = read_scores(run / SCORES_NAME)
    names = [n for n in (*LOSSES, *QUALITY, "grad_norm", "lr") if any(row.get(n) for row in rows)]
    panels = len(names) + bool(scores)
    columns = 3
    lines = -(-panels // columns)
    figure = Figure(figsize=(5 * columns, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for name, place in zip(names, axes, strict=False):
        _draw(place, rows, name)
    if scores:
        _draw_scores(axes[len(names)], scores)
    for place in axes[panels:]:
        place.set_axis_off()
    phases = [phase for phase, _ in groupby(rows, key=lambda row: row["phase"])]
    if len(phases) > 1:
        listed = "   ".join(f"{n}\N{NO-BREAK SPACE}{phase}" for n, phase in enumerate(phases, 1))
        figure.supxlabel(textwrap.fill(f"phases: {listed}", 180), fontsize=8)
    target = target or run / "curves.png"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=90)
    except OSError as error:
        raise CurvesError(f"{target} cannot be written: {error.strerror}") from error
    return target


def _draw(axes: Any, rows: Sequence[dict[str, str]], name: str) -> None:
    lowest: list[float] = []
    # A change of phase changes what a loss means, so no line and no mean runs across it.
    for number, (_, members) in enumerate(groupby(rows, key=lambda row: row["phase"]), 1):
        own = list(members)
        first = int(own[0]["step"])
        axes.axvline(first, color=PHASE, linewidth=0.8, zorder=0)
        axes.annotate(
            str(number),
            (first, 1),
            xytext=(1, 1 + 6 * (number % 2)),  # those of short phases would touch on one line
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=6,
            va="bottom",
        )
        found = [(int(row["step"]), float(row[name])) for row in own if row.get(name)]
        if not found:
            continue
        steps, values = [step for step, _ in found], [value for _, value in found]
        smoothed = values if name == "lr" else _smoothed(values)
        axes.plot(steps, values, color=FAINT, linewidth=0.7)
        axes.plot(steps, smoothed, color=LINE, linewidth=1.4)
        lowest.append(min(values))
    axes.set_ylabel(TITLES.get(name, name))
    axes.set_xlabel("step")
    if name in (*LOSSES, "grad_norm") and min(lowest, default=0) > 0:
        axes.set_yscale("log")


def _draw_scores(axes: Any, scores: Sequence[dict[str, str]]) -> None:
    def kind(row: dict[str, str]) -> tuple[str, str, str]:
        return row["suite"], row["memory"], row["prompt"]

    for key, members in groupby(sorted(scores, key=kind), key=kind):
        found = sorted((int(row["step"]), 100 * float(row["jf"])) for row in members if row["jf"])
        axes.plot(*zip(*found, strict=True), marker="o", markersize=3, label=", ".join(key))
    axes.set_ylabel("J&F")
    axes.set_xlabel("step")
    axes.legend(fontsize=6)


def _smoothed(values: Sequence[float]) -> list[float]:
    """Mean over the last WINDOW values."""
    means, total = [], 0.0
    for n, value in enumerate(values):
        total += value - (values[n - WINDOW] if n >= WINDOW else 0.0)
        means.append(total / min(n + 1, WINDOW))
    return means
