"""Track states with hysteresis, and that an absent target is not remembered."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from builders import IOU_BIAS, OBJECT_BIAS, box_mask, click, clip, identical, lively_model, set_bias

from sam2s_model import MemorySettings, Prompt, Sam2s, StreamTracker, TrackSettings, TrackState
from sam2s_model.bank import EMPTY, Layout
from sam2s_model.config import MEMORY_POLICIES

TRACKING, OCCLUDED, LOST = TrackState
# Thresholds far from each other, because the heads add a little to their bias.
TRACK = TrackSettings(presence_low=0.5, presence_high=0.9, iou_low=0.3, iou_high=0.7, lost_after=4)
HIGH, MIDDLE, LOW = (math.log(p / (1 - p)) for p in (0.97, 0.72, 0.05))  # of presence
SURE, HALF, DOUBTFUL = (math.log(p / (1 - p)) for p in (0.9, 0.5, 0.1))  # of predicted IoU


@pytest.fixture
def model() -> Sam2s:
    return lively_model()


def states(
    model: Sam2s, levels: list[tuple[float, float]], track: TrackSettings = TRACK
) -> list[TrackState]:
    """The states of a target that was clicked on a good frame and then seen at these levels."""
    tracker = StreamTracker(model, track=track)
    tracker.add_target("a", click())
    set_bias(model, OBJECT_BIAS, HIGH)
    set_bias(model, IOU_BIAS, SURE)
    frames = clip(1 + len(levels))
    assert tracker.step(frames[0])["a"].state is TRACKING
    followed = []
    for frame, (presence, iou) in zip(frames[1:], levels, strict=True):
        set_bias(model, OBJECT_BIAS, presence)
        set_bias(model, IOU_BIAS, iou)
        followed.append(tracker.step(frame)["a"].state)
    return followed


def test_an_absent_target_is_occluded_then_lost_then_back(model: Sam2s) -> None:
    gone, seen = (LOW, SURE), (HIGH, SURE)
    assert states(model, [seen, *[gone] * 5, seen]) == [
        TRACKING, OCCLUDED, OCCLUDED, OCCLUDED, LOST, LOST, TRACKING
    ]  # fmt: skip


def test_a_short_absence_does_not_add_up_with_a_later_one(model: Sam2s) -> None:
    gone, seen = (LOW, SURE), (HIGH, SURE)
    assert states(model, [gone, gone, gone, seen, gone, gone, gone]) == [
        OCCLUDED, OCCLUDED, OCCLUDED, TRACKING, OCCLUDED, OCCLUDED, OCCLUDED
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("between", "below", "above"),
    [((MIDDLE, SURE), (LOW, SURE), (HIGH, SURE)), ((HIGH, HALF), (HIGH, DOUBTFUL), (HIGH, SURE))],
    ids=["presence", "iou"],
)
def test_between_the_thresholds_a_state_stays_as_it_is(
    model: Sam2s,
    between: tuple[float, float],
    below: tuple[float, float],
    above: tuple[float, float],
) -> None:
    assert states(model, [between, between, below, between, between, above, between]) == [
        TRACKING, TRACKING, OCCLUDED, OCCLUDED, OCCLUDED, TRACKING, TRACKING
    ]  # fmt: skip


def test_coming_back_takes_presence_and_iou_together(model: Sam2s) -> None:
    levels = [(LOW, DOUBTFUL), (HIGH, DOUBTFUL), (LOW, SURE), (HIGH, SURE)]
    assert states(model, levels) == [OCCLUDED, OCCLUDED, OCCLUDED, TRACKING]


def test_lost_after_is_counted_in_frames(model: Sam2s) -> None:
    for frames in (1, 2, 7):
        track = TrackSettings(lost_after=frames)
        followed = states(model, [(LOW, SURE)] * 8, track)
        assert followed == [OCCLUDED] * (frames - 1) + [LOST] * (9 - frames)


def test_an_absent_target_has_no_mask(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    tracker.add_target("a", click())
    frames = clip(2)
    assert tracker.step(frames[0])["a"].area > 0
    set_bias(model, OBJECT_BIAS, LOW)
    target = tracker.step(frames[1])["a"]
    assert target.presence < 0.5
    assert (target.area, target.box) == (0, None)
    assert not target.mask.any()


def test_a_prompt_finds_a_lost_target(model: Sam2s) -> None:
    tracker = StreamTracker(model, track=TRACK)
    tracker.add_target("a", click())
    frames = clip(9)
    tracker.step(frames[0])
    set_bias(model, OBJECT_BIAS, LOW)
    for frame in frames[1:6]:
        last = tracker.step(frame)
    assert last["a"].state is LOST
    tracker.add_target("a", box_mask(20, 20, 50, 50))
    found = tracker.step(frames[6])["a"]
    assert found.state is TRACKING
    assert found.area > 0
    assert tracker.step(frames[7])["a"].state is OCCLUDED


# --- memory -----------------------------------------------------------------------------------


def bank_of(tracker: StreamTracker, name: str = "a") -> dict[str, object]:
    bank: dict[str, object] = tracker.state_dict()["targets"][name]["bank"]
    return bank


def frames_in(tracker: StreamTracker, group: str, name: str = "a") -> list[int]:
    slots = getattr(Layout.of(tracker.config, tracker.memory), group)
    frames = bank_of(tracker, name)["frames"]
    assert isinstance(frames, list)
    return sorted(frames[slot] for slot in slots if frames[slot] != EMPTY)


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_nothing_is_written_while_a_target_is_absent(model: Sam2s, policy: str) -> None:
    tracker = StreamTracker(model, policy)
    tracker.add_target("a", click())
    frames = clip(16)
    for frame in frames[:8]:
        tracker.step(frame)
    before = bank_of(tracker)
    set_bias(model, OBJECT_BIAS, LOW)
    for frame in frames[8:13]:
        tracker.step(frame)
        assert identical(bank_of(tracker), before)
    set_bias(model, OBJECT_BIAS, HIGH)
    back = tracker.step(frames[13])["a"]
    assert back.state is TRACKING
    assert back.area > 0
    # The window goes on where it was left: the frames of the absence are in no slot.
    assert frames_in(tracker, "recent") == [3, 4, 5, 6, 7, 13]
    assert not {8, 9, 10, 11, 12} & set(bank_of(tracker)["frames"])  # type: ignore[call-overload]


def test_coming_back_depends_on_the_memory_from_before(model: Sam2s) -> None:
    """After an absence, targets that were prompted apart are still told apart."""
    tracker = StreamTracker(model)
    tracker.add_target("a", click(20, 20))
    tracker.add_target("b", Prompt(box=[45, 20, 75, 55]))
    frames = clip(12)
    for frame in frames[:4]:
        tracker.step(frame)
    set_bias(model, OBJECT_BIAS, LOW)
    for frame in frames[4:11]:
        tracker.step(frame)
    set_bias(model, OBJECT_BIAS, HIGH)
    back = tracker.step(frames[11])
    assert np.abs(back["a"].logits - back["b"].logits).mean() > 0.01


def test_write_absent_writes_such_frames_too(model: Sam2s) -> None:
    tracker = StreamTracker(model, MemorySettings("sam2", write_absent=True))
    tracker.add_target("a", click())
    frames = clip(6)
    for n, frame in enumerate(frames):
        set_bias(model, OBJECT_BIAS, LOW if n in (2, 3) else HIGH)
        tracker.step(frame)
    assert frames_in(tracker, "recent") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("write_absent", [False, True])
def test_a_frame_without_the_target_is_no_candidate_for_the_long_term_memory(
    model: Sam2s, write_absent: bool
) -> None:
    tracker = StreamTracker(model, MemorySettings(buffer_size=1, write_absent=write_absent))
    tracker.add_target("a", click())
    set_bias(model, IOU_BIAS, SURE)
    for n, frame in enumerate(clip(6)):
        set_bias(model, OBJECT_BIAS, HIGH if n in (0, 1, 5) else LOW)
        tracker.step(frame)
    assert frames_in(tracker, "long") == [1, 5]


def test_a_frame_below_the_presence_asked_for_is_not_written(model: Sam2s) -> None:
    track = TrackSettings(presence_low=0.85, presence_high=0.9)
    tracker = StreamTracker(model, track=track)
    tracker.add_target("a", click())
    for n, frame in enumerate(clip(4)):
        set_bias(model, OBJECT_BIAS, MIDDLE if n == 2 else HIGH)
        state = tracker.step(frame)["a"].state
        assert state is (OCCLUDED if n == 2 else TRACKING)
    assert frames_in(tracker, "recent") == [1, 3]


def test_a_present_target_is_written_beside_an_absent_one(model: Sam2s) -> None:
    """What one target's memory becomes does not depend on which others are written."""
    together, alone = StreamTracker(model), StreamTracker(model)
    frames = clip(4)
    together.add_target("absent", click())
    set_bias(model, OBJECT_BIAS, HIGH)
    together.step(frames[0])
    alone.step(frames[0])
    before = bank_of(together, "absent")
    set_bias(model, OBJECT_BIAS, LOW)
    for tracker in (together, alone):
        tracker.add_target("b", box_mask(10, 10, 50, 40))
        tracker.step(frames[1])
    assert identical(bank_of(together, "absent"), before)
    ours, theirs = bank_of(together, "b"), bank_of(alone, "b")
    assert ours["frames"] == theirs["frames"]
    for part in ("spatial", "pointers"):
        one, other = ours[part], theirs[part]
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert torch.allclose(one.float(), other.float(), rtol=2**-7, atol=1e-4)
