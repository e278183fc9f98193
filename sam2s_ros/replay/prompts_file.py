"""The prompts file: which targets to track, in YAML. docs/replay.md describes it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sam2s_model.errors import Sam2sError
from sam2s_model.prompt import Prompt
from sam2s_model.video import read_mask
from sam2s_ros.replay.actions import Action
from sam2s_ros.replay.errors import PromptsFileError

MOMENTS = ("frame", "stamp", "seconds")
MARKS = ("points", "labels", "box", "mask", "instance")
KEYS = (*MOMENTS, "name", "remove", *MARKS, "class", "truth")
BEYOND = Decimal(2) ** 31  # seconds; ROS times end there


def read_prompts(path: Path) -> list[Action]:
    """Read a prompts file; a mistake is named with its entry."""
    try:
        # All values as texts: a stamp with nanoseconds does not survive as a float.
        content = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise PromptsFileError(f"{path}: no readable YAML: {what}") from error
    entries = content.get("prompts") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise PromptsFileError(f"{path}: expected `prompts:` with a list of at least one entry")
    unknown = [key for key in content if key != "prompts"]
    if unknown:
        raise PromptsFileError(f"{path}: unknown key '{unknown[0]}'; the only one is `prompts`")
    return [_Entry(path, number, entry).action() for number, entry in enumerate(entries, 1)]


class _Entry:
    """One entry of the list."""

    def __init__(self, path: Path, number: int, values: Any) -> None:
        self.path = path
        self.place = f"{path.name}, entry {number}"
        if not isinstance(values, Mapping):
            raise self.wrong(f"expected keys such as frame, name and points, not {values!r}")
        for key in values:
            if key not in KEYS:
                near = difflib.get_close_matches(str(key), KEYS, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise self.wrong(f"unknown key '{key}'{hint} Keys: {', '.join(KEYS)}")
        self.values = values

    def wrong(self, what: str) -> PromptsFileError:
        return PromptsFileError(f"{self.place}: {what}")

    def action(self) -> Action:
        moments = [key for key in MOMENTS if key in self.values]
        if len(moments) != 1:
            given = " and ".join(moments) or "nothing"
            raise self.wrong(f"say when by one of {', '.join(MOMENTS)}, not by {given}")
        moment = self._moment(moments[0])
        if "remove" in self.values:
            extra = [key for key in self.values if key not in (*MOMENTS, "remove")]
            if extra:
                raise self.wrong(f"a removal has no '{extra[0]}'")
            return Action(self._text("remove"), None, self.place, **moment)
        if "name" not in self.values:
            raise self.wrong("the target's `name` is missing (or `remove: NAME`)")
        return Action(
            self._text("name"),
            self._prompt(),
            self.place,
            **moment,
            class_name=self._text("class") if "class" in self.values else "",
            truth=self._whole("truth") if "truth" in self.values else None,
        )

    def _moment(self, key: str) -> dict[str, Any]:
        if key == "frame":
            return {"frame": self._whole("frame")}
        try:
            value = Decimal(self._text(key))
        except InvalidOperation:
            value = Decimal(-1)
        if not 0 <= value < BEYOND:
            raise self.wrong(f"{key} must be seconds such as 12.04, not {self.values[key]!r}")
        nanoseconds = int((value * 10**9).to_integral_value())
        return {"stamp_ns" if key == "stamp" else "from_start_ns": nanoseconds}

    def _prompt(self) -> Prompt:
        given = {key: self.values[key] for key in MARKS if key in self.values}
        mask = given.pop("mask", None)
        instance = given.pop("instance", None)
        try:
            numbers = {key: np.array(value, np.float64) for key, value in given.items()}
        except (TypeError, ValueError) as error:
            raise self.wrong(
                "points must be [[x, y], …] with labels [1, 0, …], a box [x0, y0, x1, y1]"
            ) from error
        points, labels = numbers.get("points"), numbers.get("labels")
        if points is not None and labels is None:
            labels = np.ones(len(points))  # points without labels are on the target
        try:
            return Prompt(
                points=points,
                labels=labels,
                box=numbers.get("box"),
                mask=None if mask is None else self._mask(str(mask), instance),
            )
        except PromptsFileError:
            raise
        except Sam2sError as error:
            raise self.wrong(str(error)) from error

    def _mask(self, name: str, instance: Any) -> Any:
        ids = read_mask(self.path.parent / name)
        if instance is None:
            return ids > 0
        wanted = self._whole("instance")
        if not (ids == wanted).any():
            present = ", ".join(str(i) for i in np.unique(ids) if i) or "none"
            raise self.wrong(f"{name} has no pixel of instance {wanted}; it has {present}")
        return ids == wanted

    def _text(self, key: str) -> str:
        value = self.values[key]
        if not isinstance(value, str) or not value:
            raise self.wrong(f"{key} must be a text, not {value!r}")
        return value

    def _whole(self, key: str) -> int:
        value = self.values[key]
        if not isinstance(value, str) or not value.isdecimal():
            raise self.wrong(f"{key} must be a whole number from 0 on, not {value!r}")
        return int(value)
