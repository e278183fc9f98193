"""The command line's clients against services answered by hand: what they send, how they fail."""

from __future__ import annotations

import contextlib
import json
import threading

import cv2
import numpy as np
import pytest
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode

from sam2s_model import cli
from sam2s_msgs import srv
from sam2s_msgs.msg import Box2D, Point2D, TargetInfo, TrackedObject, TrackedObjects
from sam2s_ros.commands.set_target import PromptArgumentError, read_mask, read_stamp
from sam2s_ros.conversions import rle_to_mask
from sam2s_ros.monitor import Monitor
from sam2s_ros.tracker_client import TrackerClient

pytestmark = pytest.mark.ros


class Answering(LifecycleNode):
    """A tracker's services, which remember what they were asked."""

    def __init__(self, name: str, context, **options) -> None:
        super().__init__(name, context=context, **options)
        self.asked: list[object] = []
        self.refusal = ""
        self.infos: list[TargetInfo] = []
        for service, kind in (
            ("set_target", srv.SetTarget), ("list_targets", srv.ListTargets),
            ("remove_target", srv.RemoveTarget), ("reset", srv.Reset),
            ("save_state", srv.SaveState), ("load_state", srv.LoadState),
        ):  # fmt: skip
            self.create_service(kind, f"~/{service}", self._answer)

    def _answer(self, request, response):
        self.asked.append(request)
        if hasattr(response, "success"):
            response.success, response.message = not self.refusal, self.refusal
        if isinstance(response, srv.SetTarget.Response):
            response.label_value, response.area, response.iou = 3, 5231, 0.834
            response.stamp.sec, response.stamp.nanosec = 12, 345
        if isinstance(response, srv.ListTargets.Response):
            response.targets = self.infos
        if isinstance(response, srv.Reset.Response):
            response.removed = 1
        if isinstance(response, srv.SaveState.Response):
            response.path, response.targets = f"/data/{request.path}", ["a", "b"]
        if isinstance(response, srv.LoadState.Response):
            response.targets = ["a", "b"]
        return response


@pytest.fixture
def answering(ros_context):
    """Start such a node, spun in a thread: `answering("tracker", namespace="left")`."""
    executor = SingleThreadedExecutor(context=ros_context)
    nodes = []

    def start(name: str = "tracker", **options) -> Answering:
        nodes.append(Answering(name, ros_context, **options))
        executor.add_node(nodes[-1])
        return nodes[-1]

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield start
    executor.shutdown()
    thread.join(5.0)
    for node in nodes:
        node.destroy_node()


@pytest.fixture
def sam2s(ros_context, capsys):
    """Run a command in this process: its exit code, output and error output."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_set_target_sends_every_kind_of_prompt(answering, sam2s, tmp_path):
    tracker = answering()
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 5:9] = 200
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    code, out, _ = sam2s(
        "set-target", "--name", "grasper-1", "--click", "320,256", "--click", "330.5,250",
        "--click-off", "10,20", "--box", "300,200,360,300", "--mask", str(tmp_path / "mask.png"),
        "--class", "grasper", "--stamp", "1700000000.123456789",
    )  # fmt: skip
    assert code == 0
    assert out == (
        "grasper-1: label 3, first mask 5231 px, IoU 0.83, on the image of 12.000000345\n"
    )
    (request,) = tracker.asked
    assert (request.name, request.class_name) == ("grasper-1", "grasper")
    assert request.points == [Point2D(x=320.0, y=256.0), Point2D(x=330.5, y=250.0),
                              Point2D(x=10.0, y=20.0)]  # fmt: skip
    assert list(request.labels) == [1, 1, 0]
    assert request.box == [Box2D(x0=300.0, y0=200.0, x1=360.0, y1=300.0)]
    assert np.array_equal(rle_to_mask(request.mask[0]), mask > 0)
    assert (request.stamp.sec, request.stamp.nanosec) == (1700000000, 123456789)


def test_set_target_in_json_and_refused(answering, sam2s):
    tracker = answering()
    code, out, _ = sam2s("set-target", "--name", "a", "--click", "1,2", "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": "a", "label_value": 3, "area": 5231, "iou": 0.834, "stamp": "12.000000345",
    }  # fmt: skip
    request = tracker.asked[0]
    assert (request.stamp.sec, request.stamp.nanosec) == (0, 0)
    assert not request.box
    assert not request.mask
    tracker.refusal = "the box lies outside of the image; it must be within 640×512"
    code, _, err = sam2s("set-target", "--name", "a", "--box", "1,2,3,4")
    assert code == 2
    assert err == f"sam2s set-target: /tracker refused: {tracker.refusal}\n"


def test_targets_as_table_and_json(answering, sam2s):
    tracker = answering()
    code, out, _ = sam2s("targets")
    assert code == 0
    assert "/tracker has no targets; `sam2s set-target` adds one" in out
    info = TargetInfo(
        name="hook-2", label_value=2, state=TrackedObject.STATE_LOST, iou=0.5, class_name="hook",
        class_confidence=0.75, prompts=2, memory_entries=9,
    )  # fmt: skip
    tracker.infos = [info]
    _, out, _ = sam2s("targets", "--json")
    assert json.loads(out) == [{
        "label": 2, "name": "hook-2", "state": "lost", "IoU": 0.5, "class": "hook",
        "confidence": 0.75, "last seen": "never", "prompts": 2, "memory": 9,
    }]  # fmt: skip
    _, out, _ = sam2s("targets")
    cells = [cell.strip() for cell in out.splitlines()[2].strip("|").split("|")]
    assert cells == ["2", "hook-2", "lost", "0.5", "hook", "0.75", "never", "2", "9"]


def test_the_other_clients(answering, sam2s):
    tracker = answering()
    assert sam2s("remove-target", "a")[:2] == (0, "a is removed\n")
    assert sam2s("reset")[:2] == (0, "1 target removed\n")
    assert sam2s("save-state", "x.pt")[:2] == (0, "/data/x.pt: a, b\n")
    assert sam2s("load-state", "x.pt")[:2] == (0, "tracking a, b\n")
    assert [type(request).__name__ for request in tracker.asked] == [
        "RemoveTarget_Request", "Reset_Request", "SaveState_Request", "LoadState_Request",
    ]  # fmt: skip
    assert tracker.asked[2].path == "x.pt"
    tracker.refusal = "there is no target 'c'; there are a, b"
    code, _, err = sam2s("remove-target", "c")
    assert code == 2
    assert "/tracker refused: there is no target 'c'; there are a, b" in err


def test_no_tracker_several_and_the_named_one(answering, sam2s):
    code, _, err = sam2s("targets", "--timeout", "1")
    assert code == 2
    assert "no tracker was found within 1 s: none runs, or it runs with another" in err
    assert "`sam2s up --image TOPIC`" in err
    left, right = (answering(namespace=eye) for eye in ("left", "right"))
    code, _, err = sam2s("reset")
    assert code == 2
    assert "2 trackers are running; choose one with --node: /left/tracker, /right/tracker" in err
    assert sam2s("reset", "--node", "right/tracker")[0] == 0
    assert (len(left.asked), len(right.asked)) == (0, 1)
    code, _, err = sam2s("reset", "--node", "/middle/tracker", "--timeout", "6")
    assert code == 2
    assert "no tracker /middle/tracker was found" in err
    assert "there are /left/tracker, /right/tracker" in err


def test_silence_is_explained_by_the_lifecycle(answering, sam2s, monkeypatch):
    tracker = answering()
    given_up, ask = threading.Event(), TrackerClient.lifecycle_state
    for service in list(tracker.services):
        if service.srv_name.endswith("/list_targets"):
            # Not answered before the client's patience is at its end.
            service.callback = lambda request, response: given_up.wait(30.0) and response

    def ask_at_last(client):
        given_up.set()
        return ask(client)

    monkeypatch.setattr(TrackerClient, "lifecycle_state", ask_at_last)
    code, _, err = sam2s("targets", "--timeout", "4")
    assert code == 2
    assert "/tracker did not answer list_targets within 4 s: " in err
    assert "it is not configured: `ros2 lifecycle set /tracker configure`" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nothing points the target out: give --click, --box or --mask"),
        (("--click", "3"), "--click must be 2 numbers as in 320,256, not '3'"),
        (("--box", "1,2,3"), "--box must be 4 numbers as in 100,80,220,200, not '1,2,3'"),
        (("--click", "1,2", "--stamp", "now"), "--stamp must be seconds as in 1700000000.123456"),
        (("--mask", "nowhere.png"), "--mask: there is no file nowhere.png"),
    ],
)
def test_wrong_prompts_are_refused_before_ros_is_joined(arguments, sentence, capsys):
    assert cli.main(["set-target", "--name", "a", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_masks_are_read_from_any_kind_of_picture(tmp_path):
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    colour = np.zeros((6, 8, 3), np.uint8)
    colour[mask] = (0, 0, 7)
    for name, picture in (("grey.png", mask.astype(np.uint8)), ("colour.png", colour)):
        cv2.imwrite(str(tmp_path / name), picture)
        assert np.array_equal(read_mask(tmp_path / name), mask)
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((6, 8), np.uint8))
    with pytest.raises(PromptArgumentError, match="is all black"):
        read_mask(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PromptArgumentError, match="no readable image"):
        read_mask(tmp_path / "text.png")
    assert read_stamp("1795269025.422611936") == 1795269025422611936
    with pytest.raises(PromptArgumentError, match="must be after 0"):
        read_stamp("0")


def objects(stamp_ns: int) -> TrackedObjects:
    entry = TrackedObject(
        name="hook-2", label_value=2, state=TrackedObject.STATE_OCCLUDED, iou=0.5, class_name="hook"
    )
    message = TrackedObjects(width=640, height=512, objects=[entry])
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.timing.inference = 30.0
    message.timing.frames_received, message.timing.frames_skipped = 50, 2
    return message


def test_monitor_counts_what_it_is_given():
    monitor = Monitor("/tracker")
    assert monitor.page(0.0) == "/tracker: no result yet"
    for number in range(11):
        now_ns = 10**12 + number * 40_000_000
        monitor.on_objects(objects(now_ns - 50_000_000), number * 0.04, now_ns)
    first, _, *table = monitor.page(0.4).splitlines()
    assert first == (
        "/tracker: 640×512, 25.0 Hz, image to here p50 50 ms p99 50 ms, inference 30 ms, "
        "2 of 50 frames skipped"
    )
    assert table[2].split()[1:8:2] == ["2", "hook-2", "occluded", "0.50"]
    assert monitor.page(3.0).startswith("/tracker: no result for 2.6 s")
