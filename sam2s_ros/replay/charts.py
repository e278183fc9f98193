"""The report's charts as inline SVG: timelines and histograms, readable without any script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STATE_COLOURS = {"tracking": "#3aa876", "occluded": "#e6a817", "lost": "#cf4b3f"}
VIEW_COLOURS = {"in view": "#4a5a6c", "out of view": "#c6ced8"}  # by the truth
NONE_COLOUR = "#e8ebef"
INK, MUTED, GRID, BLUE, VIOLET = "#1d2733", "#66717f", "#dfe4ea", "#2f6fde", "#8a4bd0"
CLASS_COLOURS = ("#7aa6d8", "#c39bd3", "#8fc1a9", "#e0b58a", "#b5b2d9", "#d99aa5", "#9fc5c9")

WIDTH, LEFT, RIGHT = 1080, 96, 16  # of a chart and its margins, in SVG units
COLUMNS = 900  # of a curve; longer series are thinned to this many means and extremes


class Axis(NamedTuple):
    """The time axis of a bag, in frames; labels are seconds."""

    frames: int
    seconds: float

    def x(self, frame: float) -> float:
        """Place of a frame's left edge."""
        return LEFT + (WIDTH - LEFT - RIGHT) * frame / max(1, self.frames)


def timeline(
    target: dict[str, Any],
    axis: Axis,
    suspects: Sequence[dict[str, Any]],
    truth: Sequence[tuple[str, int]] = (),
) -> str:
    """Draw a target's life: prompts, states, class, IoU estimate and, where known, J.

    `truth` says whether it was really in view, as runs of frames from its first one on.
    """
    rows: list[str] = [_marks(target, axis, suspects)]
    first = target["first_frame"]
    rows.append(_band("state", 26, 18, target["series"]["state"], first, axis, _state_colour))
    top = 50
    if truth:
        rows.append(_band("truth", top, 8, truth, first, axis, _view_colour))
        top += 14
    names = [name for name, _ in target["series"]["class"]]
    if any(name != "unknown" for name in names):
        shades = dict(
            zip(dict.fromkeys(n for n in names if n != "unknown"), CLASS_COLOURS * 9, strict=False)
        )
        rows.append(
            _band("class", top, 14, target["series"]["class"], first, axis,
                  lambda name: shades.get(name, NONE_COLOUR), written=True)
        )  # fmt: skip
        top += 20
    top, height = top + 4, 74
    rows.append(_grid(top, height))
    rows.append(_curve(target["series"]["iou"], first, axis, top, height, BLUE))
    if target["series"].get("j"):
        rows.append(_curve(target["series"]["j"], first, axis, top, height, VIOLET))
    rows.append(_time_axis(axis, top + height))
    return _svg(WIDTH, top + height + 30, rows, f"timeline of {target['name']}")


def histogram(edges: Sequence[float], counts: Sequence[int], marks: dict[str, float]) -> str:
    """Draw a histogram of milliseconds with lines at its percentiles."""
    width, height, top, left = 720, 190, 34, 46
    low, high = edges[0], edges[-1]
    span, most = (high - low) or 1.0, max([*counts, 1])

    def x(value: float) -> float:
        return left + (width - left - 14) * (min(max(value, low), high) - low) / span

    parts = []
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        bar = (height - 4) * count / most
        parts.append(
            f'<rect x="{x(start):.1f}" y="{top + height - bar:.1f}" '
            f'width="{max(0.5, x(end) - x(start) - 1):.1f}" height="{bar:.1f}" fill="#8fb3ee">'
            f"<title>{start:.1f}–{end:.1f} ms: {count} frames</title></rect>"
        )
    for k, (name, value) in enumerate(marks.items()):
        at = x(value)
        anchor = "end" if at > width - 90 else "start"
        shift = -4 if anchor == "end" else 4
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 22}" y2="{top + height}" '
            f'stroke="{INK}" stroke-dasharray="3 3"/>'
            + _text(at + shift, top - 14 + 11 * (k % 2), f"{name} {value:.1f}", anchor=anchor)
        )
    base = top + height
    parts.append(f'<line x1="{left}" x2="{width - 14}" y1="{base}" y2="{base}" stroke="{MUTED}"/>')
    for value in ticks(low, high):
        parts.append(_text(x(value), base + 16, f"{value:g}", anchor="middle", colour=MUTED))
    parts.append(_text(left - 6, top + 8, str(most), anchor="end", colour=MUTED))
    parts.append(_text(width - 14, base + 32, "ms a frame", anchor="end", colour=MUTED))
    return _svg(width, base + 40, parts, "latency histogram")


def ticks(low: float, high: float, wanted: int = 8) -> list[float]:
    """Choose round values between two numbers."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / wanted
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * k for k in (1, 2, 5, 10) if size * k >= raw)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _state_colour(state: str) -> str:
    return STATE_COLOURS.get(state, NONE_COLOUR)


def _view_colour(view: str) -> str:
    return VIEW_COLOURS.get(view, NONE_COLOUR)


def _marks(target: dict[str, Any], axis: Axis, suspects: Sequence[dict[str, Any]]) -> str:
    parts = []
    for prompt in target["prompts"]:
        at = axis.x(prompt["frame"] + 0.5)
        kind = "correction" if prompt["correction"] else "prompt"
        fill = "#ffffff" if prompt["correction"] else INK
        parts.append(
            f'<path d="M{at:.1f} 22 l-6 -11 h12 z" fill="{fill}" stroke="{INK}" stroke-width="1.4">'
            f"<title>{kind} ({escape(prompt['kind'])}) on frame {prompt['frame']}</title></path>"
        )
    for suspect in suspects:
        at = axis.x(suspect["frame"] + 0.5)
        parts.append(
            f'<path d="M{at:.1f} 10 l6 6 l-6 6 l-6 -6 z" fill="#d6336c">'
            f"<title>frame {suspect['frame']}: {escape(suspect['text'])}</title></path>"
        )
    return "".join(parts)


def _band(
    name: str, top: int, height: int, runs: Sequence[Sequence[Any]], first: int, axis: Axis,
    colour: Any, written: bool = False,
) -> str:  # fmt: skip
    parts = [
        _text(LEFT - 10, top + height - 4, name, anchor="end", colour=MUTED),
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{height}" '
        f'fill="{NONE_COLOUR}" opacity="0.5"/>',
    ]
    frame = first
    for value, length in runs:
        x, end = axis.x(frame), axis.x(frame + length)
        parts.append(
            f'<rect x="{x:.2f}" y="{top}" width="{max(end - x, 0.7):.2f}" height="{height}" '
            f'fill="{colour(value)}"><title>{escape(str(value))}: frames {frame}–'
            f"{frame + length - 1}</title></rect>"
        )
        if written and value != "unknown" and end - x > 7 * len(value):
            parts.append(_text(x + 4, top + height - 3, str(value), size=10))
        frame += length
    return "".join(parts)


def _grid(top: int, height: int) -> str:
    parts = []
    for value in (0.0, 0.5, 1.0):
        y = top + height * (1 - value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
            + _text(LEFT - 10, y + 4, f"{value:g}", anchor="end", colour=MUTED)
        )
    return "".join(parts)


def _curve(
    values: Sequence[float | None], first: int, axis: Axis, top: int, height: int, colour: str
) -> str:
    """Draw a series of 0..1: its mean as a line, its extremes as a pale band."""
    series = np.array([math.nan if v is None else v for v in values], np.float64)
    frames, low, mean, high = _thinned(series)
    known = ~np.isnan(mean)
    parts = []
    for piece in _pieces(known):
        xs = [axis.x(first + frames[k] + 0.5) for k in piece]

        def line(curve: NDArray[np.float64], piece: list[int], xs: list[float]) -> list[str]:
            return [
                f"{x:.1f},{top + height * (1 - min(1.0, max(0.0, float(curve[k])))):.1f}"
                for x, k in zip(xs, piece, strict=True)
            ]

        if len(series) > COLUMNS:
            around = [*line(high, piece, xs), *reversed(line(low, piece, xs))]
            parts.append(f'<polygon points="{" ".join(around)}" fill="{colour}" opacity="0.18"/>')
        parts.append(
            f'<polyline points="{" ".join(line(mean, piece, xs))}" fill="none" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )
    return "".join(parts)


def _thinned(
    series: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Reduce a series to at most `COLUMNS` places with their lowest, mean and highest value."""
    if len(series) <= COLUMNS:
        return np.arange(len(series), dtype=np.float64), series, series, series
    bounds = np.linspace(0, len(series), COLUMNS + 1).astype(int)
    parts = [series[a:b][~np.isnan(series[a:b])] for a, b in pairwise(bounds)]
    middle = (bounds[:-1] + bounds[1:]) / 2
    low, mean, high = (
        np.array([float(f(part)) if part.size else math.nan for part in parts])
        for f in (np.min, np.mean, np.max)
    )
    return middle, low, mean, high


def _pieces(known: NDArray[np.bool_]) -> Iterable[list[int]]:
    piece: list[int] = []
    for k, there in enumerate(known):
        if there:
            piece.append(k)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _time_axis(axis: Axis, top: int) -> str:
    parts = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top}" y2="{top}" stroke="{MUTED}"/>']
    for second in ticks(0, axis.seconds, 10):
        at = axis.x(axis.frames * second / axis.seconds) if axis.seconds else LEFT
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + 5}" stroke="{MUTED}"/>'
        )
        parts.append(_text(at, top + 18, f"{second:g}", anchor="middle", colour=MUTED))
    parts.append(_text(LEFT - 10, top + 18, "seconds", anchor="end", colour=MUTED))
    return "".join(parts)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: int = 11
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _svg(width: int, height: int, parts: Iterable[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width}px">{"".join(parts)}</svg>'
    )
