"""A camera and a consumer around a tracker node: sends images, keeps all that comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from session_streams import IOU_BIAS, stream
from visualization_msgs.msg import MarkerArray

from sam2s_model.config import ModelConfig
from sam2s_model.random_weights import lively_weights
from sam2s_model.weights import save_weights
from sam2s_msgs.msg import InstrumentClasses, Point2D, Prompt, TrackedObjects, TrackEvent
from sam2s_msgs.srv import SetTarget
from sam2s_ros.conversions import rgb_to_image
from sam2s_ros.headers import header_message, nanoseconds
from sam2s_ros.tracker_node import TrackerNode

PATIENCE = 30.0  # seconds; machines that run tests are busy
PERIOD = 40_000_000
TOPICS = {
    "objects": TrackedObjects,
    "classes": InstrumentClasses,
    "label_map": Image,
    "events": TrackEvent,
    "prompts": Prompt,
}
PICTURES = {"overlay": Image, "overlay/compressed": CompressedImage, "markers": MarkerArray}


def write_weights(folder: Path, image_size: int = 64) -> Path:
    """Weights of a small network that trusts its masks."""
    path = folder / "lively.safetensors"
    weights = lively_weights(ModelConfig.preset("nano", image_size=image_size))
    weights[IOU_BIAS].fill_(2.0)
    save_weights(path, weights, {"preset": "nano", "image_size": image_size})
    return path


class Spinner:
    """Spins a node in a thread of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.executor = SingleThreadedExecutor(context=node.context)
        self.executor.add_node(node)
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            self.executor.spin_once(timeout_sec=0.1)

    def end(self) -> None:
        self._ended = True
        self.executor.wake()
        self._thread.join(5.0)
        self.executor.shutdown()
        if isinstance(self.node, LifecycleNode):
            # rclpy leaves the lifecycle's services behind until the node is collected; the next
            # test's requests would go to a node that never answers.
            self.node._state_machine.destroy_when_not_in_use()
        self.node.destroy_node()


class Rig:
    """Talks to the node /tracker over DDS."""

    def __init__(self, context: Any, *, reliable: bool = True, compressed: bool = False) -> None:
        self.node = Node("rig", context=context)
        self.received: dict[str, list[Any]] = {}
        self._clients: dict[str, Any] = {}
        self.newest_ns = time.time_ns()
        camera = QoSProfile(
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self.camera = self.node.create_publisher(
            CompressedImage if compressed else Image,
            "image/compressed" if compressed else "image",
            camera,
        )
        for topic, kind in TOPICS.items():
            self.subscribe(topic, kind)
        self.subscribe("/diagnostics", DiagnosticArray)
        self._spinner = Spinner(self.node)

    def end(self) -> None:
        self._spinner.end()

    def subscribe(self, topic: str, kind: Any, qos: QoSProfile | None = None) -> list[Any]:
        kept = self.received.setdefault(topic, [])
        name = topic if topic.startswith("/") else f"/tracker/{topic}"
        self.node.create_subscription(kind, name, kept.append, qos or QoSProfile(depth=200))
        return kept

    def until(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait for a condition and give what it gave; it may do something, such as sending."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds:g} s; events: {self.told()}")
            time.sleep(0.005)
        return value

    # --- services -------------------------------------------------------------------------

    def ask(self, kind: Any, service: str, request: Any) -> Any:
        """Call a service without waiting for its answer."""
        client = self._clients.get(service)
        if client is None:
            client = self.node.create_client(kind, f"/tracker/{service}")
            self._clients[service] = client
        assert client.wait_for_service(PATIENCE), service
        return client.call_async(request)

    def call(self, kind: Any, service: str, **fields: Any) -> Any:
        """Call a service and wait."""
        future = self.ask(kind, service, kind.Request(**fields))
        return self.until(lambda: future.result() if future.done() else None)

    def transition(self, name: str) -> bool:
        number = getattr(Transition, f"TRANSITION_{name.upper()}")
        return bool(
            self.call(ChangeState, "change_state", transition=Transition(id=number)).success
        )

    def state(self) -> str:
        return str(self.call(GetState, "get_state").current_state.label)

    def bring_up(self) -> None:
        assert self.transition("configure")
        assert self.transition("activate")
        self.until(lambda: self.camera.get_subscription_count() > 0)

    # --- the stream -----------------------------------------------------------------------

    def send(self, frame: Any, stamp_ns: int | None = None, **options: Any) -> int:
        """Publish an image; the stamp is one period after the last one's by default."""
        stamp_ns = self.newest_ns + PERIOD if stamp_ns is None else stamp_ns
        self.newest_ns = stamp_ns
        message = frame if not isinstance(frame, np.ndarray) else rgb_to_image(frame, **options)
        message.header = header_message(stamp_ns, "scope")
        self.camera.publish(message)
        return stamp_ns

    def result(self, stamp_ns: int, topic: str = "objects") -> Any:
        """What a topic said of an image; None if nothing yet."""
        return next(
            (m for m in reversed(self.received[topic]) if nanoseconds(m.header.stamp) == stamp_ns),
            None,
        )

    def track(self, frame: Any, **options: Any) -> Any:
        """Publish an image and wait for its objects."""
        stamp_ns = self.send(frame, **options)
        return self.until(lambda: self.result(stamp_ns))

    def warm(self, frame: Any) -> None:
        """Publish until results come: until both sides have found each other."""

        def heard() -> bool:
            self.send(frame)
            time.sleep(0.1)
            return bool(self.received["objects"] and self.received["label_map"])

        self.until(heard)

    def mark(
        self, frame: Any, name: str = "a", x: float = 40.0, y: float = 45.0, **more: Any
    ) -> Any:
        """Click on a target, publish images until there is an answer, and give it."""
        request = SetTarget.Request(name=name, points=[Point2D(x=x, y=y)], labels=[1], **more)
        return self.answered(frame, self.ask(SetTarget, "set_target", request))

    def answered(self, frame: Any, future: Any) -> Any:
        """Publish images until a request is answered."""
        while not future.done():
            self.track(frame)
        return future.result()

    def told(self) -> list[tuple[int, str]]:
        """Kinds and targets of the events so far."""
        return [(event.kind, event.target) for event in self.received["events"]]

    def names(self, message: Any) -> list[str]:
        return [entry.name for entry in message.objects]


def make_node(context: Any, **parameters: Any) -> TrackerNode:
    """The node itself, in this process."""
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    return TrackerNode(context=context, parameter_overrides=overrides)


FRAMES = stream(12)
