"""Messages of a session's results, field by field; and that they survive the middleware."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from session_builders import (
    HEIGHT,
    STAMP,
    WIDTH,
    blob,
    picture,
    session_result,
    two_and_a_lost_one,
)

from sam2s_model.overlay import colour_of
from sam2s_model.prompt import EmptyPromptError, Prompt, PromptShapeError
from sam2s_model.result import TrackState
from sam2s_msgs.msg import FrameTiming, Point2D, RleMask, TrackedObject, TrackEvent
from sam2s_msgs.msg import Prompt as PromptMessage
from sam2s_msgs.srv import SetTarget
from sam2s_ros import messages
from sam2s_ros.conversions import image_to_labels, image_to_rgb, mask_to_rle, rle_to_mask
from sam2s_ros.rle import RunLengthError
from sam2s_ros.session_types import (
    AcceptedPrompt,
    EventKind,
    PromptReply,
    PromptRequest,
    SessionEvent,
    TargetStanding,
)

pytestmark = pytest.mark.ros


def sent(message):
    """The message as a subscriber receives it."""
    return deserialize_message(serialize_message(message), type(message))


def stamped(message) -> bool:
    header = message.header
    return header.stamp == Time(sec=12, nanosec=345) and header.frame_id == "scope"


def test_objects_say_all_about_every_target():
    result = two_and_a_lost_one()
    timing = FrameTiming(wait=1.0, inference=20.0, frames_received=50, frames_skipped=8)
    message = sent(messages.objects_message(result, timing))
    assert stamped(message)
    assert (message.frame_index, message.height, message.width) == (41, HEIGHT, WIDTH)
    assert message.timing == timing
    assert [entry.name for entry in message.objects] == ["left", "right", "gone"]
    assert [entry.label_value for entry in message.objects] == [3, 5, 7]
    for entry, known in zip(message.objects, result.objects, strict=True):
        ys, xs = np.nonzero(known.mask)
        assert np.array_equal(rle_to_mask(entry.mask), known.mask)
        assert entry.area == len(xs)
        assert entry.iou == pytest.approx(known.iou)
        assert entry.presence == pytest.approx(known.presence)
        assert (entry.class_name, entry.class_confidence) == ("hook", 0.75)
        assert [score.name for score in entry.class_scores] == ["hook", "grasper", "snare"]
        assert entry.class_scores[0].score == 0.75
        box = (entry.box.x0, entry.box.y0, entry.box.x1, entry.box.y1)
        if known.state is TrackState.LOST:
            assert entry.state == TrackedObject.STATE_LOST
            assert box == (0, 0, 0, 0)
            assert math.isnan(entry.centroid.x)
            assert math.isnan(entry.centroid.y)
        else:
            assert entry.state == TrackedObject.STATE_TRACKING
            assert box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert entry.centroid.x == pytest.approx(xs.mean() + 0.5, rel=1e-6)
            assert entry.centroid.y == pytest.approx(ys.mean() + 0.5, rel=1e-6)
    without = messages.objects_message(result, top_classes=0)
    assert without.timing == FrameTiming()
    assert not any(entry.class_scores for entry in without.objects)


def test_no_targets_make_empty_messages():
    result = session_result()
    assert sent(messages.objects_message(result)).objects == []
    assert sent(messages.classes_message(result)).instruments == []
    labels = image_to_labels(sent(messages.label_map_message(result)))
    assert labels.shape == (HEIGHT, WIDTH)
    assert not labels.any()


def test_classes_need_no_masks():
    message = sent(messages.classes_message(two_and_a_lost_one(), top_classes=1))
    assert stamped(message)
    assert [entry.target for entry in message.instruments] == ["left", "right", "gone"]
    assert [entry.label_value for entry in message.instruments] == [3, 5, 7]
    states = [TrackedObject.STATE_TRACKING] * 2 + [TrackedObject.STATE_LOST]
    assert [entry.state for entry in message.instruments] == states
    first = message.instruments[0]
    assert (first.class_name, first.confidence) == ("hook", 0.75)
    assert [(score.name, score.score) for score in first.scores] == [("hook", 0.75)]


def test_label_map_gives_shared_pixels_to_the_more_certain_target():
    result = two_and_a_lost_one()
    image = sent(messages.label_map_message(result))
    assert stamped(image)
    assert image.encoding == "mono8"
    labels = image_to_labels(image)
    left, right = (result.result[name] for name in ("left", "right"))
    assert (left.mask & right.mask).any()
    expected = np.where(left.mask, 3, 0)
    expected[right.mask & (~left.mask | (right.logits > left.logits))] = 5
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize("state", [TrackState.OCCLUDED, TrackState.LOST])
def test_label_map_shows_only_what_is_tracked(state):
    """A mask that must not be trusted has no place in a picture that says nothing of trust."""
    result = session_result(
        ("seen", blob(30, 30, 12), TrackState.TRACKING), ("doubtful", blob(90, 60, 20), state)
    )
    assert result.objects[1].area > 0
    labels = image_to_labels(messages.label_map_message(result))
    assert np.array_equal(labels, 3 * result.objects[0].mask)
    objects = messages.objects_message(result).objects
    assert np.array_equal(rle_to_mask(objects[1].mask), result.objects[1].mask)


@pytest.mark.parametrize("kind", EventKind)
def test_events_carry_the_constant_of_their_name(kind):
    event = SessionEvent(
        kind, "left", 3, TrackState.OCCLUDED, 0.25, "left went out of sight", STAMP, "scope"
    )
    message = sent(messages.event_message(event))
    assert stamped(message)
    assert message.kind == getattr(TrackEvent, kind.name)
    assert (message.target, message.label_value, message.seconds) == ("left", 3, 0.25)
    assert message.state == TrackedObject.STATE_OCCLUDED
    assert message.message == "left went out of sight"


def test_standing_of_a_target():
    standing = TargetStanding(
        "left", 3, TrackState.LOST, 0.5, "hook", 0.75, STAMP, 2 * STAMP, prompts=2, memory_entries=9
    )
    message = sent(messages.target_message(standing))
    assert (message.name, message.label_value, message.iou) == ("left", 3, 0.5)
    assert message.state == TrackedObject.STATE_LOST
    assert (message.class_name, message.class_confidence) == ("hook", 0.75)
    assert message.added == Time(sec=12, nanosec=345)
    assert message.last_seen == Time(sec=24, nanosec=690)
    assert (message.prompts, message.memory_entries) == (2, 9)


# --- prompts ------------------------------------------------------------------------------

PROMPTS = {
    "clicks": Prompt(points=[[10.5, 20.25], [3, 4]], labels=[1, 0]),
    "box": Prompt(box=[1, 2, 30.5, 40]),
    "clicks in a box": Prompt(points=[[9, 9]], labels=[1], box=[1, 2, 30, 40]),
    "mask": Prompt(mask=np.eye(12, 7) > 0),
}


def same(one: Prompt, other: Prompt) -> bool:
    return all(
        np.array_equal(getattr(one, part), getattr(other, part))
        if getattr(one, part) is not None
        else getattr(other, part) is None
        for part in ("points", "labels", "box", "mask")
    )


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("correction", [False, True])
def test_an_accepted_prompt_can_be_replayed(name, correction):
    request = PromptRequest("left", PROMPTS[name], class_name="hook")
    message = sent(messages.prompt_message(AcceptedPrompt(request, 3, correction, STAMP, "scope")))
    assert stamped(message)
    assert (message.label_value, message.correction) == (3, correction)
    again = messages.prompt_from_message(message)
    assert (again.name, again.class_name, again.stamp_ns) == ("left", "hook", STAMP)
    assert same(again.prompt, PROMPTS[name])


@pytest.mark.parametrize("name", PROMPTS)
def test_requests_to_the_service_are_read(name):
    request = SetTarget.Request(name="left", class_name="hook")
    recorded = messages.prompt_message(
        AcceptedPrompt(PromptRequest("left", PROMPTS[name]), 3, False, STAMP, "scope")
    )
    for field in ("points", "labels", "box", "mask"):
        setattr(request, field, getattr(recorded, field))
    now = messages.prompt_from_service(sent(request))
    assert (now.name, now.class_name, now.stamp_ns) == ("left", "hook", None)
    assert same(now.prompt, PROMPTS[name])
    request.stamp = Time(sec=12, nanosec=345)
    assert messages.prompt_from_service(request).stamp_ns == STAMP


@pytest.mark.parametrize("kind", [SetTarget.Request, PromptMessage])
def test_requests_that_cannot_be_say_why(kind):
    read = messages.prompt_from_message if kind is PromptMessage else messages.prompt_from_service
    with pytest.raises(EmptyPromptError, match="the prompt is empty"):
        read(kind(name="left"))
    with pytest.raises(PromptShapeError, match="2 points need 2 labels in one list"):
        read(kind(name="left", points=[Point2D(), Point2D()], labels=[1]))
    with pytest.raises(PromptShapeError, match="one label per point"):
        read(kind(name="left", points=[Point2D()]))
    mask = mask_to_rle(np.eye(4) > 0)
    with pytest.raises(PromptShapeError, match="a mask stands alone"):
        read(kind(name="left", points=[Point2D(x=1.0, y=1.0)], labels=[1], mask=[mask]))
    with pytest.raises(RunLengthError, match="add up to 3 pixels; 4×4 needs 16"):
        read(kind(name="left", mask=[RleMask(height=4, width=4, counts=[3])]))


def test_reply_fills_the_service_answer():
    response = SetTarget.Response()
    reply = PromptReply(True, "", label_value=3, area=900, iou=0.5, stamp_ns=STAMP)
    assert messages.fill_reply(reply, response) is response
    answer = sent(response)
    assert (answer.success, answer.label_value, answer.area, answer.iou) == (True, 3, 900, 0.5)
    assert answer.stamp == Time(sec=12, nanosec=345)
    refused = messages.fill_reply(PromptReply(False, "no such class"), SetTarget.Response())
    assert (refused.success, refused.message, refused.label_value) == (False, "no such class", 0)


# --- pictures -----------------------------------------------------------------------------


def test_overlay_tints_what_is_tracked_and_outlines_the_rest():
    frame = picture()
    before = frame.copy()
    result = session_result(
        ("seen", blob(34, 60, 20), TrackState.TRACKING),
        ("doubtful", blob(96, 60, 20), TrackState.OCCLUDED),
    )
    drawn = messages.overlay_picture(frame, result)
    assert np.array_equal(frame, before)
    changed = (drawn != frame).any(axis=2)
    seen, doubtful = (entry.mask for entry in result.objects)
    assert changed[seen].mean() > 0.99
    assert 0.0 < changed[doubtful].mean() < 0.8
    # The centres are away from borders and names.
    colour = np.array(colour_of(2))
    mixed = frame[64, 34] + (colour - frame[64, 34].astype(float)) * 0.45
    assert np.abs(drawn[64, 34] - mixed).max() <= 1
    assert np.array_equal(drawn[66, 96], frame[66, 96])


def test_overlays_are_sent_raw_and_as_jpeg():
    result = two_and_a_lost_one()
    drawn = messages.overlay_picture(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), result)
    raw = sent(messages.overlay_message(drawn, result))
    assert stamped(raw)
    assert np.array_equal(image_to_rgb(raw), drawn)
    jpeg = sent(messages.overlay_compressed(drawn, result))
    assert stamped(jpeg)
    assert np.abs(image_to_rgb(jpeg).astype(int) - drawn).mean() < 8


# --- vision_msgs --------------------------------------------------------------------------

needs_vision = pytest.mark.skipif(
    not messages.vision_messages(), reason="vision_msgs comes with a ROS 2 distribution only"
)


@needs_vision
def test_detections_are_the_tracked_targets():
    result = two_and_a_lost_one()
    message = sent(messages.detections_message(result))
    assert stamped(message)
    assert [found.id for found in message.detections] == ["left", "right"]
    for found, known in zip(message.detections, result.objects, strict=False):
        assert stamped(found)
        x0, y0, x1, y1 = known.box
        assert (found.bbox.size_x, found.bbox.size_y) == (x1 - x0, y1 - y0)
        centre = found.bbox.center.position
        assert (centre.x, centre.y) == ((x0 + x1) / 2, (y0 + y1) / 2)
        hypothesis = found.results[0].hypothesis
        assert (hypothesis.class_id, hypothesis.score) == ("hook", 0.75)


@needs_vision
def test_label_info_names_the_values_of_the_label_map():
    message = sent(messages.label_info_message(two_and_a_lost_one()))
    assert stamped(message)
    assert {entry.class_id: entry.class_name for entry in message.class_map} == {
        3: "left", 5: "right", 7: "gone"
    }  # fmt: skip


# --- cost ---------------------------------------------------------------------------------


@pytest.mark.serial
def test_cost_at_full_size(capsys):
    """Per-element Python takes seconds; the bound is a sanity one, the figures are printed."""
    size = (1024, 1280)
    targets = [
        (f"target {n}", blob(250 + 250 * n, 500 + 50 * n, 150, size), TrackState.TRACKING)
        for n in range(4)
    ]
    figures = []
    for count in (2, 4):
        parts = {"objects": [], "label map": [], "classes": []}
        for _ in range(15):
            result = session_result(*targets[:count], size=size)  # anew: runs are kept
            for name, make in (
                ("objects", messages.objects_message),
                ("label map", messages.label_map_message),
                ("classes", messages.classes_message),
            ):
                begin = time.perf_counter()
                make(result)
                parts[name].append(time.perf_counter() - begin)
        costs = {name: 1e3 * float(np.median(times)) for name, times in parts.items()}
        assert sum(costs.values()) < 100
        figures.append(f"{count} targets " + ", ".join(f"{k} {v:.2f}" for k, v in costs.items()))
    with capsys.disabled():
        print("\n1280×1024, ms: " + "; ".join(figures))
