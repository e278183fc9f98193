"""Settings by name, as `sam2s eval --set` and the node take them."""

from __future__ import annotations

import pytest

from sam2s_model.config import ConfigError, MemorySettings, TrackSettings
from sam2s_model.tracker_parameters import (
    MEMORY_PARAMETERS,
    TRACK_PARAMETERS,
    memory_settings,
    parse_parameters,
    track_settings,
)


def test_nothing_named_leaves_the_defaults() -> None:
    assert memory_settings("sam2", {}) == MemorySettings.for_policy("sam2")
    assert track_settings({}) == TrackSettings()


def test_every_name_changes_its_own_setting() -> None:
    words = (
        "memory_iou=0.7 memory_buffer=3 memory_long=2 memory_drop=1 lost_after=9 presence_low=0.1 "
        "presence_high=0.2 iou_low=0.3 iou_high=0.35 class_momentum=0.8 class_threshold=0.4 "
        "exclusive=true"
    )
    values = parse_parameters(words.split())
    assert set(values) == {*MEMORY_PARAMETERS, *TRACK_PARAMETERS}
    memory = memory_settings("divemem", values)
    assert memory == MemorySettings(iou_threshold=0.7, buffer_size=3, max_long=2, efp_drop=1)
    assert track_settings(values) == TrackSettings(0.1, 0.2, 0.3, 0.35, 9, 0.8, 0.4, True)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("memory_iou", "expected NAME=VALUE"),
        ("memory_oui=0.7", "Did you mean 'memory_iou'"),
        ("rate=3", "Parameters: memory_iou"),
        ("memory_iou=high", "expected a number, not 'high'"),
        ("memory_iou=nan", "expected a number, not 'nan'"),
        ("exclusive=1", "expected true or false, not '1'"),
        ("memory_long=1.5", "expected a whole number, not '1.5'"),
    ],
)
def test_a_word_that_says_nothing_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^--set {word}: .*{message}"):
        parse_parameters([word])


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="iou_threshold is 7"):
        memory_settings("divemem", parse_parameters(["memory_iou=7"]))
    with pytest.raises(ConfigError, match="presence_low <= presence_high"):
        track_settings(parse_parameters(["presence_low=0.9"]))
