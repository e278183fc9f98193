"""Failures caused on purpose: damaged and changing images, floods, crashes, signals, leaks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from session_streams import stream
from tracker_rig import FRAMES, PERIOD, Rig, Spinner, make_node, write_weights

from sam2s_model import StreamTracker, load_model
from sam2s_msgs.msg import Point2D, TrackedObject, TrackEvent
from sam2s_msgs.srv import ListTargets, RemoveTarget, SaveState, SetTarget
from sam2s_ros.autosave import resume
from sam2s_ros.conversions import rgb_to_image
from sam2s_ros.headers import nanoseconds
from sam2s_ros.session import Session
from sam2s_ros.state_file import StateFileError, read_state, write_state

pytestmark = pytest.mark.ros

MODULE = "sam2s_ros.tracker_node"
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def rig(ros_context):
    made = Rig(ros_context)
    yield made
    made.end()


@pytest.fixture
def node(ros_context, weights):
    made = make_node(ros_context, model=str(weights), stale_after=30.0, threads=1)
    spinner = Spinner(made)
    yield made
    made.end()
    spinner.end()


@pytest.fixture
def process(ros_process, weights):
    """Start the node as a process of its own."""

    def begin(**parameters):
        values = {"model": weights, "stale_after": 30.0, "threads": 1, **parameters}
        options = [text for k, v in values.items() for text in ("-p", f"{k}:={v}")]
        return ros_process(MODULE, "--ros-args", *options)

    return begin


# --- images -----------------------------------------------------------------------------


def test_size_and_encoding_may_change_in_mid_stream(node, rig) -> None:
    rig.bring_up()
    rig.warm(FRAMES[0])
    rig.mark(FRAMES[0])
    for width, height in ((240, 180), (33, 57), (640, 512), (120, 90)):
        (frame,) = stream(1, width, height)
        for encoding in ("bgr8", "rgb8"):
            objects = rig.track(frame, encoding=encoding)
            assert rig.names(objects) == ["a"]
            assert (objects.width, objects.height) == (width, height)
            assert (objects.objects[0].mask.width, objects.objects[0].mask.height) == (
                width, height,
            )  # fmt: skip
    grey = Image(height=90, width=120, step=120, encoding="mono8")
    grey.data.frombytes(bytes(90 * 120))
    assert rig.names(rig.track(grey)) == ["a"]


def damaged(kind: str) -> Image:
    message = rgb_to_image(FRAMES[0])
    if kind == "truncated":
        del message.data[1000:]
    elif kind == "empty":
        message = Image(encoding="rgb8")
    elif kind == "unknown encoding":
        message.encoding = "smoke8"
    else:
        message.step = 7
    return message


@pytest.mark.parametrize("kind", ["truncated", "empty", "unknown encoding", "short step"])
def test_damaged_images_are_skipped_counted_and_told(node, rig, kind) -> None:
    rig.bring_up()
    rig.warm(FRAMES[0])
    rig.mark(FRAMES[0])
    heard = len(rig.received["objects"])
    for k in range(3):
        rig.send(damaged(kind))
        rig.until(lambda k=k: node.live.counts.damaged == k + 1)
    time.sleep(0.1)
    assert len(rig.received["objects"]) == heard
    rig.until(
        lambda: any(
            "an image was skipped" in status.message
            for message in rig.received["/diagnostics"]
            for status in message.status
        )
    )
    objects = rig.track(FRAMES[1])
    assert rig.names(objects) == ["a"]


def test_a_flood_of_prompts_is_answered_without_losing_the_stream(node, rig) -> None:
    rig.bring_up()
    rig.warm(FRAMES[0])
    client = rig.node.create_client(
        SetTarget, "/tracker/set_target", qos_profile=QoSProfile(depth=1000)
    )
    assert client.wait_for_service(20.0)
    click = {"points": [Point2D(x=40.0, y=45.0)], "labels": [1]}
    waiting = [client.call_async(SetTarget.Request(name=f"t{n % 30}", **click)) for n in range(200)]
    begin = time.monotonic()
    tracked = 0
    while not all(future.done() for future in waiting):
        rig.track(FRAMES[tracked % 12])
        tracked += 1
        assert time.monotonic() - begin < 60.0
    answers = [future.result() for future in waiting]
    assert sum(answer.success for answer in answers) >= 16
    reasons = {answer.message for answer in answers if not answer.success}
    assert any("prompts wait already" in reason for reason in reasons)
    assert all("prompts wait already" in reason or "at most 16" in reason for reason in reasons)
    assert len(rig.track(FRAMES[0]).objects) == 16


# --- crashes ----------------------------------------------------------------------------


@pytest.mark.serial
def test_a_process_killed_during_a_frame_is_followed_by_one_that_goes_on(
    process, ros_context, tmp_path
) -> None:
    state = tmp_path / "autosave.pt"
    first = process(autosave_path=state, autosave_period=0.1)
    rig = Rig(ros_context)
    try:
        rig.bring_up()
        rig.warm(FRAMES[0])
        rig.mark(FRAMES[0], "removed", 70.0)
        assert rig.mark(FRAMES[0], "a", class_name="hook").label_value == 2
        assert rig.call(RemoveTarget, "remove_target", name="removed").success
        rig.mark(FRAMES[0], "b", 90.0, 20.0)
        rig.track(FRAMES[1])
        rig.until(lambda: {*read_state(state)["standings"]} == {"a", "b"})
        rig.send(FRAMES[2])  # and it dies before it can have answered, or while it does
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        saved = read_state(state)["tracker"]["frame"]
    finally:
        rig.end()

    second = process(autosave_path=state, autosave_period=0.1)
    rig = Rig(ros_context)
    try:
        rig.bring_up()
        assert "goes on from" in second.output()
        listed = rig.call(ListTargets, "list_targets").targets
        assert [(t.name, t.label_value) for t in listed] == [("a", 2), ("b", 3)]
        rig.warm(FRAMES[2])
        after = rig.track(FRAMES[3])
        assert [(e.name, e.label_value) for e in after.objects] == [("a", 2), ("b", 3)]
        assert after.objects[0].class_name == "hook"
        assert after.frame_index >= saved > 0  # it counts on from the frames that were saved
        assert after.objects[0].state == TrackedObject.STATE_TRACKING
        assert (TrackEvent.ADDED, "a") not in rig.told()
        # Cleaning up is on purpose: nobody is to go on from there.
        assert rig.transition("deactivate")
        assert rig.transition("cleanup")
        assert not state.exists()
    finally:
        rig.end()


def test_a_state_that_is_old_or_damaged_is_not_gone_on_from(node, rig, tmp_path, weights) -> None:
    state = tmp_path / "autosave.pt"
    rig.bring_up()
    rig.warm(FRAMES[0])
    rig.mark(FRAMES[0])
    assert rig.call(SaveState, "save_state", path=str(state)).success
    session = Session(StreamTracker(load_model(str(weights))))
    assert "goes on from" in resume(session, state, 300.0)
    time.sleep(0.2)
    assert "autosave_max_age" in resume(session, state, 0.1)
    other = Session(StreamTracker(load_model(str(weights)), memory="sam2"))
    assert "not gone on from: the snapshot was made with" in resume(other, state, 0.0)
    state.write_bytes(state.read_bytes()[:1000])
    assert "damaged" in resume(session, state, 0.0)
    assert resume(session, tmp_path / "none", 0.0) == ""


def test_state_files_are_whole_or_absent(tmp_path) -> None:
    path = tmp_path / "state.pt"
    write_state(path, {"format": "x"})
    assert read_state(path)["format"] == "x"
    blocked = tmp_path / "folder"
    blocked.mkdir()
    with pytest.raises(StateFileError, match="could not be written"):
        write_state(blocked, {"format": "y"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "state.pt"]
    with pytest.raises(StateFileError, match="there is no file"):
        read_state(tmp_path / "none.pt")


@pytest.mark.serial
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True])
def test_signals_end_the_process_cleanly_within_two_seconds(
    process, rig, tmp_path, number, busy
) -> None:
    state = tmp_path / "autosave.pt"
    child = process(autosave_path=state)
    if busy:
        rig.bring_up()
        rig.warm(FRAMES[0])
        rig.mark(FRAMES[0])
        for k in range(5):
            rig.send(FRAMES[k])
    else:
        assert rig.state() == "unconfigured"
    begin = time.monotonic()
    child.signal(number)
    assert child.wait(10.0) == 0
    assert time.monotonic() - begin <= 2.0
    assert "Traceback" not in child.output()
    if busy:
        assert [*read_state(state)["standings"]] == ["a"]


@pytest.mark.serial
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.1, 1.5])  # while weights load; while the network warms up
def test_signals_end_a_process_that_is_being_configured(process, rig, number, after) -> None:
    child = process(image_size=1024)  # its first frames take long
    assert rig.state() == "unconfigured"
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    answer = rig.ask(ChangeState, "change_state", request)
    time.sleep(after)
    assert not answer.done()
    begin = time.monotonic()
    child.signal(number)
    assert child.wait(10.0) == 0
    assert time.monotonic() - begin <= 2.0
    assert "Traceback" not in child.output()


def test_a_wrong_parameter_ends_the_process_with_a_sentence(process) -> None:
    child = process(iou_low=0.9)
    assert child.wait(60.0) == 2
    assert "tracker: 0 <= iou_low <= iou_high <= 1 must hold" in child.output()
    assert "Traceback" not in child.output()


# --- leaks ------------------------------------------------------------------------------


def cycle(rig: Rig, node, frame: np.ndarray) -> None:
    assert rig.transition("configure")
    assert rig.transition("activate")
    stamp_ns = rig.newest_ns + PERIOD
    rig.newest_ns = stamp_ns
    node.live.offer(rgb_to_image(frame), stamp_ns, "scope")
    rig.until(lambda: node.live.counts.tracked == 1)
    assert rig.transition("deactivate")
    assert rig.transition("cleanup")


def memory_after(rig: Rig, node, cycles: int) -> list[float]:
    """Megabytes of this process after each cycle."""
    process, sizes = psutil.Process(os.getpid()), []
    for _ in range(cycles):
        cycle(rig, node, FRAMES[0])
        sizes.append(process.memory_info().rss / MEGABYTE)
    return sizes


@pytest.mark.serial
def test_a_few_cycles_leave_memory_flat(node, rig) -> None:
    sizes = memory_after(rig, node, 10)
    assert sizes[-1] - sizes[3] < 20.0  # a network that stayed would be as much each time
    assert node.live is None


@pytest.mark.slow
def test_a_hundred_cycles_leave_memory_flat(node, rig) -> None:
    sizes = memory_after(rig, node, 100)
    assert sizes[-1] - sizes[9] < 20.0
    threads = psutil.Process(os.getpid()).num_threads()
    memory_after(rig, node, 2)
    assert psutil.Process(os.getpid()).num_threads() <= threads + 1


def test_stamps_in_outputs_are_those_of_images(node, rig) -> None:
    """Whatever else was sent, results belong to images that were sent."""
    rig.bring_up()
    rig.warm(FRAMES[0])
    sent = {rig.send(FRAMES[n % 12]) for n in range(40)}
    rig.until(lambda: rig.result(max(sent)))
    first = min(sent)
    got = [nanoseconds(m.header.stamp) for m in rig.received["objects"]]
    fresh = [stamp for stamp in got if stamp >= first]
    assert set(fresh) <= sent
    assert fresh == sorted(set(fresh))
