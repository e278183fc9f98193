"""Plots of a clip's targets: IoU over time, with the frames shaded on which a target is absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.record import ClipRecord, TargetSeries
from sam2s_model.metrics import reentries

LINE, MISS, FOUND = "#1f6f9f", "#c8452d", "#2f8f4e"
ABSENT, SWAP = "#d9dde2", "#e3a008"
ROWS_PER_PAGE = 12  # a clip with more targets gets further files


class PlotError(Sam2sError):
    """Plots were asked for and cannot be drawn."""


def require_matplotlib() -> None:
    """Say early, and not after hours, that plots cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotError(
            "plots need matplotlib: pip install matplotlib, or give --no-plots"
        ) from error


def plot_clip(path: Path, record: ClipRecord, min_absence: int) -> list[Path]:
    """Draw one row per target; writes `path`, and `<name>-2.png` … if there are many targets."""
    require_matplotlib()
    # The object interface with Agg: no display, and no state shared with a caller's own figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for page, start in enumerate(range(0, len(record.targets), ROWS_PER_PAGE), 1):
        targets = record.targets[start : start + ROWS_PER_PAGE]
        figure = Figure(figsize=(11, 1.1 + 1.25 * len(targets)), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(targets), 1, sharex=True, squeeze=False)
        for axes, series in zip(rows[:, 0], targets, strict=True):
            _plot_target(axes, record, series, min_absence)
        rows[-1, 0].set_xlabel("frame" if not record.fps else f"frame ({record.fps:g} per second)")
        figure.suptitle(f"{record.dataset} / {record.clip}", fontsize=11, x=0.01, ha="left")
        _legend(figure)
        place = path if page == 1 else path.with_name(f"{path.stem}-{page}{path.suffix}")
        figure.savefig(place, dpi=110)
        written.append(place)
    return written


def _plot_target(axes: Any, record: ClipRecord, series: TargetSeries, min_absence: int) -> None:
    frames = record.annotated
    visible = [area > 0 for area in series.area]
    start = frames.index(series.prompt_frame)
    for first, last in _spans(frames, [not seen for seen in visible]):
        axes.axvspan(first - 0.5, last + 0.5, color=ABSENT, lw=0)
    # J says nothing on absent frames (1 or 0 by convention): the line has gaps there.
    nan = float("nan")
    line = [
        j if seen and k >= start else nan
        for k, (j, seen) in enumerate(zip(series.j, visible, strict=True))
    ]
    axes.plot(frames, line, color=LINE, lw=1.2)
    wrong = [
        frame
        for k, frame in enumerate(frames)
        if k >= start and not visible[k] and not series.said_absent[k]
    ]
    axes.plot(wrong, [0.04] * len(wrong), "|", color=MISS, ms=6, mew=1)
    swapped = [
        f
        for f, held in zip(frames, series.follows, strict=True)
        if held not in (0, series.instance)
    ]
    axes.plot(swapped, [0.14] * len(swapped), "|", color=SWAP, ms=6, mew=1)
    axes.plot([series.prompt_frame], [1.0], "v", color="black", ms=5, clip_on=False)
    for entry in reentries(frames[start:], visible[start:], series.j[start:], min_absence):
        after = entry.recovered_after
        marker, colour = ("x", MISS) if after is None else ("o", FOUND)
        axes.plot([entry.frame + (after or 0)], [1.0], marker, color=colour, ms=5, clip_on=False)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(frames[0] - 0.5, frames[-1] + 0.5)
    axes.set_yticks([0, 0.5, 1])
    axes.grid(axis="y", color="#eceff2", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    name = f"{series.name} {series.class_name or ''}".strip()
    mean = [j for j in line if j == j]
    score = f"   mean IoU while visible {100 * sum(mean) / len(mean):.1f} %" if mean else ""
    axes.set_title(name + score, loc="left", fontsize=8.5, pad=3)
    axes.set_ylabel("IoU", fontsize=8)
    axes.tick_params(labelsize=8)


def _spans(frames: Sequence[int], marked: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first and last frame of each run of marked frames."""
    first = None
    for k, on in enumerate(marked):
        if on and first is None:
            first = frames[k]
        if first is not None and not on:
            yield first, frames[k - 1]
            first = None
    if first is not None:
        yield first, frames[-1]


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(marker: str, colour: str, label: str) -> Any:
        return Line2D([], [], ls="", marker=marker, color=colour, ms=5, label=label)

    handles = [
        Line2D([], [], color=LINE, label="IoU"),
        Patch(color=ABSENT, label="absent"),
        mark("v", "black", "prompt"),
        mark("o", FOUND, "found again"),
        mark("x", MISS, "return missed"),
        mark("|", MISS, "drawn while absent"),
        mark("|", SWAP, "on another instance"),
    ]
    figure.legend(
        handles=handles, loc="outside upper right", ncols=len(handles), fontsize=7.5, frameon=False
    )
