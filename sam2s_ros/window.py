"""Rates and latencies over the last results."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

LENGTH = 250  # results, 10 s at 25 Hz


class Times(NamedTuple):
    """Figures of the last results; milliseconds."""

    rate: float  # results per second
    wait_p99: float  # from an image's arrival to the start of its inference
    inference_p50: float
    inference_p99: float
    total_p50: float  # from an image's arrival until its results were published
    total_p99: float


class Window:
    """Keeps the times of the last results; may be read from another thread."""

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float, float, float]] = deque(maxlen=LENGTH)

    def add(self, total: float, wait: float, inference: float) -> None:
        """Note a result: seconds in total, milliseconds of waiting and inference."""
        self._rows.append((time.monotonic(), total * 1e3, wait, inference))

    def read(self, since: float = 10.0) -> Times:
        """Sum up the results of the last seconds; all zero if there are none."""
        now = time.monotonic()
        rows = [row for row in tuple(self._rows) if now - row[0] <= since]
        if not rows:
            return Times(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        span = now - rows[0][0]
        rate = (len(rows) - 1) / span if len(rows) > 1 and span > 0 else 0.0
        total, wait, inference = (sorted(row[k] for row in rows) for k in (1, 2, 3))
        return Times(
            rate, percentile(wait, 99), percentile(inference, 50), percentile(inference, 99),
            percentile(total, 50), percentile(total, 99),
        )  # fmt: skip


def percentile(ordered: Iterable[float], percent: float) -> float:
    """Give the smallest of ordered values that so many percent do not exceed."""
    values = list(ordered)
    return values[max(math.ceil(percent / 100 * len(values)) - 1, 0)]
