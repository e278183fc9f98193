"""The tracker node over DDS: transitions, topics, services, stamps, parameters."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from tracker_rig import (
    FRAMES,
    PERIOD,
    PICTURES,
    TOPICS,
    Rig,
    Spinner,
    make_node,
    write_weights,
)  # fmt: skip

from sam2s_msgs.msg import Box2D, Point2D, TrackedObject, TrackEvent
from sam2s_msgs.srv import ListTargets, LoadState, RemoveTarget, Reset, SaveState, SetTarget
from sam2s_ros import publishers
from sam2s_ros.conversions import image_to_labels, image_to_rgb, mask_to_rle, rle_to_mask
from sam2s_ros.headers import nanoseconds, time_message
from sam2s_ros.parameters import SETTINGS

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def start(ros_context, weights):
    """Start a node with parameters and a rig around it: `node, rig = start(…)`."""
    begun = []

    def begin(rig_options=None, **parameters):
        # One thread, because two of them wait for each other where tests share the cores.
        parameters = {"stale_after": 30.0, "threads": 1, "model": str(weights), **parameters}
        node = make_node(ros_context, **parameters)
        begun.append((node, Spinner(node), Rig(ros_context, **(rig_options or {}))))
        return begun[-1][0], begun[-1][2]

    yield begin
    for node, spinner, rig in begun:
        node.end()
        rig.end()
        spinner.end()


@pytest.fixture
def active(start):
    """An active node with default parameters and a rig that hears it."""
    node, rig = start()
    rig.bring_up()
    rig.warm(FRAMES[0])
    return node, rig


# --- lifecycle --------------------------------------------------------------------------


def test_every_transition_does_what_it_says(start) -> None:
    _, rig = start()
    assert rig.state() == "unconfigured"
    refused = rig.call(SetTarget, "set_target", name="a")
    assert not refused.success
    assert "not configured" in refused.message
    assert not rig.call(Reset, "reset").success

    assert rig.transition("configure")
    assert rig.state() == "inactive"
    refused = rig.call(SetTarget, "set_target", name="a", points=[Point2D()], labels=[1])
    assert "not active" in refused.message

    assert rig.transition("activate")
    assert rig.state() == "active"
    rig.until(lambda: rig.camera.get_subscription_count() > 0)
    rig.warm(FRAMES[0])
    assert rig.mark(FRAMES[0]).success

    assert rig.transition("deactivate")
    assert rig.state() == "inactive"
    assert [target.name for target in rig.call(ListTargets, "list_targets").targets] == ["a"]
    heard = len(rig.received["objects"])
    for _ in range(3):
        rig.send(FRAMES[0])
    time.sleep(0.3)
    assert len(rig.received["objects"]) == heard

    assert rig.transition("activate")
    assert rig.names(rig.track(FRAMES[1])) == ["a"]
    assert rig.transition("deactivate")
    assert rig.transition("cleanup")
    assert rig.state() == "unconfigured"
    assert rig.call(ListTargets, "list_targets").targets == []
    assert rig.transition("configure")
    assert rig.call(ListTargets, "list_targets").targets == []
    assert rig.call(
        ChangeState, "change_state",
        transition=Transition(id=Transition.TRANSITION_INACTIVE_SHUTDOWN),
    ).success  # fmt: skip
    assert rig.state() == "finalized"


def test_configure_without_weights_fails_and_says_why(start, weights, tmp_path) -> None:
    place = tmp_path / "later.safetensors"
    _, rig = start(model=str(place))
    assert not rig.transition("configure")
    assert rig.state() == "unconfigured"

    def told() -> bool:
        statuses = [s for m in rig.received["/diagnostics"] for s in m.status]
        return any("later.safetensors" in s.message and s.level == b"\x02" for s in statuses)

    rig.until(told)
    place.write_bytes(weights.read_bytes())  # the node lives: it can be tried again
    assert rig.transition("configure")
    assert rig.state() == "inactive"


# --- topics -----------------------------------------------------------------------------


def test_every_topic_carries_the_images_stamp_and_says_the_same(start) -> None:
    _, rig = start()
    rig.bring_up()
    for topic, kind in PICTURES.items():
        rig.subscribe(topic, kind)
    rig.warm(FRAMES[0])
    assert rig.mark(FRAMES[0], "a", class_name="hook").success
    assert rig.mark(FRAMES[0], "b", 90.0, 20.0).success
    objects = rig.track(FRAMES[1])
    stamp = nanoseconds(objects.header.stamp)
    others = {topic: rig.until(lambda t=topic: rig.result(stamp, t)) for topic in (
        "classes", "label_map", "overlay", "overlay/compressed",
    )}  # fmt: skip
    rig.until(lambda: rig.received["markers"])
    assert {m.header.frame_id for m in (objects, *others.values())} == {"scope"}
    assert (objects.width, objects.height) == (120, 90)
    assert [(e.name, e.label_value) for e in objects.objects] == [("a", 1), ("b", 2)]
    labels = image_to_labels(others["label_map"])
    for entry in objects.objects:
        mask = rle_to_mask(entry.mask)
        assert mask.shape == labels.shape == (90, 120)
        assert mask.sum() == entry.area
        if entry.state == TrackedObject.STATE_TRACKING:
            assert not np.any((labels == entry.label_value) & ~mask)
    assert [(c.target, c.label_value) for c in others["classes"].instruments] == [
        ("a", 1), ("b", 2),
    ]  # fmt: skip
    assert (others["classes"].instruments[0].class_name, objects.objects[0].class_name) == (
        "hook", "hook",
    )  # fmt: skip
    assert image_to_rgb(others["overlay"]).shape == (90, 120, 3)
    assert image_to_rgb(others["overlay/compressed"]).shape == (90, 120, 3)
    timing = objects.timing
    assert timing.inference > 0
    assert timing.publish > 0
    assert timing.frames_received >= objects.frame_index + 1
    told = rig.until(lambda: rig.received["events"][1:] and rig.received["events"])
    assert [(e.kind, e.target, e.label_value) for e in told] == [
        (TrackEvent.ADDED, "a", 1), (TrackEvent.ADDED, "b", 2),
    ]  # fmt: skip
    prompts = rig.received["prompts"]
    assert [(p.name, p.class_name, p.correction, len(p.points)) for p in prompts] == [
        ("a", "hook", False, 1), ("b", "", False, 1),
    ]  # fmt: skip
    assert rig.result(nanoseconds(prompts[0].header.stamp)) is not None

    def diagnosed() -> bool:
        values = {s.name: s for m in rig.received["/diagnostics"][-1:] for s in m.status}
        return set(values) == {"tracker: stream", "tracker: targets", "tracker: machine"} and any(
            pair.key == "1 a" for pair in values["tracker: targets"].values
        )

    rig.until(diagnosed)


def test_pictures_are_made_only_while_someone_looks(active, monkeypatch) -> None:
    _, rig = active
    drawn = []
    draw = publishers.overlay_picture
    monkeypatch.setattr(publishers, "overlay_picture", lambda *a: (drawn.append(1), draw(*a))[1])
    for n in range(3):
        rig.track(FRAMES[n])
    assert not drawn
    rig.subscribe("overlay", Image)

    def seen() -> bool:
        rig.track(FRAMES[0])
        return bool(rig.received["overlay"])

    rig.until(seen)
    assert drawn


@pytest.mark.parametrize("reliable", [True, False])
def test_both_kinds_of_cameras_are_heard(start, reliable) -> None:
    _, rig = start({"reliable": reliable})
    rig.bring_up()
    rig.warm(FRAMES[0])


def test_late_and_best_effort_consumers_are_served(active) -> None:
    _, rig = active
    rig.mark(FRAMES[0])
    loose = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    for topic in ("objects", "label_map"):
        kept = rig.subscribe(topic, TOPICS[topic], loose)
        kept.clear()
    late = Rig(rig.node.context)
    try:

        def heard() -> bool:
            rig.send(FRAMES[1])
            time.sleep(0.05)
            return all(late.received[topic] for topic in ("objects", "label_map", "classes"))

        rig.until(heard)
        assert rig.names(late.received["objects"][-1]) == ["a"]
    finally:
        late.end()
    assert rig.received["label_map"]


def test_compressed_images_are_tracked(start) -> None:
    _, rig = start({"compressed": True}, transport="compressed")
    rig.bring_up()
    message = CompressedImage(format="jpeg")
    message.data.frombytes(cv2.imencode(".jpg", FRAMES[0])[1].tobytes())
    rig.warm(message)
    assert rig.mark(message).success


# --- services ---------------------------------------------------------------------------


def test_every_kind_of_prompt_is_answered_with_its_mask(active) -> None:
    _, rig = active
    mask = np.zeros((90, 120), bool)
    mask[20:50, 30:70] = True
    wishes = {
        "box": {"box": [Box2D(x0=30.0, y0=30.0, x1=60.0, y1=60.0)]},
        "mask": {"mask": [mask_to_rle(mask)]},
        "clicks": {"points": [Point2D(x=80.0, y=20.0), Point2D(x=5.0, y=5.0)], "labels": [1, 0]},
    }
    for value, (name, fields) in enumerate(wishes.items(), 1):
        request = SetTarget.Request(name=name, **fields)
        answer = rig.answered(FRAMES[0], rig.ask(SetTarget, "set_target", request))
        assert answer.success, answer.message
        assert answer.message == ""
        assert answer.label_value == value
        shown = rig.result(nanoseconds(answer.stamp)).objects[value - 1]
        assert (answer.area, answer.iou) == (shown.area, shown.iou)
    listed = rig.call(ListTargets, "list_targets").targets
    assert [target.name for target in listed] == list(wishes)
    assert all(target.prompts == 1 and target.memory_entries >= 1 for target in listed)
    prompts = rig.until(lambda: rig.received["prompts"][2:] and rig.received["prompts"])
    assert np.array_equal(rle_to_mask(prompts[1].mask[0]), mask)


def test_refused_prompts_say_why(active) -> None:
    _, rig = active
    for fields, reason in (
        ({"name": "a"}, "empty"),
        ({"name": "", "points": [Point2D(x=4.0, y=4.0)], "labels": [1]}, "non-empty"),
        ({"name": "a", "points": [Point2D(x=500.0)], "labels": [1]}, "outside the image"),
        ({"name": "a", "points": [Point2D(x=4.0)], "labels": [1, 1]}, "1 points need 1 labels"),
        ({"name": "a", "points": [Point2D(x=4.0)], "labels": [1], "class_name": "hok"}, "'hook'"),
        ({"name": "a", "mask": [mask_to_rle(np.ones((5, 5), bool))]}, "5x5"),
    ):
        future = rig.ask(SetTarget, "set_target", SetTarget.Request(**fields))
        answer = rig.answered(FRAMES[0], future)
        assert not answer.success
        assert reason in answer.message, answer.message
    assert rig.received["prompts"] == []


def test_targets_are_corrected_removed_and_reset(active) -> None:
    _, rig = active
    for name, x in (("a", 40.0), ("b", 90.0), ("a", 45.0)):
        assert rig.mark(FRAMES[0], name, x).success
    refused = rig.call(RemoveTarget, "remove_target", name="c")
    assert not refused.success
    assert "Targets: a, b" in refused.message
    assert rig.call(RemoveTarget, "remove_target", name="a").success
    assert rig.mark(FRAMES[0], "c").label_value == 3  # a's value rests
    assert rig.call(Reset, "reset").removed == 2
    objects = rig.track(FRAMES[1])
    assert (objects.objects, objects.frame_index) == ([], 0)
    wanted = [
        (TrackEvent.ADDED, "a"), (TrackEvent.ADDED, "b"), (TrackEvent.CORRECTED, "a"),
        (TrackEvent.REMOVED, "a"), (TrackEvent.ADDED, "c"), (TrackEvent.REMOVED, "b"),
        (TrackEvent.REMOVED, "c"),
    ]  # fmt: skip
    rig.until(lambda: rig.told() == wanted)


def test_a_stamped_prompt_is_applied_to_the_image_that_was_seen(active) -> None:
    _, rig = active
    stamps = [nanoseconds(rig.track(frame).header.stamp) for frame in FRAMES]
    answer = rig.mark(FRAMES[-1], "late", stamp=time_message(stamps[4]))
    assert answer.success, answer.message
    assert nanoseconds(answer.stamp) == stamps[4]
    joined = rig.until(lambda: "late" in rig.names(rig.track(FRAMES[-1])))
    assert joined
    assert nanoseconds(rig.received["prompts"][0].header.stamp) == stamps[4]
    old = rig.mark(FRAMES[-1], "old", stamp=time_message(stamps[0] - 3_600_000_000_000))
    assert "no longer kept" in old.message


def test_services_answer_and_only_the_newest_image_waits_while_one_is_computed(active) -> None:
    node, rig = active
    rig.mark(FRAMES[0])
    runtime = node.live._session.tracker.runtime
    encode, held, let_go = runtime.encode_image, threading.Event(), threading.Event()

    def slow(frame):
        held.set()
        let_go.wait(20.0)
        return encode(frame)

    runtime.encode_image = slow
    try:
        heard = len(rig.received["objects"])
        first = rig.send(FRAMES[1])
        rig.until(held.is_set)
        begin = time.monotonic()
        assert [t.name for t in rig.call(ListTargets, "list_targets").targets] == ["a"]
        assert time.monotonic() - begin < 2.0
        waiting = rig.ask(SetTarget, "set_target", SetTarget.Request(
            name="b", points=[Point2D(x=90.0, y=20.0)], labels=[1],
        ))  # fmt: skip
        before = node.live.counts.received
        stamps = []
        for frame in FRAMES[2:8]:  # one by one, for DDS too keeps only the newest
            stamps.append(rig.send(frame))
            rig.until(lambda: node.live.counts.received == before + len(stamps))
        assert not waiting.done()
    finally:
        let_go.set()
        runtime.encode_image = encode
    last = rig.until(lambda: rig.result(stamps[-1]))
    got = [nanoseconds(m.header.stamp) for m in rig.received["objects"][heard:]]
    assert got == [first, stamps[-1]]
    assert last.timing.frames_skipped >= 5
    assert rig.until(waiting.done)
    assert nanoseconds(waiting.result().stamp) == stamps[-1]


def test_state_is_saved_and_loaded(active, tmp_path) -> None:
    _, rig = active
    rig.mark(FRAMES[0], "a")
    rig.mark(FRAMES[0], "b", 90.0)
    nowhere = rig.call(SaveState, "save_state", path="")
    assert "autosave_path is empty" in nowhere.message
    path = tmp_path / "deep" / "state.pt"
    saved = rig.call(SaveState, "save_state", path=str(path))
    assert (saved.success, saved.path, saved.targets) == (True, str(path), ["a", "b"])
    assert path.is_file()
    rig.call(Reset, "reset")
    rig.mark(FRAMES[0], "x")
    missing = rig.call(LoadState, "load_state", path=str(tmp_path / "none.pt"))
    assert not missing.success
    assert "there is no file" in missing.message
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    assert "damaged" in rig.call(LoadState, "load_state", path=str(tmp_path / "bad.pt")).message
    assert rig.names(rig.track(FRAMES[1])) == ["x"]
    loaded = rig.call(LoadState, "load_state", path=str(path))
    assert (loaded.success, loaded.targets) == (True, ["a", "b"])
    objects = rig.track(FRAMES[1])
    assert [(e.name, e.label_value) for e in objects.objects] == [("a", 1), ("b", 2)]
    rig.until(lambda: (TrackEvent.REMOVED, "x") in rig.told())
    unwritable = rig.call(SaveState, "save_state", path="/proc/none/state.pt")
    assert "could not be written" in unwritable.message


# --- time -------------------------------------------------------------------------------


def test_late_and_repeated_images_are_skipped_and_counted(active) -> None:
    node, rig = active
    newest = nanoseconds(rig.track(FRAMES[0]).header.stamp)
    before = dataclasses.replace(node.live.counts)
    rig.send(FRAMES[1], newest)
    rig.until(lambda: node.live.counts.repeated == before.repeated + 1)
    rig.send(FRAMES[1], newest - PERIOD // 2)
    rig.until(lambda: node.live.counts.late == before.late + 1)
    rig.newest_ns = newest
    objects = rig.track(FRAMES[1])
    counts = node.live.counts
    assert counts.repeated == before.repeated + 1
    assert counts.late == before.late + 1
    assert counts.tracked == before.tracked + 1
    assert objects.timing.frames_skipped == counts.skipped
    assert rig.result(newest - PERIOD // 2) is None


def test_a_looping_clock_is_reported_and_resets_nothing(active) -> None:
    _, rig = active
    rig.mark(FRAMES[0])
    rig.newest_ns -= 60_000_000_000
    assert rig.names(rig.track(FRAMES[1])) == ["a"]
    rig.until(lambda: (TrackEvent.CLOCK_JUMPED, "") in rig.told())
    event = rig.received["events"][-1]
    assert event.seconds == pytest.approx(60.0, abs=1.0)


def test_a_stale_stream_is_told_once_and_resumes_with_its_targets(start) -> None:
    _, rig = start(stale_after=0.4)
    rig.bring_up()
    rig.warm(FRAMES[0])
    rig.mark(FRAMES[0])
    stale, resumed = (TrackEvent.STREAM_STALE, ""), (TrackEvent.STREAM_RESUMED, "")
    last = rig.newest_ns
    before = rig.told().count(stale)
    rig.until(lambda: rig.told().count(stale) > before)
    heard = len(rig.received["objects"])
    time.sleep(1.0)
    assert rig.told().count(stale) == before + 1
    assert len(rig.received["objects"]) == heard == len(rig.received["label_map"])
    assert nanoseconds(rig.received["events"][-1].header.stamp) == last
    objects = rig.track(FRAMES[1])
    assert rig.names(objects) == ["a"]
    rig.until(lambda: rig.told()[-1] == resumed or rig.told()[-2:-1] == [resumed])


def test_simulated_time(start) -> None:
    node, rig = start(use_sim_time=True)
    clock = rig.node.create_publisher(Clock, "/clock", 10)
    rig.bring_up()
    rig.newest_ns = 5_000_000_000

    def ticking() -> bool:
        clock.publish(Clock(clock=time_message(8_000_000_000)))
        return node.get_clock().now().nanoseconds == 8_000_000_000

    rig.until(ticking)
    rig.warm(FRAMES[0])
    objects = rig.track(FRAMES[1])
    age = (8_000_000_000 - nanoseconds(objects.header.stamp)) / 1e6
    assert objects.timing.stamp_to_result == pytest.approx(age, abs=1e-2)


# --- parameters -------------------------------------------------------------------------


def parameter(name: str, value: float | int | str) -> Parameter:
    kinds = {
        float: ("PARAMETER_DOUBLE", "double_value"), int: ("PARAMETER_INTEGER", "integer_value"),
        str: ("PARAMETER_STRING", "string_value"),
    }  # fmt: skip
    kind, field = kinds[type(value)]
    return Parameter(
        name=name, value=ParameterValue(type=getattr(ParameterType, kind), **{field: value})
    )


def test_parameters_are_described_bounded_marked_and_shown_in_the_file(start) -> None:
    _, rig = start()
    names = [setting.name for setting in SETTINGS]
    answer = rig.call(DescribeParameters, "describe_parameters", names=names)
    described = {d.name: d for d in answer.descriptors}
    assert all(described[name].description for name in names)
    for setting in SETTINGS:
        assert described[setting.name].read_only is not setting.live
        ranges = (
            described[setting.name].integer_range or described[setting.name].floating_point_range
        )
        assert bool(ranges) is (setting.low is not None)
        assert bool(described[setting.name].additional_constraints) is bool(setting.choices)
    path = Path(__file__).resolve().parents[2] / "config" / "tracker.yaml"
    shown = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    assert shown == {setting.name: setting.default for setting in SETTINGS}
    lines = path.read_text().splitlines()
    for setting in SETTINGS:
        line = next(
            n for n, text in enumerate(lines) if text.strip().startswith(f"{setting.name}:")
        )
        comment = " ".join(lines[line : line + 4]).split(f"{setting.name}:")[1]
        assert "#" in comment
    # What the file marks as live is what is.
    assert path.read_text().count("(live)") == sum(setting.live for setting in SETTINGS)


def test_parameters_change_together_or_not_at_all(active) -> None:
    node, rig = active

    def change(**values):
        parameters = [parameter(name, value) for name, value in values.items()]
        return rig.call(
            SetParametersAtomically, "set_parameters_atomically", parameters=parameters
        ).result

    refused = change(presence_low=0.9)
    assert not refused.successful
    assert "presence_low <= presence_high" in refused.reason
    assert "read-only" in change(model="tiny").reason
    assert not change(max_rate=-1.0).successful
    assert "catch_up_steps" in change(catch_up_steps=1).reason
    assert change(presence_low=0.9, presence_high=0.95, iou_low=0.999, iou_high=1.0).successful
    rig.mark(FRAMES[0])
    rig.track(FRAMES[1])
    assert rig.track(FRAMES[2]).objects[0].state == TrackedObject.STATE_OCCLUDED
    assert change(iou_low=0.0, iou_high=0.0, presence_low=0.0, presence_high=0.0).successful
    assert rig.track(FRAMES[3]).objects[0].state == TrackedObject.STATE_TRACKING
    assert change(max_targets=1).successful
    assert "at most 1" in rig.mark(FRAMES[0], "b").message
    assert change(max_rate=0.5).successful
    before = node.live.counts.tracked
    for frame in FRAMES:
        rig.send(frame)
        time.sleep(0.02)
    time.sleep(0.3)
    assert node.live.counts.tracked <= before + 2
    assert node.live.counts.limited >= len(FRAMES) - 3


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"transport": "smoke"}, "one of raw, compressed"),
        ({"lost_after": 0}, "whole number in 1…100000"),
        ({"max_rate": 10}, r"write 10.0, not 10"),
        ({"iou_low": 0.9}, "iou_low <= iou_high"),
        ({"memory": "elephant"}, "one of sam2, divemem, efp"),
        ({"model": ""}, "'model' is empty"),
        ({"runtime": "onnx", "device": "cuda"}, "the runtime is 'onnx': choose a provider"),
        ({"runtime": "onnx", "image_size": 256}, "sam2s export --image-size"),
        ({"provider": "cuda"}, "the runtime is 'torch': choose a device, or runtime onnx"),
        ({"allow_fallback": True}, "'allow_fallback' is 'True', but the runtime is 'torch'"),
    ],
)
def test_wrong_parameters_are_refused_with_a_sentence(ros_context, parameters, reason) -> None:
    with pytest.raises(Exception, match=reason):
        make_node(ros_context, **parameters)
