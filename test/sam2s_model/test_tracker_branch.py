"""Branches: a target marked on an earlier frame, brought up to the present, and taken over."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from builders import box_mask, click, clip, identical, lively_model

from sam2s_model import MemorySettings, Prompt, Sam2s, StreamTracker
from sam2s_model.bank import EMPTY, Entry, MemoryBank
from sam2s_model.config import MEMORY_POLICIES, ModelConfig
from sam2s_model.tracker import BranchError, TooManyTargetsError, UnknownTargetError

FRAMES = clip(24)
SEEN = 5  # the frame that the operator saw
NOW = 12  # the next frame of the stream


@pytest.fixture(scope="module")
def model() -> Sam2s:
    return lively_model()


def started(model: Sam2s, policy: str = "divemem", frames: int = NOW) -> StreamTracker:
    """A tracker that has followed one target over the first frames."""
    # bfloat16, sam2's default, would turn the last bit of a sum into one part in 256.
    memory = dataclasses.replace(MemorySettings.for_policy(policy), storage="float32")
    tracker = StreamTracker(model, memory)
    tracker.add_target("old", click())
    for frame in FRAMES[:frames]:
        tracker.step(frame)
    return tracker


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
@pytest.mark.parametrize("prompt", [click(60, 40), box_mask(45, 20, 70, 50)])
def test_a_late_target_is_the_one_that_was_marked_in_time(
    model: Sam2s, policy: str, prompt: Prompt
) -> None:
    in_time = started(model, policy, SEEN)
    in_time.add_target("new", prompt)
    expected = [in_time.step(frame) for frame in FRAMES[SEEN:]][NOW - SEEN :]

    late = started(model, policy)
    branch = late.branch(SEEN)
    branch.add_target("new", prompt)
    for frame in FRAMES[SEEN:NOW]:
        branch.step(frame)
    late.adopt(branch, "new")
    for wanted, frame in zip(expected, FRAMES[NOW:], strict=True):
        got = late.step(frame)
        assert list(got) == ["old", "new"]
        for name in got:
            torch.testing.assert_close(
                got[name].low_res_logits, wanted[name].low_res_logits, rtol=1e-4, atol=1e-4
            )
            assert got[name].state is wanted[name].state


def test_a_late_correction_forgets_only_what_came_after_it(model: Sam2s) -> None:
    late = started(model)
    before = late.state_dict()
    branch = late.branch(SEEN, "old")
    kept = branch.state_dict()["targets"]["old"]["bank"]["frames"]
    assert max(kept) < SEEN
    assert 0 in kept  # the frame that it was first marked on
    branch.add_target("old", click(60, 40))
    for frame in FRAMES[SEEN:NOW]:
        branch.step(frame)
    assert identical(late.state_dict(), before)  # the stream's own target goes on meanwhile
    late.adopt(branch, "old")
    assert late.targets == ("old",)
    assert branch.targets == ()
    frames = late.state_dict()["targets"]["old"]["bank"]["frames"]
    assert {0, SEEN, NOW - 1} <= set(frames)
    late.step(FRAMES[NOW])


def test_adoption_is_refused_before_the_present_and_beyond_the_limit(model: Sam2s) -> None:
    tracker = StreamTracker(model, max_targets=1)
    tracker.add_target("old", click())
    tracker.step(FRAMES[0])
    branch = tracker.branch(0)
    branch.add_target("new", click(60, 40))
    with pytest.raises(UnknownTargetError, match="no target 'new'"):
        tracker.adopt(branch, "new")  # it has not been stepped: there is nothing to take over
    branch.step(FRAMES[0])
    tracker.step(FRAMES[1])
    with pytest.raises(BranchError, match="branch is at frame 1 and this tracker at 2"):
        tracker.adopt(branch, "new")
    branch.step(FRAMES[1])
    with pytest.raises(TooManyTargetsError, match="target 2 of at most 1"):
        tracker.adopt(branch, "new")
    tracker.remove_target("old")
    tracker.adopt(branch, "new")
    assert tracker.targets == ("new",)


@pytest.mark.parametrize("order", ["contiguous", "view"])
def test_a_shrunk_frame_gives_the_same_results(model: Sam2s, order: str) -> None:
    large = clip(6, 200, 150)
    if order == "view":
        large = [np.ascontiguousarray(frame[:, ::-1])[:, ::-1] for frame in large]
    whole, shrunk = StreamTracker(model), StreamTracker(model)
    for tracker in (whole, shrunk):
        tracker.add_target("click", click(70, 60))
        tracker.add_target("mask", box_mask(20, 20, 60, 90, 200, 150))
    for frame in large:
        small = shrunk.prepare(frame, encode=False).small
        assert small.shape == (64, 64, 3)
        expected, got = whole.step(frame), shrunk.step(small, frame.shape[:2])
        for name in expected:
            assert torch.equal(got[name].low_res_logits, expected[name].low_res_logits)
            assert got[name].mask.shape == (150, 200)


def test_forgetting_leaves_the_window_as_it_was_then() -> None:
    config = ModelConfig.preset("nano", image_size=64)
    settings = MemorySettings(buffer_size=2)
    generator = torch.Generator().manual_seed(0)
    entries = [
        Entry(
            n,
            torch.randn(config.memory_size**2, config.memory_dim, generator=generator),
            torch.randn(config.hidden_dim, generator=generator),
            0.9,
        )
        for n in range(9)
    ]

    def filled(count: int) -> MemoryBank:
        bank = MemoryBank(config, settings)
        bank.write_conditional(entries[0])
        for entry in entries[1:count]:
            bank.write(entry)
        return bank

    bank = filled(9)
    bank.forget_from(6)
    assert all(frame < 6 for frame in bank.frames)
    assert [bank.frames[slot] for slot in bank.recent()] == [5, 4, 3]  # 8 had pushed 2 out
    for entry in entries[6:]:
        bank.write(entry)
    assert [bank.frames[slot] for slot in bank.recent()] == [8, 7, 6, 5, 4, 3]
    bank.forget_from(0)
    assert set(bank.frames) == {EMPTY}
    assert bank.candidates == 0
    bank.write(entries[3])
    assert [bank.frames[slot] for slot in bank.recent()] == [3]
