"""Two trackers at once, as stereo.launch.py starts them: each hears and tells of its own eye."""

from __future__ import annotations

import time

import pytest
import yaml
from lifecycle_msgs.msg import State
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from tracker_rig import FRAMES, PATIENCE, PERIOD, write_weights

from sam2s_msgs.msg import Point2D, TrackedObjects, TrackEvent
from sam2s_msgs.srv import ListTargets, SetTarget
from sam2s_ros.client import RosClient
from sam2s_ros.conversions import rgb_to_image
from sam2s_ros.headers import header_message, nanoseconds
from sam2s_ros.lifecycle import LifecycleClient, bring_up
from sam2s_ros.plan import EYES, plan_stereo, stereo_arguments
from sam2s_ros.state_file import read_state

pytestmark = pytest.mark.ros

CLICKS = {"left": (40.0, 45.0), "right": (80.0, 30.0)}


class Eye:
    """One camera with its own stamps and frame_id, and all that its tracker says."""

    def __init__(self, node: Node, name: str) -> None:
        self.name = name
        self.stamp_ns = time.time_ns() + EYES.index(name) * PERIOD // 2
        self.sent: set[int] = set()
        self.camera = node.create_publisher(Image, f"/{name}/image_raw", QoSProfile(depth=5))
        self.objects: list[TrackedObjects] = []
        self.label_maps: list[Image] = []
        self.events: list[TrackEvent] = []
        for topic, kind, kept in (
            ("objects", TrackedObjects, self.objects),
            ("label_map", Image, self.label_maps),
            ("events", TrackEvent, self.events),
        ):
            node.create_subscription(
                kind, f"/{name}/tracker/{topic}", kept.append, QoSProfile(depth=200)
            )
        self.set_target = node.create_client(SetTarget, f"/{name}/tracker/set_target")
        self.list_targets = node.create_client(ListTargets, f"/{name}/tracker/list_targets")

    def send(self, n: int) -> int:
        self.stamp_ns += PERIOD
        self.sent.add(self.stamp_ns)
        message = rgb_to_image(FRAMES[n % len(FRAMES)], header_message(self.stamp_ns, self.name))
        self.camera.publish(message)
        return self.stamp_ns

    def heard(self, stamp_ns: int) -> bool:
        return any(nanoseconds(m.header.stamp) == stamp_ns for m in self.objects)

    def mark(self):
        x, y = CLICKS[self.name]
        request = SetTarget.Request(
            name=f"{self.name} grasper", points=[Point2D(x=x, y=y)], labels=[1]
        )
        return self.set_target.call_async(request)


@pytest.fixture
def trackers(ros_process, ros_context, tmp_path):
    """The processes that stereo.launch.py would start, brought up."""
    weights = write_weights(tmp_path)
    common = {"model": str(weights), "threads": 1, "stale_after": 30.0, "autosave_period": 0.1}
    nodes = {"/**": common} | {
        f"/{eye}/tracker": {"autosave_path": str(tmp_path / f"{eye}.state")} for eye in EYES
    }
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({name: {"ros__parameters": p} for name, p in nodes.items()}))
    values = {argument.name: argument.default for argument in stereo_arguments()}
    plans = plan_stereo({**values, "params_file": str(file)})
    processes = [ros_process("sam2s_ros.tracker_node", *plan.ros_arguments()) for plan in plans]
    with RosClient("starter", ros_context) as ros:
        for plan in plans:
            client = LifecycleClient(ros, plan.full_name)
            bring_up(client)
            assert client.state(PATIENCE) == State.PRIMARY_STATE_ACTIVE
    return processes


def test_two_trackers_do_not_hear_each_other(trackers, ros_context, tmp_path) -> None:
    node = Node("stereo_rig", context=ros_context)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)

    def until(condition) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.05)

    eyes = [Eye(node, name) for name in EYES]

    def both(n: int) -> None:
        for eye, stamp_ns in [(eye, eye.send(n)) for eye in eyes]:
            until(lambda eye=eye, stamp_ns=stamp_ns: eye.heard(stamp_ns))

    def found() -> bool:
        for eye in eyes:
            eye.send(0)
        executor.spin_once(timeout_sec=0.1)
        return all(eye.objects and eye.set_target.service_is_ready() for eye in eyes)

    until(found)
    answers = [eye.mark() for eye in eyes]
    until(lambda: (both(0), all(answer.done() for answer in answers))[1])
    assert all(answer.result().success for answer in answers)
    for n in range(1, 8):
        both(n)

    areas = []
    for eye in eyes:
        assert {nanoseconds(m.header.stamp) for m in eye.objects} <= eye.sent
        assert {m.header.frame_id for m in [*eye.objects, *eye.label_maps]} == {eye.name}
        last = eye.objects[-1].objects
        assert [entry.name for entry in last] == [f"{eye.name} grasper"]
        assert {event.target for event in eye.events} == {f"{eye.name} grasper"}
        listed = eye.list_targets.call_async(ListTargets.Request())
        until(listed.done)
        assert [target.name for target in listed.result().targets] == [f"{eye.name} grasper"]
        areas.append(last[0].area)
        # Each keeps its targets in a file of its own, as its part of the parameters says.
        state = tmp_path / f"{eye.name}.state"
        until(state.exists)
        assert [*read_state(state)["standings"]] == [f"{eye.name} grasper"]
    assert areas[0] != areas[1]  # they were clicked at different places
    assert all(process.popen.poll() is None for process in trackers)
    executor.shutdown()
    node.destroy_node()
