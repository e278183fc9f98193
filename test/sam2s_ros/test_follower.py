"""The example controller over DDS, fed by hand: it moves on good results and stops on all else."""

from __future__ import annotations

import math
import re
import signal
import time

import pytest
import rclpy
from geometry_msgs.msg import PointStamped, TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile

from sam2s_msgs.msg import Point2D, TrackedObject, TrackedObjects, TrackEvent
from sam2s_ros.follower import Limits, decide

pytestmark = pytest.mark.ros

MODULE = "sam2s_ros.follower"
RATE = 2.0  # Hz: slow, so that a loaded machine measures the watchdog and not itself
SETTINGS = ("--ros-args", "-p", "target:=grasper-1", "-p", f"rate:={RATE}", "-p", "max_age:=5.0")
LIMITS = Limits(rate=25.0, gain=0.1, max_speed=0.05, deadband=0.1, min_iou=0.5, max_age=0.2)


def result(x: float = 300.0, y: float = 100.0, **changes) -> TrackedObjects:
    entry = TrackedObject(
        name="grasper-1", label_value=1, state=TrackedObject.STATE_TRACKING, iou=0.9,
        centroid=Point2D(x=x, y=y), area=100,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(entry, name, value)
    other = TrackedObject(name="hook-2", label_value=2, iou=0.9, centroid=Point2D(x=0.0, y=0.0))
    return TrackedObjects(width=400, height=400, objects=[other, entry])


class Bench(Node):
    """A tracker by hand, and a robot that writes down its commands."""

    def __init__(self, context) -> None:
        super().__init__("bench", context=context)
        self.commands: list[tuple[float, TwistStamped]] = []
        self.points: list[PointStamped] = []
        self.objects = self.create_publisher(TrackedObjects, "tracker/objects", QoSProfile(depth=5))
        self.events = self.create_publisher(TrackEvent, "tracker/events", QoSProfile(depth=5))
        self.create_subscription(TwistStamped, "cmd_vel", self._on_command, QoSProfile(depth=50))
        self.create_subscription(PointStamped, "point", self.points.append, QoSProfile(depth=50))

    def _on_command(self, message: TwistStamped) -> None:
        self.commands.append((time.monotonic(), message))

    def send(self, message: TrackedObjects, age: float = 0.0) -> tuple[int, int]:
        stamp = self.get_clock().now() - rclpy.duration.Duration(seconds=age)
        message.header.stamp = stamp.to_msg()
        message.header.frame_id = "scope"
        self.objects.publish(message)
        return message.header.stamp.sec, message.header.stamp.nanosec

    def answer(self, stamp: tuple[int, int]) -> TwistStamped | None:
        """The command for the image of this stamp."""
        for _, message in self.commands:
            if (message.header.stamp.sec, message.header.stamp.nanosec) == stamp:
                return message
        return None


@pytest.fixture
def bench(ros_context):
    node = Bench(ros_context)
    yield node
    node.destroy_node()


@pytest.fixture
def follower(ros_process, bench, spin_until):
    process = ros_process(MODULE, *SETTINGS)
    spin_until(bench, lambda: bench.objects.get_subscription_count() > 0, 60.0)
    spin_until(bench, lambda: bench.count_publishers("cmd_vel") > 0, 20.0)
    bench.send(result())  # until discovery has gone both ways
    deadline = time.monotonic() + 20.0
    while not bench.commands and time.monotonic() < deadline:
        bench.send(result())
        until = time.monotonic() + 0.1
        spin_until(bench, lambda until=until: time.monotonic() > until, 5.0)
    return process


def speed(message: TwistStamped) -> float:
    return math.hypot(message.twist.linear.x, message.twist.linear.y)


def ask(bench, spin_until, message: TrackedObjects, age: float = 0.0) -> TwistStamped:
    stamp = bench.send(message, age)
    spin_until(bench, lambda: bench.answer(stamp) is not None, 5.0)
    return bench.answer(stamp)


def test_it_moves_towards_the_target_and_stops_in_the_very_frame_of_doubt(
    bench, follower, spin_until
):
    command = ask(bench, spin_until, result(300.0, 100.0))
    assert command.header.frame_id == "scope"
    assert command.twist.linear.x > 0 > command.twist.linear.y
    assert (bench.points[-1].point.x, bench.points[-1].point.y) == (300.0, 100.0)
    gone = result()
    gone.objects.pop()
    doubts = [
        result(state=TrackedObject.STATE_LOST),
        result(state=TrackedObject.STATE_OCCLUDED),
        result(iou=0.2),
        result(iou=math.nan),
        result(math.nan, math.nan),
        gone,
    ]
    for doubt in doubts:
        assert speed(ask(bench, spin_until, result())) > 0
        assert speed(ask(bench, spin_until, doubt)) == 0
    assert speed(ask(bench, spin_until, result(), age=6.0)) == 0  # an old picture
    assert speed(ask(bench, spin_until, result())) > 0


def test_watchdog_stops_before_a_second_result_is_overdue(bench, follower, spin_until):
    silences = []
    for _ in range(3):
        sent = time.monotonic()
        assert speed(ask(bench, spin_until, result())) > 0
        spin_until(bench, lambda: speed(bench.commands[-1][1]) == 0, 5.0)
        silences.append(bench.commands[-1][0] - sent)
    # An interval until the next was due, less than one more. A busy machine may add to one of them.
    assert min(silences) > 1.0 / RATE
    assert min(silences) < 2.0 / RATE
    before = len(bench.commands)
    until = time.monotonic() + 3.0 / RATE
    spin_until(bench, lambda: time.monotonic() > until, 5.0)
    assert len(bench.commands) == before  # it has stopped: nothing to add
    assert "stops: no result for" in follower.output()


def test_steady_results_keep_it_moving(bench, follower, spin_until):
    ask(bench, spin_until, result())
    before = len(bench.commands)
    for _ in range(6):
        until = time.monotonic() + 1.0 / RATE
        spin_until(bench, lambda until=until: time.monotonic() > until, 5.0)
        bench.send(result())
    spin_until(bench, lambda: len(bench.commands) >= before + 6, 5.0)
    assert all(speed(message) > 0 for _, message in bench.commands[before:])


def test_event_of_a_stale_stream_or_its_target_stops_it(bench, follower, spin_until):
    for kind, target, stops in (
        (TrackEvent.STREAM_STALE, "", True),
        (TrackEvent.LOST, "grasper-1", True),
        (TrackEvent.LOST, "hook-2", False),
        (TrackEvent.CORRECTED, "grasper-1", False),
    ):
        ask(bench, spin_until, result())
        before = len(bench.commands)
        bench.events.publish(TrackEvent(kind=kind, target=target))
        spin_until(bench, lambda before=before: len(bench.commands) > before, 5.0)
        first = bench.commands[before]
        # By the event, or only later by the watchdog, which stamps its command.
        assert (first[1].header.stamp.sec == 0) == stops
        assert speed(first[1]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_last_word_is_a_stop(bench, follower, spin_until, number):
    ask(bench, spin_until, result())
    follower.signal(number)
    assert follower.wait(5.0) == 0
    spin_until(bench, lambda: speed(bench.commands[-1][1]) == 0, 5.0)
    assert "Traceback" not in follower.output()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ((), r"'target' is empty; name one"),
        (("-p", "target:=a", "-p", "rate:=0.0"), r"'rate' must be a number in 0.1…240"),
        (("-p", "target:=a", "-p", "gain:=1"), r"'gain' must be a number .* with a point"),
    ],
)
def test_wrong_parameters_are_refused(ros_process, parameters, sentence):
    process = ros_process(MODULE, "--ros-args", *parameters)
    assert process.wait(60.0) == 2
    assert re.search(f"follower: .*{sentence}", process.output())
    assert "Traceback" not in process.output()


def test_speed_is_limited_and_rests_near_the_centre():
    assert decide(result(400.0, 200.0), "grasper-1", LIMITS, 0.0).x == LIMITS.max_speed
    near = decide(result(205.0, 203.0), "grasper-1", LIMITS, 0.0)
    assert (near.x, near.y, near.reason) == (0.0, 0.0, "centred")
    assert decide(result(), "grasper-1", LIMITS, -1.0).reason == "the result is -1.000 s old"
