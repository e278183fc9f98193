"""Sessions without ROS: label values, prompts of now and of the past, events, states, time."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from session_streams import (
    FRAME_ID,
    OBJECT_BIAS,
    PERIOD,
    ask,
    feed,
    make_session,
    set_bias,
    small_model,
    stamp,
    stream,
)  # fmt: skip

from sam2s_model import Prompt, Sam2s, StreamTracker
from sam2s_model.result import TrackState
from sam2s_model.tracker import FrameError, UnknownTargetError
from sam2s_ros.history import History, PastFrame
from sam2s_ros.label_values import LabelValues, NoLabelValueError
from sam2s_ros.session import (
    Arrival,
    EventKind,
    PromptRequest,
    Session,
    SessionSettings,
    SessionSettingsError,
    SessionStateError,
    StampGate,
    StepFailedError,
)  # fmt: skip

FRAMES = stream(24)
BIG = stream(6, 300, 220)


@pytest.fixture
def model() -> Sam2s:
    return small_model()


def kinds(result) -> list[tuple[EventKind, str]]:
    return [(event.kind, event.target) for event in result.events]


def replies(result) -> dict[str, object]:
    return {request.name: reply for request, reply in result.replies}


# --- frames and masks -------------------------------------------------------------------


def test_results_are_the_trackers_own_at_source_size(model: Sam2s) -> None:
    session = make_session(model)
    tracker = StreamTracker(model)
    request = ask("a", 100, 110)
    tracker.add_target("a", request.prompt)
    for n, frame in enumerate(BIG):
        expected = tracker.step(frame)["a"]
        result = session.process(stamp(n), FRAME_ID, frame, [request] if n == 0 else [])
        (entry,) = result.objects
        assert torch.equal(result.result["a"].low_res_logits, expected.low_res_logits)
        assert entry.mask.shape == frame.shape[:2]
        # OpenCV rounds otherwise than torch: a pixel on the border may differ.
        assert np.count_nonzero(entry.mask != expected.mask) <= 0.0005 * expected.mask.size
        rows, columns = np.nonzero(entry.mask)
        assert entry.area == rows.size > 0
        assert entry.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert entry.centroid == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
        assert (result.stamp_ns, result.frame_id) == (stamp(n), FRAME_ID)
        assert (result.frame_index, result.height, result.width) == (n, 220, 300)
        assert result.timings["inference"] > 0


def test_frames_of_any_size_follow_each_other(model: Sam2s) -> None:
    session = make_session(model)
    session.process(stamp(0), FRAME_ID, FRAMES[0], [ask()])
    result = session.process(stamp(1), "other", BIG[1])
    assert result.objects[0].mask.shape == (220, 300)
    assert result.frame_id == "other"


@pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)])
def test_what_is_no_image_changes_nothing_and_prompts_wait(model: Sam2s, image) -> None:
    session = make_session(model)
    with pytest.raises(FrameError):
        session.process(stamp(0), FRAME_ID, image, [ask()])
    result = session.process(stamp(1), FRAME_ID, FRAMES[0])
    assert result.frame_index == 0
    assert replies(result)["a"].success


def test_a_failing_tracker_takes_its_prompts_back(model: Sam2s, monkeypatch) -> None:
    session = make_session(model)
    feed(session, FRAMES[:2], {0: [ask("a")]})
    step = session.tracker.runtime.encode_image

    def broken(frame):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(session.tracker.runtime, "encode_image", broken)
    with pytest.raises(StepFailedError, match="out of memory") as failure:
        session.process(stamp(2), FRAME_ID, FRAMES[2], [ask("b"), ask("a")])
    assert {request.name: reply.success for request, reply in failure.value.replies} == {
        "a": False, "b": False,
    }  # fmt: skip
    monkeypatch.setattr(session.tracker.runtime, "encode_image", step)
    result = session.process(stamp(3), FRAME_ID, FRAMES[3])
    assert [entry.name for entry in result.objects] == ["a"]
    assert result.events == ()


# --- prompts ----------------------------------------------------------------------------


def test_prompts_are_answered_with_the_first_mask(model: Sam2s) -> None:
    session = make_session(model)
    request = ask("grasper-1", class_name="grasper")
    result = session.process(stamp(0), FRAME_ID, FRAMES[0], [request])
    (entry,) = result.objects
    ((answered, reply),) = result.replies
    assert answered is request
    assert reply.success
    assert (reply.label_value, reply.area, reply.iou) == (1, entry.area, entry.iou)
    assert reply.stamp_ns == stamp(0)
    assert (entry.class_name, entry.class_confidence) == ("grasper", 1.0)
    (accepted,) = result.accepted
    assert (accepted.name, accepted.correction, accepted.stamp_ns) == ("grasper-1", False, stamp(0))
    assert accepted.prompt is request.prompt
    again = session.process(stamp(1), FRAME_ID, FRAMES[1], [ask("grasper-1", 50, 40)])
    assert again.accepted[0].correction
    assert kinds(result) == [(EventKind.ADDED, "grasper-1")]
    assert kinds(again) == [(EventKind.CORRECTED, "grasper-1")]
    assert again.objects[0].class_name == "grasper"  # a correction does not take the name away
    (standing,) = session.targets
    assert (standing.prompts, standing.added_ns, standing.last_seen_ns) == (2, stamp(0), stamp(1))
    assert standing.memory_entries == 2


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ask("far", 500, 10), "outside the image"),
        (ask("", 40, 40), "non-empty"),
        (ask("odd", class_name="graspr"), "Did you mean 'grasper'"),
        (PromptRequest("n", Prompt(points=[[4, 4]], labels=[0])), "at least one point on it"),
        (PromptRequest("m", Prompt(mask=np.ones((5, 5), bool))), "give the mask at the image's"),
        (ask("late", stamp_ns=stamp(-100)), "no longer kept"),
        (ask("early", stamp_ns=stamp(100)), "ahead of the newest"),
        (ask("third"), "target 3 of at most 2"),
    ],
)
def test_refused_prompts_say_why_and_leave_the_others(model: Sam2s, request_, reason) -> None:
    session = make_session(model, max_targets=2)
    feed(session, FRAMES[:2], {0: [ask("a"), ask("b", 80, 20)]})
    if request_.name != "third":
        session.remove("b")
    result = session.process(stamp(2), FRAME_ID, FRAMES[2], [request_, ask("a", 41, 45)])
    given = replies(result)
    assert not given[request_.name].success
    assert reason in given[request_.name].message
    assert given["a"].success
    assert request_.name not in {entry.name for entry in result.objects}
    assert len(result.accepted) == 1


def test_two_prompts_for_one_target_are_applied_one_after_the_other(model: Sam2s) -> None:
    session = make_session(model)
    first, second = ask("a"), ask("a", 45, 45)
    results = feed(session, FRAMES[:3], {0: [first, second]})
    assert [[request for request, _ in result.replies] for result in results] == [
        [first], [second], [],
    ]  # fmt: skip


# --- prompts on images of the past ------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 2, 3])
def test_a_stamped_prompt_joins_as_if_it_had_come_in_time(model: Sam2s, steps: int) -> None:
    seen, asked = 6, 12
    in_time = make_session(model)
    expected = feed(in_time, FRAMES, {0: [ask("a")], seen: [ask("b", 80, 20)]})
    late = make_session(model, catch_up_steps=steps)
    request = ask("b", 80, 20, stamp_ns=stamp(seen))
    got = feed(late, FRAMES, {0: [ask("a")], asked: [request]})

    ((answered, reply),) = got[asked].replies
    wanted = replies(expected[seen])["b"]
    assert answered is request
    assert (reply.success, reply.stamp_ns, reply.label_value) == (True, stamp(seen), 2)
    assert reply.area == pytest.approx(wanted.area, abs=3)
    assert got[asked].accepted[0].stamp_ns == stamp(seen)
    joined = next(n for n, r in enumerate(got) if "b" in r.result)
    assert kinds(got[joined]) == [(EventKind.ADDED, "b")]
    # Each image brings `steps` frames of the past, and makes one more.
    assert joined == (asked + 1 if steps == 0 else asked - (-(asked - seen - 1) // (steps - 1)))
    for n in range(len(FRAMES)):
        assert [entry.name for entry in got[n].objects] == (["a", "b"] if n >= joined else ["a"])
        for name in got[n].result:
            torch.testing.assert_close(
                got[n].result[name].low_res_logits,
                expected[n].result[name].low_res_logits, rtol=1e-3, atol=1e-3,
            )  # fmt: skip


def test_a_stamp_between_images_means_the_nearest_one(model: Sam2s) -> None:
    session = make_session(model)
    near_past = ask("past", stamp_ns=stamp(3) + PERIOD // 4)
    near_now = ask("now", 80, 20, stamp_ns=stamp(5) - PERIOD // 4)
    results = feed(session, FRAMES[:6], {5: [near_past, near_now]})
    given = replies(results[5])
    assert given["past"].stamp_ns == stamp(3)
    assert given["now"].stamp_ns == stamp(5)


def test_a_prompt_on_an_image_that_is_still_to_come_waits_for_it(model: Sam2s) -> None:
    session = make_session(model)
    results = feed(session, FRAMES[:6], {1: [ask("a", stamp_ns=stamp(4))]})
    assert [bool(result.replies) for result in results] == [False] * 4 + [True, False]
    assert replies(results[4])["a"].stamp_ns == stamp(4)


def test_a_stamped_correction_replaces_the_target_when_it_arrives(model: Sam2s) -> None:
    session = make_session(model)
    fix = ask("a", 42, 45, stamp_ns=stamp(8))
    later = ask("a", 44, 45)
    results = feed(session, FRAMES[:16], {0: [ask("a")], 12: [fix, later]})
    assert all(len(result.objects) == 1 for result in results)
    corrected = [
        n for n, result in enumerate(results) if (EventKind.CORRECTED, "a") in kinds(result)
    ]
    assert [request for request, _ in results[12].replies] == [fix]
    # The second one waits until the first has arrived, and is applied to that image.
    assert corrected == [14]
    assert [request for request, _ in results[14].replies] == [later]
    assert session.targets[0].prompts == 3


def test_what_is_removed_or_reset_on_its_way_never_joins(model: Sam2s) -> None:
    session = make_session(model)
    feed(session, FRAMES[:13], {12: [ask("b", stamp_ns=stamp(2))]})
    assert [standing.name for standing in session.targets] == ["b"]
    assert session.remove("b").label_value == 1
    results = feed(session, FRAMES[13:20], first=13)
    assert all(not result.objects for result in results)


def test_history_is_bounded_and_can_be_off(model: Sam2s) -> None:
    history = History(seconds=1.0, frames=10)
    picture = np.zeros((8, 8, 3), np.uint8)
    for n in range(100):
        history.add(PastFrame(n, stamp(n), FRAME_ID, 90, 120, picture))
    assert [frame.number for frame in history] == list(range(90, 100))
    history.add(PastFrame(100, stamp(99 + 20), FRAME_ID, 90, 120, picture))
    assert [frame.number for frame in history] == [94, 95, 96, 97, 98, 99, 100][1:] or len(
        history
    ) <= 7
    session = make_session(model, history_seconds=0.0)
    result = feed(session, FRAMES[:4], {3: [ask("a", stamp_ns=stamp(1))]})[-1]
    assert "no longer kept" in replies(result)["a"].message


# --- label values -----------------------------------------------------------------------


def test_label_values_stay_with_their_target_and_are_reused_last(model: Sam2s) -> None:
    session = make_session(model)
    feed(session, FRAMES[:2], {0: [ask("a"), ask("b", 80, 20), ask("c", 20, 70)]})
    removed = session.remove("b")
    assert (removed.kind, removed.label_value, removed.stamp_ns) == (
        EventKind.REMOVED, 2, stamp(1),
    )  # fmt: skip
    result = session.process(stamp(2), FRAME_ID, FRAMES[2], [ask("d", 80, 20)])
    assert [(entry.name, entry.label_value) for entry in result.objects] == [
        ("a", 1), ("c", 3), ("d", 4),
    ]  # fmt: skip
    values = LabelValues()
    assert [values.take() for _ in range(255)] == list(range(1, 256))
    with pytest.raises(NoLabelValueError):
        values.take()
    values.give_back(7)
    assert values.take() == 7


def test_removal_and_reset(model: Sam2s) -> None:
    session = make_session(model)
    feed(session, FRAMES[:3], {0: [ask("a"), ask("b", 80, 20)]})
    with pytest.raises(UnknownTargetError, match="Targets: a, b"):
        session.remove("c")
    events = session.reset()
    assert {(event.kind, event.target) for event in events} == {
        (EventKind.REMOVED, "a"), (EventKind.REMOVED, "b"),
    }  # fmt: skip
    assert session.targets == ()
    result = session.process(stamp(3), FRAME_ID, FRAMES[3])
    assert (result.frame_index, result.objects) == (0, ())
    with pytest.raises(UnknownTargetError):
        session.remove("a")


# --- states and time --------------------------------------------------------------------


def test_occlusion_loss_and_return_are_reported_once_with_their_times(model: Sam2s) -> None:
    session = make_session(model)
    session.tracker.track = type(session.tracker.track)(lost_after=3)
    feed(session, FRAMES[:4], {0: [ask()]})
    bias = model.get_parameter(OBJECT_BIAS).item()
    set_bias(model, OBJECT_BIAS, -50.0)
    hidden = feed(session, FRAMES[4:9], first=4)
    set_bias(model, OBJECT_BIAS, bias)
    back = feed(session, FRAMES[9:12], first=9)
    told = [(n, event) for n, r in enumerate([*hidden, *back], 4) for event in r.events]
    assert [(n, event.kind) for n, event in told] == [
        (4, EventKind.OCCLUDED), (6, EventKind.LOST), (9, EventKind.REACQUIRED),
    ]  # fmt: skip
    assert [event.seconds for _, event in told] == pytest.approx([0.04, 0.12, 0.24])
    assert [event.state for _, event in told] == [
        TrackState.OCCLUDED, TrackState.LOST, TrackState.TRACKING,
    ]  # fmt: skip
    assert session.targets[0].last_seen_ns == stamp(11)


def test_a_pause_is_told_and_memory_outlives_it(model: Sam2s) -> None:
    session = make_session(model)
    feed(session, FRAMES[:3], {0: [ask()]})
    stale = session.mark_stale(0.5)
    assert (stale.kind, stale.stamp_ns, stale.seconds) == (EventKind.STREAM_STALE, stamp(2), 0.5)
    result = session.process(stamp(50), FRAME_ID, FRAMES[3])
    assert kinds(result) == [(EventKind.STREAM_RESUMED, "")]
    assert result.events[0].seconds == pytest.approx(48 * 0.04)
    assert [entry.name for entry in result.objects] == ["a"]
    assert session.process(stamp(51), FRAME_ID, FRAMES[4]).events == ()


def test_a_clock_that_jumps_back_is_told_and_resets_nothing(model: Sam2s) -> None:
    session = make_session(model)
    feed(session, FRAMES[:12], {0: [ask()], 11: [ask("b", 80, 20, stamp_ns=stamp(4))]})
    result = session.process(stamp(-100), FRAME_ID, FRAMES[12])
    assert kinds(result) == [(EventKind.CLOCK_JUMPED, ""), (EventKind.ADDED, "b")]
    assert result.events[0].seconds == pytest.approx(111 * 0.04)
    assert [entry.name for entry in result.objects] == ["a", "b"]
    refused = session.process(stamp(-99), FRAME_ID, FRAMES[13], [ask("c", stamp_ns=stamp(-200))])
    assert "no longer kept" in replies(refused)["c"].message


def test_stamps_are_judged() -> None:
    gate = StampGate(jump_back=1.0)
    judged = [
        gate.judge(n) for n in (10**10, 10**10, 10**10 + 5, 10**10 - 1, 9 * 10**9 - 1, 9 * 10**9)
    ]
    assert judged == [
        Arrival.NEW, Arrival.REPEATED, Arrival.NEW, Arrival.LATE, Arrival.JUMPED, Arrival.NEW,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{"history_seconds": -1.0}, {"history_frames": 0}, {"catch_up_steps": 1}, {"jump_back": 1e9}],
)
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(SessionSettingsError, match=next(iter(settings))):
        SessionSettings(**settings)


# --- state ------------------------------------------------------------------------------


def test_another_session_goes_on_exactly(model: Sam2s) -> None:
    session = make_session(model)
    prompts = {0: [ask("a", class_name="hook"), ask("b", 80, 20)], 3: [ask("b", 82, 22)]}
    feed(session, FRAMES[:8], prompts)
    session.remove("a")
    feed(session, FRAMES[8:10], {8: [ask("c", 20, 70)]}, first=8)
    buffer = io.BytesIO()
    torch.save(session.state_dict(), buffer)
    expected = feed(session, FRAMES[10:], {12: [ask("d")]}, first=10)
    buffer.seek(0)
    other = make_session(model)
    feed(other, FRAMES[:2], {0: [ask("x")]})
    other.load_state_dict(torch.load(buffer, weights_only=True))
    got = feed(other, FRAMES[10:], {12: [ask("d")]}, first=10)
    for wanted, result in zip(expected, got, strict=True):
        assert [(e.name, e.label_value) for e in result.objects] == [
            (e.name, e.label_value) for e in wanted.objects
        ]
        for mine, theirs in zip(result.objects, wanted.objects, strict=True):
            assert np.array_equal(mine.mask, theirs.mask)
        assert kinds(result) == kinds(wanted)
        assert result.frame_index == wanted.frame_index
    assert [s.prompts for s in other.targets] == [s.prompts for s in session.targets]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda state: {}, "no session's state"),
        (lambda state: {**state, "version": 99}, "version 99"),
        (lambda state: {**state, "standings": {"a": {"odd": 1}}}, "damaged"),
        (lambda state: {**state, "standings": {}}, "its targets differ"),
        (lambda state: {**state, "tracker": {"targets": {"a": 1}, "pending": {}}}, "snapshot"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(model: Sam2s, damage, reason) -> None:
    session = make_session(model)
    feed(session, FRAMES[:3], {0: [ask("a")]})
    damaged = damage(session.state_dict())
    with pytest.raises(Exception, match=reason) as refusal:
        session.load_state_dict(damaged)
    assert isinstance(refusal.value, SessionStateError) or "snapshot" in str(refusal.value)
    result = session.process(stamp(3), FRAME_ID, FRAMES[3])
    assert [entry.name for entry in result.objects] == ["a"]


def test_a_state_leaves_out_who_is_on_the_way(model: Sam2s) -> None:
    session = make_session(model)
    feed(session, FRAMES[:13], {0: [ask("a")], 12: [ask("b", 80, 20, stamp_ns=stamp(1))]})
    other = make_session(model)
    other.load_state_dict(session.state_dict())
    assert [standing.name for standing in other.targets] == ["a"]
    values = {standing.label_value for standing in session.targets}
    assert values == {1, 2}
    assert isinstance(other, Session)
