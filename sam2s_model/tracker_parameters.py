"""Settings of memory and track states by the names that node, replay and evaluation share."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sam2s_model.config import ConfigError, MemorySettings, TrackSettings

MEMORY_PARAMETERS = {
    "memory_iou": "iou_threshold",
    "memory_buffer": "buffer_size",
    "memory_long": "max_long",
    "memory_drop": "efp_drop",
}
TRACK_PARAMETERS = {
    "presence_low": "presence_low",
    "presence_high": "presence_high",
    "iou_low": "iou_low",
    "iou_high": "iou_high",
    "lost_after": "lost_after",
    "class_momentum": "label_momentum",
    "class_threshold": "label_threshold",
    "exclusive": "exclusive",
}
# What node, replay and evaluation set where nobody says otherwise. A target must be rather certain
# to be there before it counts, and is remembered, as present: what is remembered wrongly stays. The
# library's own defaults are SAM 2's.
USUAL: Mapping[str, float] = {"exclusive": True, "presence_low": 0.7, "presence_high": 0.8}
_DEFAULTS: dict[str, float] = {
    name: getattr(settings, field)
    for settings, fields in (
        (MemorySettings(), MEMORY_PARAMETERS), (TrackSettings(), TRACK_PARAMETERS)
    )
    for name, field in fields.items()
}  # fmt: skip


def memory_settings(policy: str, values: Mapping[str, Any]) -> MemorySettings:
    """Give a policy's settings with those changed that `values` names."""
    return dataclasses.replace(
        MemorySettings.for_policy(policy), **_fields(MEMORY_PARAMETERS, values)
    )


def track_settings(values: Mapping[str, Any]) -> TrackSettings:
    """Give the track settings with those changed that `values` names."""
    return TrackSettings(**_fields(TRACK_PARAMETERS, values))


def parse_parameters(words: Iterable[str]) -> dict[str, float]:
    """Read NAME=VALUE words; unknown names and values of another kind are refused."""
    values: dict[str, float] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign:
            raise ConfigError(f"--set {word}: expected NAME=VALUE, such as memory_iou=0.7")
        if name not in _DEFAULTS:
            near = difflib.get_close_matches(name, _DEFAULTS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"--set {word}: a tracker has no parameter '{name}'.{hint} "
                f"Parameters: {', '.join(_DEFAULTS)}"
            )
        default = _DEFAULTS[name]
        if isinstance(default, bool):
            values[name] = _yes_or_no(word, text)
        else:
            values[name] = _number(word, text, whole=isinstance(default, int))
    return values


def _fields(names: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {field: values[name] for name, field in names.items() if name in values}


def _yes_or_no(word: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigError(f"--set {word}: expected true or false, not '{text}'")
    return text == "true"


def _number(word: str, text: str, *, whole: bool) -> float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"--set {word}: expected {kind}, not '{text}'")
    return number
