"""Node `follower`: an example controller that centres one target, and stops when it is in doubt.

It shows what a consumer of ~/objects has to watch for. It moves on a fresh result in which its
target is tracked, and on nothing else; docs/controller.md goes through it.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import rclpy
from geometry_msgs.msg import PointStamped, TwistStamped
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions

from sam2s_model.errors import Sam2sError
from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    TrackedObject,
    TrackedObjects,
    TrackEvent,
)
from sam2s_ros.dds import use_profile
from sam2s_ros.leaving import leave

# Frame intervals without a result after which it stops: before a second result is overdue.
HOLD_FRAMES = 1.75
CHECKS_PER_FRAME = 10  # of the watchdog
ACK_SECONDS = 0.3  # for the last stop command to arrive when the node ends

# Name, default, lowest, highest, what it is.
NUMBERS: tuple[tuple[str, float, float, float, str], ...] = (
    ("rate", 25.0, 0.1, 240.0, "Hz, of the results; a result is due each 1/rate s"),
    ("gain", 0.05, 0.0, 10.0, "m/s for a target at the picture's edge"),
    ("max_speed", 0.03, 0.0, 10.0, "m/s, limit of each component"),
    ("deadband", 0.05, 0.0, 1.0, "of half the picture: so near the centre it rests"),
    ("min_iou", 0.5, 0.0, 1.0, "the model's own estimate below which a mask is not trusted"),
    ("max_age", 0.2, 0.0, 10.0, "s from the image's stamp, above which a result is too old"),
)

STOPPING = {  # events of the target, or of the stream, after which the last result is void
    TrackEvent.OCCLUDED: "occluded",
    TrackEvent.LOST: "lost",
    TrackEvent.REMOVED: "removed",
    TrackEvent.STREAM_STALE: "the stream is stale",
    TrackEvent.CLOCK_JUMPED: "the clock jumped",
}


class FollowerError(Sam2sError):
    """A parameter that the follower cannot work with."""


@dataclass(frozen=True)
class Limits:
    """What the follower may do, and what it trusts; see NUMBERS."""

    rate: float
    gain: float
    max_speed: float
    deadband: float
    min_iou: float
    max_age: float


@dataclass(frozen=True)
class Decision:
    """A velocity in the camera's frame (m/s, x right, y down), and why it is zero if it is."""

    x: float = 0.0
    y: float = 0.0
    reason: str = ""


def decide(objects: Any, target: str, limits: Limits, age: float) -> Decision:
    """Turn a TrackedObjects of this age (s) into a velocity; any doubt is a stop."""
    if not 0 <= age <= limits.max_age:
        return Decision(reason=f"the result is {age:.3f} s old")
    entry = next((entry for entry in objects.objects if entry.name == target), None)
    if entry is None:
        return Decision(reason="there is no such target")
    if entry.state != TrackedObject.STATE_TRACKING:
        return Decision(reason="lost" if entry.state == TrackedObject.STATE_LOST else "occluded")
    if not entry.iou >= limits.min_iou:  # NaN is a doubt, too
        return Decision(reason=f"the mask is doubtful, IoU {entry.iou:.2f}")
    # Offset from the picture's centre, -1…1 in each direction.
    x = 2 * entry.centroid.x / objects.width - 1
    y = 2 * entry.centroid.y / objects.height - 1
    if not math.isfinite(x) or not math.isfinite(y):
        return Decision(reason="the mask is empty")
    if math.hypot(x, y) <= limits.deadband:
        return Decision(reason="centred")
    return Decision(_clamp(limits.gain * x, limits), _clamp(limits.gain * y, limits))


def _clamp(speed: float, limits: Limits) -> float:
    return max(-limits.max_speed, min(limits.max_speed, speed))


class FollowerNode(Node):
    """Publishes `cmd_vel` for each result, and stops by itself when results fail to come."""

    def __init__(self) -> None:
        super().__init__("follower")
        text = ParameterDescriptor(description="name of the target to follow", read_only=True)
        self.target = str(self.declare_parameter("target", "", text).value)
        if not self.target:
            raise FollowerError(
                "the parameter 'target' is empty; name one, as in -p target:=grasper-1"
            )
        self.limits = Limits(**{row[0]: self._number(*row) for row in NUMBERS})
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._last = -math.inf  # s, monotonic, of the last result
        self._moving = False

        self._velocity: Any = self.create_publisher(TwistStamped, "cmd_vel", QoSProfile(depth=1))
        self._point: Any = self.create_publisher(PointStamped, "point", QoSProfile(depth=1))
        # Only the newest counts; best effort hears reliable publishers as well.
        newest = QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability)
        self.create_subscription(TrackedObjects, "tracker/objects", self._on_objects, newest)
        self.create_subscription(TrackEvent, "tracker/events", self._on_event, QoSProfile(depth=50))
        period = 1.0 / (self.limits.rate * CHECKS_PER_FRAME)
        self.create_timer(period, self._watch, clock=self._steady)
        self.get_logger().info(f"following '{self.target}'")

    def _number(self, name: str, default: float, low: float, high: float, text: str) -> float:
        bounds = [FloatingPointRange(from_value=low, to_value=high)]
        descriptor = ParameterDescriptor(
            description=text, floating_point_range=bounds, read_only=True
        )
        try:
            return float(self.declare_parameter(name, default, descriptor).value)
        except ParameterException as error:
            raise FollowerError(
                f"the parameter '{name}' must be a number in {low:g}…{high:g}, written with a point"
            ) from error

    def _on_objects(self, message: TrackedObjects) -> None:
        stamp = message.header.stamp
        age = (self.get_clock().now().nanoseconds - stamp.sec * 10**9 - stamp.nanosec) / 1e9
        self._last = time.monotonic()
        decision = decide(message, self.target, self.limits, age)
        self._send(decision, message.header)
        entry = next((entry for entry in message.objects if entry.name == self.target), None)
        if entry is not None and math.isfinite(entry.centroid.x):
            point = PointStamped(header=message.header)
            point.point.x, point.point.y = entry.centroid.x, entry.centroid.y
            self._point.publish(point)

    def _on_event(self, message: TrackEvent) -> None:
        """Stop at once; the next good result moves again."""
        if message.kind in STOPPING and message.target in ("", self.target) and self._moving:
            self._send(Decision(reason=STOPPING[message.kind]), message.header)

    def _watch(self) -> None:
        """Stop when the next result is overdue."""
        if self._moving and time.monotonic() - self._last > HOLD_FRAMES / self.limits.rate:
            self.stop(f"no result for {time.monotonic() - self._last:.3f} s")

    def stop(self, reason: str) -> None:
        """Command a stop now."""
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        self._send(Decision(reason=reason), message.header)

    def finish(self) -> None:
        """Command the last stop, and wait until it has arrived."""
        self.stop("the follower ends")
        self._velocity.wait_for_all_acked(Duration(seconds=ACK_SECONDS))

    def _send(self, decision: Decision, header: Any) -> None:
        message = TwistStamped(header=header)
        message.twist.linear.x, message.twist.linear.y = decision.x, decision.y
        self._velocity.publish(message)
        moving = not decision.reason
        if moving != self._moving:
            self.get_logger().info("moves" if moving else f"stops: {decision.reason}")
        self._moving = moving


def run(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; 2 if a parameter is wrong. Its last word is a stop."""
    use_profile()
    # Not rclpy's handlers: they would shut ROS down before the last stop can be sent.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    node: FollowerNode | None = None
    try:
        node = FollowerNode()
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    except FollowerError as error:
        print(f"follower: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.finish()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the node as a process of its own."""
    leave(run())


if __name__ == "__main__":
    main()
