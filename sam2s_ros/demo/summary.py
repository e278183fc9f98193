"""Counts what the demonstration saw, judges it, and lays it out as a table."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2s_model import metrics
from sam2s_model.table import markdown_table
from sam2s_ros.demo.stream import Target
from sam2s_ros.demo.tracking import Result

MIN_RECEIVED = 0.9  # of the published frames; below it the stream counts as lost
FRESH_SECONDS = 1.0  # the stream's last second must hold a result
NO_WEIGHTS = "n/a (no trained weights shipped yet)"


@dataclass
class Summary:
    """The figures of one run; None where there is nothing true to say."""

    scene: str
    trained: bool
    seconds: float  # of stream
    asked: int  # frames that the rate and the seconds ask for
    published: int
    received: int
    tracked: int
    skipped: int  # replaced by a newer frame before the tracker came to them
    targets: list[str]
    latency_p50: float | None  # seconds from stamp to masks
    latency_p99: float | None
    silence: float | None  # seconds from the last tracked frame's stamp to the stream's end
    j_and_f: dict[str, float] | None  # mean over the tracked frames after the prompt, by target
    class_hits: tuple[int, int] | None  # frames with the right class, and all of them
    failures: list[str] = dataclasses.field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Give the figures as plain values."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """Lay the figures out for a person."""
        received = f"{self.received} ({_percent(self.received, self.published)} of published)"
        tracked = f"{self.tracked} ({self.skipped} replaced by a newer one before their turn)"
        rows = [
            ("stream", self.scene),
            ("tracker", "shipped weights" if self.trained else "random weights: none are shipped"),
            ("targets", ", ".join(self.targets) or "none"),
            ("frames published", self._published()),
            ("frames received", received),
            ("frames tracked", tracked),
            ("stamp to result, p50 / p99", f"{_ms(self.latency_p50)} / {_ms(self.latency_p99)}"),
            ("J&F against the truth", self._scores()),
            ("class hits", self._hits()),
            ("verdict", "; ".join(self.failures) or "ok"),
        ]
        return markdown_table(["simulated endoscopy over DDS", "this run"], rows)

    def _published(self) -> str:
        if self.published >= MIN_RECEIVED * self.asked:
            return str(self.published)
        return f"{self.published} (of {self.asked} asked: the machine was too slow to render more)"

    def _scores(self) -> str:
        if not self.trained:
            return NO_WEIGHTS
        if not self.j_and_f:
            return "n/a"
        return ", ".join(f"{name} {100 * value:.1f}" for name, value in self.j_and_f.items())

    def _hits(self) -> str:
        if not self.trained:
            return NO_WEIGHTS
        if not self.class_hits or not self.class_hits[1]:
            return "n/a"
        return f"{self.class_hits[0]} of {self.class_hits[1]}"


def judge(summary: Summary, wanted: int) -> None:
    """Note in `failures` why a run with so many `wanted` targets was none to show."""
    if summary.received < MIN_RECEIVED * summary.published or not summary.received:
        summary.failures.append(
            f"the stream was lost: {summary.received} of {summary.published} frames arrived"
        )
    if len(summary.targets) < wanted:
        summary.failures.append(
            f"{len(summary.targets)} of {wanted} targets were found in the first frames"
        )
    elif summary.silence is None:
        summary.failures.append("the tracker gave no result")
    elif summary.silence > FRESH_SECONDS:
        summary.failures.append(
            f"the tracker gave no result for the last {summary.silence:.1f} s of the stream"
        )


def latencies(results: list[Result]) -> tuple[float | None, float | None]:
    """Give median and 99th percentile, in seconds."""
    if not results:
        return None, None
    known = metrics.latency([result.latency for result in results])
    return known.p50, known.p99


def scores(
    results: list[Result], targets: list[Target], truth: dict[int, NDArray[np.uint8]]
) -> tuple[dict[str, float], tuple[int, int]]:
    """Compare the masks and classes after the prompt with the truth."""
    series: dict[str, list[float]] = {target.name: [] for target in targets}
    confusion = metrics.Confusion()
    for result in results[1:]:
        if result.stamp not in truth:
            continue
        for target in targets:
            if target.name not in result.masks:
                continue  # its prompt is not applied yet
            real = truth[result.stamp] == target.identity
            series[target.name].append(metrics.score_mask(result.masks[target.name], real).mean)
            confusion[target.class_name, result.labels[target.name]] += 1
    top = confusion.top1()
    means = {name: float(np.mean(values)) for name, values in series.items() if values}
    return means, (int(top.hits), int(top.total))


def _ms(seconds: float | None) -> str:
    return "n/a" if seconds is None or math.isnan(seconds) else f"{1000 * seconds:.0f} ms"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "n/a"
