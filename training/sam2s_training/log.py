"""What a training says while it runs: log.csv, TensorBoard, a progress line."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

CSV_NAME = "log.csv"
FIRST = ("step", "phase", "phase_step", "minutes", "lr", "loss")  # columns before the loss parts
LAST = ("grad_norm", "clips", "clips_per_s", "waited")  # waited: share of the time, for data
LINE_EVERY = 0.5  # seconds between two progress lines on a terminal ...
LINE_EVERY_FILE = 30.0  # ... and in a file
SMOOTH = 0.9  # share of the past in the shown loss

Row = Mapping[str, float | int | str]


class RowSums:
    """The steps that the next row averages over; kept in checkpoints, so that rows resume too."""

    def __init__(self, state: Mapping[str, float] | None = None) -> None:
        self._totals: dict[str, float] = dict(state or {})

    def add(self, values: Mapping[str, float], seconds: float, waited: float) -> None:
        """Take a step in; a value that is no number is left out of its mean."""
        for name, value in values.items():
            if math.isfinite(value):
                self._add(f"sum {name}", value)
                self._add(f"count {name}", 1)
        self._add("seconds", seconds)
        self._add("waited", waited)
        self._add("steps", 1)

    def take(self, clips_per_step: int) -> dict[str, float]:
        """Give the means, with speed and waiting, and begin anew."""
        totals, self._totals = self._totals, {}
        names = [key.removeprefix("sum ") for key in totals if key.startswith("sum ")]
        means = {name: totals[f"sum {name}"] / totals[f"count {name}"] for name in names}
        means["clips_per_s"] = clips_per_step * totals["steps"] / max(totals["seconds"], 1e-9)
        means["waited"] = totals["waited"] / max(totals["seconds"], 1e-9)
        return means

    def state(self) -> dict[str, float]:
        """Give what has been gathered."""
        return dict(self._totals)

    def _add(self, key: str, value: float) -> None:
        self._totals[key] = self._totals.get(key, 0.0) + value


class CsvLog:
    """Rows of one file; a column that turns up later is added to the rows before it, empty."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the log of a run that continues after `step`: later rows are dropped.

        They are of steps that came after the last checkpoint, and are made again.
        """
        self.path = path
        self.rows = [row for row in read_rows(path) if int(row["step"]) <= step]
        found = dict.fromkeys(key for row in self.rows for key in row)
        self.columns = _in_order(list(found))
        self._rewrite()

    def add(self, row: Row) -> None:
        """Append a row; it is on the disk when this returns."""
        texts = {key: _text(value) for key, value in row.items()}
        self.rows.append(texts)
        if any(key not in self.columns for key in texts):
            self.columns = _in_order([*self.columns, *texts])
            self._rewrite()
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(texts)

    def _rewrite(self) -> None:
        if not self.columns:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        partial = self.path.with_name(self.path.name + ".part")
        partial.write_text(text.getvalue(), newline="")
        partial.replace(self.path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a log's rows; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: value for key, value in row.items() if value}
        for row in rows
        if row.get("step", "").isdigit() and None not in row.values()
    ]


class Board:
    """TensorBoard, where its package is installed."""

    def __init__(self, folder: Path, step: int, wanted: bool) -> None:
        self._writer: Any = None
        if not wanted:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    @property
    def is_on(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def add(self, row: Row, step: int) -> None:
        """Write a row's numbers."""
        if self._writer is not None:
            for key, value in row.items():
                if key not in ("step", "phase") and not isinstance(value, str):
                    self._writer.add_scalar(key, value, step)

    def picture(self, image: Any, step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        if self._writer is not None:
            self._writer.add_image("batch", image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()


class ProgressLine:
    """One line that says where the training is and how long it still takes."""

    def __init__(
        self, total: int, step: int, stream: TextIO | None = None, silent: bool = False
    ) -> None:
        self.total, self.silent = total, silent
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.start = self.shown = time.monotonic()
        self.phase_start: tuple[str, float, int] = ("", self.start, step)
        self.last = (self.start, step)  # when the row before was made
        self.loss: float | None = None

    def update(
        self, step: int, phase: str, phase_left: int, loss: float, clips_per_second: float
    ) -> None:
        """Show the state after `step` steps; `phase_left` steps of the phase are to come."""
        now = time.monotonic()
        if phase != self.phase_start[0]:
            self.phase_start = (phase, *self.last)
        self.last = (now, step)
        self.loss = loss if self.loss is None else SMOOTH * self.loss + (1 - SMOOTH) * loss
        every = LINE_EVERY if self.on_terminal else LINE_EVERY_FILE
        if self.silent or (now - self.shown < every and step < self.total):
            return
        self.shown = now
        _, since, first = self.phase_start
        # Phases differ in speed: what the present one tells is told for the present one.
        per_step = (now - since) / max(step - first, 1) if step > first else 0.0
        line = (
            f"{phase}: step {step:,} of {self.total:,} ({step / self.total:.1%}), "
            f"loss {self.loss:.4g}, {clips_per_second:.3g} clips/s, "
            f"phase done in {duration(phase_left * per_step)}, "
            f"all in about {duration((self.total - step) * per_step)}"
        )
        if self.on_terminal:
            self.stream.write(f"\r\033[K{line}")
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """Print a message without tearing the line."""
        if self.silent:
            return
        self.stream.write(("\r\033[K" if self.on_terminal else "") + text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Leave the line as it stands."""
        if self.on_terminal and not self.silent:
            self.stream.write("\n")
            self.stream.flush()


def duration(seconds: float) -> str:
    """Write seconds as 1:02:03."""
    whole = round(max(seconds, 0.0))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _in_order(columns: list[str]) -> list[str]:
    parts = sorted(set(columns) - {*FIRST, *LAST})
    return [*FIRST, *parts, *LAST] if columns else []


def _text(value: float | int | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
