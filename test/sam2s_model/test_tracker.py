"""The tracker's memory reaches the masks, and its doors do what they say."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from builders import box_mask, click, clip, identical, lively_model, prompts

from sam2s_model import MemorySettings, Prompt, Sam2s, StreamTracker
from sam2s_model.bank import EMPTY, Layout
from sam2s_model.config import MEMORY_POLICIES
from sam2s_model.runtime.base import RuntimeUnavailableError

QUICK = MemorySettings(buffer_size=2)  # long-term entries after a few frames


@pytest.fixture(scope="module")
def model() -> Sam2s:
    return lively_model()


def frames_in(tracker: StreamTracker, name: str, group: str) -> list[int]:
    """The frame numbers that a target's bank holds in a group of slots, sorted."""
    layout = Layout.of(tracker.config, tracker.memory)
    frames = tracker.state_dict()["targets"][name]["bank"]["frames"]
    return sorted(frames[slot] for slot in getattr(layout, group) if frames[slot] != EMPTY)


def logits_after(model: Sam2s, memory: MemorySettings, snapshot: dict[str, Any]) -> torch.Tensor:
    """What the next frame looks like from this snapshot on."""
    tracker = StreamTracker(model, memory)
    tracker.load_state_dict(snapshot)
    return tracker.step(clip(12)[11])["a"].low_res_logits.clone()


# --- every kind of entry reaches attention ----------------------------------------------------


@pytest.fixture(scope="module")
def snapshot(model: Sam2s) -> dict[str, Any]:
    """A target with a full window and room left for conditional and long-term entries."""
    tracker = StreamTracker(model, QUICK)
    tracker.add_target("a", click())
    frames = clip(10)
    for n, frame in enumerate(frames):
        if n == 4:
            tracker.add_target("a", click(40, 30))
        tracker.step(frame)
    assert len(frames_in(tracker, "a", "long")) == 3
    assert frames_in(tracker, "a", "conditional") == [0, 4]
    return tracker.state_dict()


def slots_of(snapshot: dict[str, Any], model: Sam2s, group: str, held: bool) -> list[int]:
    frames = snapshot["targets"]["a"]["bank"]["frames"]
    slots = getattr(Layout.of(model.config, QUICK), group)
    return [slot for slot in slots if (frames[slot] != EMPTY) == held]


@pytest.mark.parametrize("group", ["conditional", "long", "recent"])
def test_a_change_of_any_entry_changes_the_next_mask(
    model: Sam2s, snapshot: dict[str, Any], group: str
) -> None:
    before = logits_after(model, QUICK, snapshot)
    for slot in slots_of(snapshot, model, group, held=True):
        changed = copy.deepcopy(snapshot)
        changed["targets"]["a"]["bank"]["spatial"][slot] *= -1
        assert (logits_after(model, QUICK, changed) - before).abs().max() > 1e-3, slot


@pytest.mark.parametrize("group", ["conditional", "long", "recent_pointers"])
def test_a_change_of_any_pointer_changes_the_next_mask(
    model: Sam2s, snapshot: dict[str, Any], group: str
) -> None:
    before = logits_after(model, QUICK, snapshot)
    for slot in slots_of(snapshot, model, group, held=True):
        changed = copy.deepcopy(snapshot)
        changed["targets"]["a"]["bank"]["pointers"][slot] += 3.0
        assert (logits_after(model, QUICK, changed) - before).abs().max() > 1e-5, slot


def test_what_empty_slots_hold_does_not_matter(model: Sam2s, snapshot: dict[str, Any]) -> None:
    """Nor does the waiting candidate, before it is chosen."""
    before = logits_after(model, QUICK, snapshot)
    changed = copy.deepcopy(snapshot)
    bank = changed["targets"]["a"]["bank"]
    empty = [slot for slot, frame in enumerate(bank["frames"]) if frame == EMPTY]
    candidate = Layout.of(model.config, QUICK).candidate
    assert len(empty) > 1
    for slot in {*empty, candidate}:
        bank["pointers"][slot] = 50.0
        if slot < len(bank["spatial"]):
            bank["spatial"][slot] = -50.0
    assert torch.equal(logits_after(model, QUICK, changed), before)


def test_long_term_entries_have_an_embedding_of_their_own(
    model: Sam2s, snapshot: dict[str, Any]
) -> None:
    before = logits_after(model, QUICK, snapshot)
    trained = copy.deepcopy(model)
    with torch.no_grad():
        trained.long_term_tpos_enc.add_(1.0)
    trained.fingerprint = model.fingerprint  # type: ignore[method-assign]  # takes the snapshot
    assert (logits_after(trained, QUICK, snapshot) - before).abs().max() > 1e-3
    recent_only = copy.deepcopy(snapshot)
    for slot in Layout.of(model.config, QUICK).long:
        recent_only["targets"]["a"]["bank"]["frames"][slot] = EMPTY
    plain = logits_after(model, QUICK, recent_only)
    assert torch.equal(logits_after(trained, QUICK, recent_only), plain)
    assert not torch.equal(plain, before)


def test_the_age_of_an_entry_matters(model: Sam2s, snapshot: dict[str, Any]) -> None:
    """Swapping two recent entries' places in the window changes the next mask."""
    before = logits_after(model, QUICK, snapshot)
    changed = copy.deepcopy(snapshot)
    bank = changed["targets"]["a"]["bank"]
    one, other, *_ = slots_of(snapshot, model, "recent", held=True)
    bank["spatial"][[one, other]] = bank["spatial"][[other, one]]
    assert (logits_after(model, QUICK, changed) - before).abs().max() > 1e-5


def test_policies_differ_once_there_is_something_to_choose(model: Sam2s) -> None:
    frames = clip(14)
    logits = {}
    for policy in MEMORY_POLICIES:
        memory = dataclasses.replace(MemorySettings.for_policy(policy), storage="float32")
        tracker = StreamTracker(model, memory)
        tracker.add_target("a", click())
        logits[policy] = [tracker.step(frame)["a"].low_res_logits for frame in frames]
    for other in ("divemem", "efp"):
        assert torch.equal(logits["sam2"][4], logits[other][4])
        assert (logits["sam2"][13] - logits[other][13]).abs().max() > 1e-4


# --- what is written where --------------------------------------------------------------------


@pytest.mark.parametrize("kind", prompts())
@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_a_first_prompt_is_conditional_and_tracked_frames_are_recent(
    model: Sam2s, policy: str, kind: str
) -> None:
    tracker = StreamTracker(model, policy)
    frames = clip(4)
    tracker.step(frames[0])
    tracker.add_target("a", prompts()[kind])
    for frame in frames[1:]:
        tracker.step(frame)
    assert frames_in(tracker, "a", "conditional") == [1]
    assert frames_in(tracker, "a", "recent") == [2, 3]


@pytest.mark.parametrize("conditional", [True, False])
def test_corrections_are_conditional_or_not_as_asked(model: Sam2s, conditional: bool) -> None:
    memory = dataclasses.replace(QUICK, corrections_are_conditional=conditional)
    tracker = StreamTracker(model, memory)
    tracker.add_target("a", click())
    for n, frame in enumerate(clip(4)):
        if n == 2:
            tracker.add_target("a", Prompt(box=[10, 10, 50, 50]))
        tracker.step(frame)
    assert frames_in(tracker, "a", "conditional") == ([0, 2] if conditional else [0])
    assert frames_in(tracker, "a", "recent") == ([1, 3] if conditional else [1, 2, 3])


def test_many_corrections_keep_the_first_and_the_newest(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    for n, frame in enumerate(clip(12)):
        tracker.add_target("a", click(10 + 5 * n, 30))
        tracker.step(frame)
    kept = tracker.config.max_conditional
    assert frames_in(tracker, "a", "conditional") == [0, *range(12 - kept + 1, 12)]


def test_reading_the_state_changes_nothing(model: Sam2s) -> None:
    frames = clip(5)
    watched, plain = StreamTracker(model), StreamTracker(model)
    for tracker in (watched, plain):
        tracker.add_target("a", click())
    for frame in frames:
        watched.state_dict()
        one, other = watched.step(frame), plain.step(frame)
        assert torch.equal(one["a"].low_res_logits, other["a"].low_res_logits)
    assert identical(watched.state_dict(), plain.state_dict())


# --- the doors --------------------------------------------------------------------------------


def test_targets_begin_with_the_next_frame_and_keep_their_order(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    frame = clip(1)[0]
    assert tracker.targets == ()
    assert len(tracker.step(frame)) == 0
    for name in ("b", "a", "c"):
        tracker.add_target(name, click())
    assert tracker.targets == ("b", "a", "c")
    tracker.add_target("a", box_mask(10, 10, 30, 30))  # again before the frame: replaces it
    assert list(tracker.step(frame)) == ["b", "a", "c"]
    tracker.add_target("a", click())
    assert list(tracker.step(frame)) == ["b", "a", "c"]
    tracker.remove_target("a")
    assert tracker.targets == ("b", "c")
    assert list(tracker.step(frame)) == ["b", "c"]


def test_removing_takes_a_waiting_prompt_along(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    tracker.add_target("a", click())
    tracker.remove_target("a")
    assert len(tracker.step(clip(1)[0])) == 0
    tracker.add_target("b", click())
    tracker.step(clip(1)[0])
    tracker.add_target("b", click(50, 50))
    tracker.remove_target("b")
    assert len(tracker.step(clip(1)[0])) == 0


def test_reset_is_a_new_start(model: Sam2s) -> None:
    frames = clip(3)
    used, fresh = StreamTracker(model), StreamTracker(model)
    used.add_target("old", click())
    for frame in frames:
        used.step(frame)
    used.add_target("waiting", click())
    used.reset()
    assert used.targets == ()
    assert identical(used.state_dict(), fresh.state_dict())
    for tracker in (used, fresh):
        tracker.add_target("a", click())
    one, other = used.step(frames[0]), fresh.step(frames[0])
    assert one.frame == other.frame == 0
    assert torch.equal(one["a"].low_res_logits, other["a"].low_res_logits)


def test_a_full_tracker_takes_corrections_and_room_that_was_made(model: Sam2s) -> None:
    tracker = StreamTracker(model, max_targets=2)
    frame = clip(1)[0]
    tracker.add_target("a", click())
    tracker.step(frame)
    tracker.add_target("b", click())
    tracker.add_target("a", click(40, 40))
    tracker.remove_target("b")
    tracker.add_target("c", click())
    assert list(tracker.step(frame)) == ["a", "c"]


def test_frames_are_counted_and_stages_timed(model: Sam2s) -> None:
    tracker = StreamTracker(model)
    tracker.add_target("a", click())
    for n, frame in enumerate(clip(3)):
        result = tracker.step(frame)
        assert result.frame == n
        parts = {name: ms for name, ms in result.timings.items() if name != "total"}
        assert set(parts) == {"encode_image", "attend_memory", "decode", "encode_memory"}
        assert 0 < sum(parts.values()) <= result.timings["total"]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({"runtime": "tensorflow"}, "runtime='torch'"), ({"precision": "fp16"}, "fp32, bf16")],
)
def test_what_cannot_run_is_refused_with_what_can(
    model: Sam2s, changes: dict[str, str], remedy: str
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=remedy):
        StreamTracker(model, **changes)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named(model: Sam2s) -> None:
    with pytest.raises(RuntimeUnavailableError, match="no CUDA device"):
        StreamTracker(model, device="cuda")
