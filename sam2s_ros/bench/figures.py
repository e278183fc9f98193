"""What a bench of the node counts, and what is asked of each figure. No ROS in here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sam2s_model.errors import Sam2sError

MIN_SHARE = 0.99  # of the frames have results, where the tracker is fast enough
MAX_LATENCY_P99 = 90.0  # ms from stamp to receipt, at 640×512 and 25 Hz
MAX_ADDED_P50 = 6.0  # ms that the node adds to the tracker's own time, at 1280×1024
# Of the rate that the inference time and the frames in inference at once allow, or of the camera's.
MIN_OF_MODEL_RATE = 0.9


class NothingMeasuredError(Sam2sError):
    """A bench run in which no frame had a result."""


@dataclass(frozen=True)
class Case:
    """One stream to time, and the figures that it is about."""

    name: str
    width: int
    height: int
    rate: float  # frames per second
    encoding: str
    goals: tuple[str, ...]


CASES = (
    Case("640x512", 640, 512, 25.0, "rgb8", ("share", "latency")),
    # Slow enough that no frame waits for another: what the node adds is then plain to see.
    Case("1280x1024", 1280, 1024, 5.0, "rgb8", ("added",)),
    Case("1920x1080", 1920, 1080, 30.0, "bgr8", ("model rate", "age")),
)


@dataclass(frozen=True)
class Receipt:
    """One result as received; durations in milliseconds, from its FrameTiming."""

    stamp: int  # ns, of the image
    received: int  # ns, by the same clock
    wait: float
    inference: float
    publish: float
    stamp_to_result: float


@dataclass(frozen=True)
class Figures:
    """The figures of one case; times in milliseconds."""

    seconds: float
    published: int
    results: int
    latency_p50: float  # stamp to receipt
    latency_p99: float
    inference_p50: float
    wait_p50: float
    publish_p50: float
    added_p50: float  # stamp to receipt, without inference
    age_p50: float  # of a frame when its inference begins
    age_p99: float
    lanes: int  # frames in inference at the same time, at most

    @property
    def share(self) -> float:
        """Part of the published frames that have a result."""
        return self.results / self.published

    @property
    def rate(self) -> float:
        """Results per second."""
        return self.results / self.seconds

    def breakdown(self) -> str:
        """Say where a median frame's time goes; the rest is transport, and masks at source size."""
        rest = self.latency_p50 - self.wait_p50 - self.inference_p50 - self.publish_p50
        return (
            f"{self.latency_p50:.1f} ms from stamp to receipt: {self.wait_p50:.1f} waiting, "
            f"{self.inference_p50:.1f} inference, {self.publish_p50:.1f} messages, "
            f"{rest:.1f} rest; {self.rate:.1f} results/s"
        )

    def as_json(self) -> dict[str, float]:
        """Give the figures as plain values."""
        return {**dataclasses.asdict(self), "share": self.share, "rate": self.rate}


def count(stamps: Sequence[int], receipts: Sequence[Receipt], rate: float) -> Figures:
    """Count what arrived of the frames with these stamps, published at so many a second."""
    published = set(stamps)
    known = [receipt for receipt in receipts if receipt.stamp in published]
    if not known:
        raise NothingMeasuredError(
            f"none of the {len(stamps)} frames had a result; the nodes' output above says why"
        )
    total = np.array([(receipt.received - receipt.stamp) / 1e6 for receipt in known])
    inference = np.array([receipt.inference for receipt in known])
    ages = np.array([r.stamp_to_result - r.publish - r.inference for r in known])
    return Figures(
        seconds=len(stamps) / rate,
        published=len(published),
        results=len({receipt.stamp for receipt in known}),
        latency_p50=_percentile(total, 50),
        latency_p99=_percentile(total, 99),
        inference_p50=_percentile(inference, 50),
        wait_p50=_percentile([receipt.wait for receipt in known], 50),
        publish_p50=_percentile([receipt.publish for receipt in known], 50),
        added_p50=_percentile(total - inference, 50),
        age_p50=_percentile(ages, 50),
        age_p99=_percentile(ages, 99),
        lanes=_at_once(known),
    )


def rows(case: Case, figures: Figures) -> list[list[str]]:
    """Lay the case's figures out: case, figure, goal, measured, verdict."""
    return [[case.name, *GOALS[goal](case, figures)] for goal in case.goals]


def _percentile(values: object, percent: float) -> float:
    return float(np.percentile(np.asarray(values, float), percent))


def _at_once(receipts: Sequence[Receipt]) -> int:
    """Count the frames that were in inference at the same time, at most."""
    changes = []
    for receipt in {receipt.stamp: receipt for receipt in receipts}.values():
        end = receipt.stamp / 1e6 + receipt.stamp_to_result - receipt.publish
        changes += [(end - receipt.inference, 1), (end, -1)]
    return int(np.cumsum([change for _, change in sorted(changes)]).max())


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _share(case: Case, figures: Figures) -> list[str]:
    measured = f"{100 * figures.share:.1f} % ({figures.results} of {figures.published})"
    goal = f">= {100 * MIN_SHARE:.0f} %"
    return ["frames with results", goal, measured, _verdict(figures.share >= MIN_SHARE)]


def _latency(case: Case, figures: Figures) -> list[str]:
    measured = f"p99 {figures.latency_p99:.1f} ms (p50 {figures.latency_p50:.1f})"
    met = figures.latency_p99 <= MAX_LATENCY_P99
    return ["stamp to receipt", f"p99 <= {MAX_LATENCY_P99:.0f} ms", measured, _verdict(met)]


def _added(case: Case, figures: Figures) -> list[str]:
    measured = f"p50 {figures.added_p50:.1f} ms (inference {figures.inference_p50:.1f})"
    met = figures.added_p50 <= MAX_ADDED_P50
    return ["added by the node", f"p50 <= {MAX_ADDED_P50:.0f} ms", measured, _verdict(met)]


def _model_rate(case: Case, figures: Figures) -> list[str]:
    possible = min(case.rate, figures.lanes * 1000 / figures.inference_p50)
    measured = f"{figures.rate:.1f} Hz (inference {figures.inference_p50:.1f} ms)"
    met = figures.rate >= MIN_OF_MODEL_RATE * possible
    goal = (
        f">= {MIN_OF_MODEL_RATE * possible:.1f} Hz, {100 * MIN_OF_MODEL_RATE:.0f} % of the model's"
    )
    return ["results", goal, measured, _verdict(met)]


def _age(case: Case, figures: Figures) -> list[str]:
    interval = 1000 / case.rate
    measured = f"p99 {figures.age_p99:.1f} ms (p50 {figures.age_p50:.1f})"
    met = figures.age_p99 <= interval
    return ["age at inference", f"p99 <= {interval:.1f} ms", measured, _verdict(met)]


GOALS: dict[str, Callable[[Case, Figures], list[str]]] = {
    "share": _share,
    "latency": _latency,
    "added": _added,
    "model rate": _model_rate,
    "age": _age,
}
