"""Settings: what is refused, and with which suggestion."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from sam2s_model import MemorySettings, ModelConfig, StreamTracker, TrackSettings
from sam2s_model.bank import MemoryBank
from sam2s_model.config import MEMORY_POLICIES, PRESETS, ConfigError, UnknownPresetError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_bears_its_name_and_takes_changes(name: str) -> None:
    preset = ModelConfig.preset(name)
    assert preset.name == name
    assert ModelConfig.preset(name, image_size=1024) == dataclasses.replace(preset, image_size=1024)
    assert PRESETS[name] == preset


@pytest.mark.parametrize(
    ("name", "near"),
    [("tinny", "tiny"), ("base-plus", "base_plus"), ("Large", "large"), ("nanno", "nano")],
)
def test_an_unknown_preset_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownPresetError, match=f"Did you mean '{near}'") as caught:
        ModelConfig.preset(name)
    assert all(preset in str(caught.value) for preset in PRESETS)


def test_a_preset_like_no_other_gets_the_list_without_a_suggestion() -> None:
    with pytest.raises(UnknownPresetError, match="no preset 'xyz'") as caught:
        ModelConfig.preset("xyz")
    assert "Did you mean" not in str(caught.value)


def test_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no setting 'imagesize'; did you mean 'image_size'"):
        ModelConfig.preset("tiny", imagesize=512)


BAD_MODELS: dict[str, dict[str, Any]] = {
    "multiple of 32": {"image_size": 500},
    "at least 64": {"image_size": 32},
    "for example 512": {"image_size": 0},
    "must divide hidden_dim": {"memory_dim": 60},
    "max_conditional >= 2": {"max_conditional": 1},
    "num_recent >= 1": {"num_recent": 0},
    "num_pointers >= 2": {"num_pointers": 1},
}


@pytest.mark.parametrize("remedy", BAD_MODELS)
def test_a_model_that_cannot_work_is_refused(remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        ModelConfig.preset("tiny", **BAD_MODELS[remedy])


BAD_MEMORIES: dict[str, dict[str, Any]] = {
    "Did you mean 'divemem'": {"policy": "divmem"},
    "Policies: sam2, divemem, efp": {"policy": "none"},
    "iou_threshold is 1.5; it must lie in 0..1": {"iou_threshold": 1.5},
    "iou_threshold is nan": {"iou_threshold": math.nan},
    "buffer_size is 0; it must be at least 1": {"buffer_size": 0},
    "max_long is -1; it must be at least 1": {"max_long": -1},
    "efp_drop is -1; it must not be negative": {"efp_drop": -1},
}


@pytest.mark.parametrize("remedy", BAD_MEMORIES)
def test_memory_settings_that_cannot_work_are_refused(remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        MemorySettings(**BAD_MEMORIES[remedy])


BAD_TRACKS: dict[str, dict[str, Any]] = {
    "presence_low <= presence_high": {"presence_low": 0.7, "presence_high": 0.6},
    "presence_high <= 1": {"presence_high": 1.2},
    "0 <= iou_low": {"iou_low": -0.1},
    "iou_low <= iou_high": {"iou_low": math.nan},
    "lost_after is 0": {"lost_after": 0},
    "label_momentum is 1.0": {"label_momentum": 1.0},
    "label_threshold is 2": {"label_threshold": 2},
}


@pytest.mark.parametrize("remedy", BAD_TRACKS)
def test_track_settings_that_cannot_work_are_refused(remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        TrackSettings(**BAD_TRACKS[remedy])


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_a_policy_by_name_has_the_published_starting_values(policy: str) -> None:
    memory = MemorySettings.for_policy(policy)
    assert memory.policy == policy
    assert (memory.iou_threshold, memory.buffer_size, memory.max_long) == (0.8, 5, 3)
    assert memory.efp_drop == 2
    assert memory.corrections_are_conditional == (policy != "sam2")


def test_a_tracker_refuses_a_policy_it_does_not_know() -> None:
    from builders import lively_model

    with pytest.raises(ConfigError, match="Did you mean 'efp'"):
        StreamTracker(lively_model(), memory="epf")


@pytest.mark.parametrize("name", PRESETS)
def test_a_bank_has_room_for_what_its_preset_promises(name: str) -> None:
    config = ModelConfig.preset(name, image_size=64)
    bank = MemoryBank(config, MemorySettings())
    kept = config.max_conditional + MemorySettings().max_long + config.num_recent
    assert bank.spatial.shape[0] >= kept
    assert bank.spatial.shape[1:] == (config.memory_size**2, config.memory_dim)
    assert bank.pointers.shape[1] == config.hidden_dim
    assert len(bank.layout.recent_pointers) == config.num_pointers - 1
