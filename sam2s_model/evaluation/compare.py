"""Set two runs side by side: every figure, its difference, and a paired bootstrap interval.

Only targets that both runs scored count. Videos (or targets) are drawn with replacement inside
each data set, the same ones for both runs, and every figure is pooled anew: the interval says how
far the difference would move with other videos of the same kind. The seed is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.record import read_json
from sam2s_model.evaluation.report import FORMAT, figure_text
from sam2s_model.evaluation.scores import FIGURES, known
from sam2s_model.table import markdown_table

Unit = Literal["video", "target"]
Key = tuple[str, str, str]  # data set, clip, target

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0


class CompareError(Sam2sError):
    """Runs that cannot be compared."""


class Difference(NamedTuple):
    """One figure of two runs: the macro averages, their difference B − A and its interval."""

    figure: str
    a: float
    b: float
    low: float  # nan where there are too few units to resample
    high: float
    units: int  # videos or targets with something to count

    @property
    def difference(self) -> float:
        """B − A."""
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common, and how they differ."""

    macro: list[Difference]
    datasets: dict[str, list[Difference]]
    pairs: int
    unpaired: list[str]  # targets that only one run has scored
    settings: list[tuple[str, Any, Any]]  # that differ
    latency: tuple[Mapping[str, float] | None, Mapping[str, float] | None]
    unit: Unit


def load_results(path: Path) -> dict[str, Any]:
    """Read a run's results.json, given the file or its folder."""
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise CompareError(f"{path}: neither a run folder nor its results.json")
    results = read_json(file)
    if results.get("format") != FORMAT:
        raise CompareError(f"{file}: not the results of an evaluation ({FORMAT})")
    return results


def compare_runs(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    unit: Unit = "video",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compare two results.json contents."""
    if a["frames_counted"] != b["frames_counted"]:
        raise CompareError(
            f"one run counts frames by `{a['frames_counted']}`, the other by "
            f"`{b['frames_counted']}`; repeat one with the other's --frames"
        )
    ours, theirs = _figures(a), _figures(b)
    common = [key for key in ours if key in theirs]
    if not common:
        raise CompareError(
            "the two runs have no target in common: were they run on the same clips?"
        )
    groups: dict[str, dict[tuple[str, ...], list[Key]]] = {}
    for key in common:
        who = key[:2] if unit == "video" else key
        groups.setdefault(key[0], {}).setdefault(who, []).append(key)
    rng = np.random.default_rng(seed)
    # One draw per data set serves all figures, so that they can be read together.
    draws = {name: _draw(rng, len(units), resamples) for name, units in groups.items()}
    macro, datasets = [], {name: list[Difference]() for name in groups}
    for figure, _, _ in FIGURES:
        counts = {
            name: np.array(
                [_sum(ours, keys, figure) + _sum(theirs, keys, figure) for keys in units.values()]
            )
            for name, units in groups.items()
        }
        for name, table in counts.items():
            datasets[name].append(_difference(figure, {name: table}, draws))
        macro.append(_difference(figure, counts, draws))
    unpaired = sorted("/".join(key) for key in set(ours) ^ set(theirs))
    latency = tuple(run["scores"]["macro"].get("latency_seconds") for run in (a, b))
    return Comparison(
        macro,
        datasets,
        len(common),
        unpaired,
        _setting_differences(a, b),
        (latency[0], latency[1]),
        unit,
    )


def comparison_markdown(comparison: Comparison, a: str, b: str) -> str:
    """Lay a comparison out as tables for reading."""
    parts = [f"# {a} against {b}", f"A is {a}, B is {b}; {comparison.pairs} targets in both runs."]
    if comparison.settings:
        rows = [[name, left, right] for name, left, right in comparison.settings]
        parts += ["## What differs", markdown_table(["setting", "A", "B"], rows)]
    parts += [
        "## Macro average",
        f"Difference B − A with its {CONFIDENCE:.0%} interval: paired bootstrap over "
        f"{comparison.unit}s, {RESAMPLES} resamples.",
        _difference_table(comparison.macro, comparison.unit),
    ]
    if len(comparison.datasets) > 1:
        for name, differences in comparison.datasets.items():
            parts += [f"## {name}", _difference_table(differences, comparison.unit)]
    if all(comparison.latency):
        rows = [
            [name, *(f"{1e3 * times[name]:.1f}" for times in comparison.latency if times)]
            for name in ("mean", "p50", "p95", "p99")
        ]
        parts += ["## Latency", markdown_table(["", "A ms", "B ms"], rows)]
    if comparison.unpaired:
        parts += [
            "## Targets in one run only (left out)",
            "\n".join(f"- {name}" for name in comparison.unpaired),
        ]
    return "\n\n".join(parts) + "\n"


def _figures(run: Mapping[str, Any]) -> dict[Key, dict[str, list[float]]]:
    return {(t["dataset"], t["clip"], t["target"]): t["figures"] for t in run["targets"]}


def _sum(
    figures: Mapping[Key, Mapping[str, Sequence[float]]], keys: Sequence[Key], figure: str
) -> list[float]:
    """Add up hits and totals of a unit's targets."""
    return [sum(figures[key][figure][part] for key in keys) for part in (0, 1)]


def _draw(rng: np.random.Generator, units: int, resamples: int) -> NDArray[np.int64]:
    """How often each unit comes up in each resample, (resamples, units)."""
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples)


def _difference(
    figure: str,
    counts: Mapping[str, NDArray[np.float64]],
    draws: Mapping[str, NDArray[np.int64]],
) -> Difference:
    """Compare a figure; `counts` holds (units, 4) hits and totals of A and of B per data set."""
    ones = {name: np.ones((1, len(table)), np.int64) for name, table in counts.items()}
    a, b = (float(side[0]) for side in _macro(counts, ones))
    units = sum(int(((table[:, 1] > 0) | (table[:, 3] > 0)).sum()) for table in counts.values())
    low = high = math.nan
    if units > 1 and not math.isnan(b - a):
        left, right = _macro(counts, draws)
        tail = 50 * (1 - CONFIDENCE)
        low, high = (float(v) for v in np.nanpercentile(right - left, (tail, 100 - tail)))
    return Difference(figure, a, b, low, high, units)


def _macro(
    counts: Mapping[str, NDArray[np.float64]], draws: Mapping[str, NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pool per data set and resample, average over data sets: A's and B's values (resamples,)."""
    sides = []
    for side in (0, 2):
        pooled = []
        for name, table in counts.items():
            hits, totals = (draws[name] @ table[:, side + part] for part in (0, 1))
            empty = totals == 0
            pooled.append(np.where(empty, math.nan, hits / np.where(empty, 1, totals)))
        stacked = np.stack(pooled)
        have = ~np.isnan(stacked)
        number = have.sum(0)
        total = np.where(have, stacked, 0.0).sum(0)
        sides.append(np.where(number > 0, total / np.maximum(number, 1), math.nan))
    return sides[0], sides[1]


def _difference_table(differences: Sequence[Difference], unit: Unit) -> str:
    rows = []
    for d, (key, title, higher_is_better) in zip(differences, FIGURES, strict=True):
        texts = [figure_text(key, known(v)) for v in (d.a, d.b, d.difference, d.low, d.high)]
        verdict = ""
        if d.clear:
            verdict = "B better" if (d.difference > 0) == higher_is_better else "B worse"
        interval = "n/a" if math.isnan(d.low) else f"{texts[3]} … {texts[4]}"
        rows.append([title, texts[0], texts[1], texts[2], interval, verdict, d.units])
    return markdown_table(["figure", "A", "B", "B − A", "interval", "verdict", f"{unit}s"], rows)


def _setting_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    found = []
    for part in ("tracker", "protocol"):
        left, right = (run.get("settings", {}).get(part, {}) for run in (a, b))
        found += [
            (name, left.get(name), right.get(name))
            for name in dict.fromkeys([*left, *right])
            if left.get(name) != right.get(name)
        ]
    return found
