"""What an evaluated clip leaves behind: each target's series over the annotated frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam2s_model.errors import Sam2sError
from sam2s_model.whole_file import write_whole

FORMAT = "sam2s-eval-clip/1"


class RecordError(Sam2sError):
    """A results file that cannot be read."""


@dataclass
class TargetSeries:
    """One target over a clip's annotated frames; all lists have their length.

    Before its prompt a target's prediction is empty: J and F are 1 where it is out of view, else 0.
    """

    name: str
    instance: int  # its id in the annotation
    class_name: str | None
    prompt_frame: int
    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    area: list[int] = field(default_factory=list)  # true pixels; 0: absent
    predicted_area: list[int] = field(default_factory=list)
    said_absent: list[bool] = field(default_factory=list)
    follows: list[int] = field(
        default_factory=list
    )  # instance whose mask it has (J ≥ 0.5), 0: none
    label: list[str | None] = field(default_factory=list)


@dataclass
class ClipRecord:
    """An evaluated clip, or one that failed (then `failure` says why and there are no targets)."""

    dataset: str
    clip: str
    key: str  # of the settings and the clip's data
    length: int = 0
    fps: float | None = None
    annotated: list[int] = field(default_factory=list)
    targets: list[TargetSeries] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)  # steps without a prompt
    problems: list[str] = field(default_factory=list)  # frames or targets left out, and why
    failure: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the record; the file is whole or not there."""
        write_whole(path, json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False))

    @staticmethod
    def load(path: Path) -> ClipRecord:
        """Read a record."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            targets = [TargetSeries(**target) for target in content.pop("targets")]
            return ClipRecord(targets=targets, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{path}: no readable clip record: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected a JSON object")
    return content
