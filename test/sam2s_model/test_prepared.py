"""Frames prepared before they are stepped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import box_mask, click, clip, lively_model

from sam2s_model import Sam2s, StreamTracker
from sam2s_model.tracker import EmptyFrameError, FrameError


@pytest.fixture(scope="module")
def model() -> Sam2s:
    return lively_model(image_size=64)


def test_a_prepared_frame_gives_the_same_results(model: Sam2s) -> None:
    given, ahead = StreamTracker(model), StreamTracker(model)
    for number, frame in enumerate(clip(6, 200, 150)):
        prepared = ahead.prepare(frame)
        assert (prepared.features is None) == (number == 0)  # nobody was known by then
        assert (prepared.height, prepared.width) == (150, 200)
        if number == 0:
            for tracker in (given, ahead):
                tracker.add_target("click", click(70, 60))
        if number == 3:
            for tracker in (given, ahead):
                tracker.add_target("mask", box_mask(20, 20, 60, 90, 200, 150))
        expected, got = given.step(frame), ahead.step(prepared)
        assert list(got) == list(expected)
        for name in expected:
            assert torch.equal(got[name].low_res_logits, expected[name].low_res_logits)
            assert got[name].mask.shape == (150, 200)
    assert ahead.frame == given.frame == 6


def test_preparing_changes_nothing_of_the_tracker(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    tracker.add_target("click", click(40, 45))
    frames = clip(3)
    tracker.step(frames[0])
    before = tracker.state_dict()
    for frame in frames[1:]:
        tracker.prepare(frame)
    after = tracker.state_dict()
    assert after["frame"] == before["frame"]
    assert tracker.memory_entries("click") == 1


def test_times_of_the_preparation_are_the_frames_own(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    tracker.add_target("click", click(40, 45))
    prepared = tracker.prepare(clip(1)[0])
    result = tracker.step(prepared)
    stages = ("shrink", "encode_image", "attend_memory", "decode", "encode_memory")
    assert set(result.timings) == {*stages, "total"}
    assert prepared.elapsed == sum(result.timings[name] for name in stages[:2])
    assert result.timings["total"] >= sum(result.timings[name] for name in stages)


def test_what_was_prepared_for_another_network_is_refused(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    tracker.add_target("click", click(40, 45))
    with pytest.raises(FrameError, match="prepared by a tracker with another network"):
        tracker.step(StreamTracker(lively_model(image_size=64)).prepare(clip(1)[0]))
    with pytest.raises(EmptyFrameError):
        tracker.prepare(np.zeros((0, 4, 3), np.uint8))
    assert tracker.frame == 0
    tracker.step(tracker.prepare(clip(1)[0], encode=False))
    assert tracker.frame == 1
