"""The tracker node as a child process: started, brought up, told its targets, listened to."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile

from sam2s_model.errors import Sam2sError
from sam2s_msgs.msg import Box2D, TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_msgs.srv import SetTarget  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.client import RosClient
from sam2s_ros.conversions import rle_to_mask
from sam2s_ros.dds import with_profile
from sam2s_ros.demo.camera import NAMESPACE
from sam2s_ros.demo.stream import Target
from sam2s_ros.lifecycle import LifecycleClient, bring_up
from sam2s_ros.plan import TRACKER_CONFIG, NodePlan
from sam2s_ros.share import shared_file
from sam2s_ros.supervisor import NodeProcess, end_all

DISCOVERY_SECONDS = 20.0  # for this process and the tracker node to see each other


class TrackerNodeError(Sam2sError):
    """The tracker node did not start."""


@dataclass(frozen=True)
class Result:
    """What the tracker made of one frame."""

    stamp: int  # nanoseconds, of the frame
    latency: float  # seconds from the frame's stamp to its result in this process
    masks: dict[str, NDArray[np.bool_]]  # by target, bool (H, W)
    labels: dict[str, str]  # class by target, or `unknown`


class NodeTracker:
    """Runs a tracker node on the endoscope's images; a context manager that ends it.

    Args:
        model: the node's parameter: weights by name or path.
        log: file for the node's output.
    """

    def __init__(self, model: str, log: Path) -> None:
        log.unlink(missing_ok=True)
        self.results: list[Result] = []
        self._refusals: list[str] = []
        plan = NodePlan(
            executable="tracker_node",
            name="tracker",
            namespace=NAMESPACE,
            params_file=str(shared_file("config", TRACKER_CONFIG)),
            # A core stays free for the endoscope and for receiving: threads of torch that have to
            # wait for one cost far more than they bring.
            parameters={"model": model, "threads": max(1, (os.cpu_count() or 1) - 1)},
            remappings=(("image", "image_raw"),),
            lifecycle=True,
            autostart=True,
        )
        self._process = NodeProcess(plan, with_profile(), log)
        self._name = plan.full_name
        self._client: Any = None

    def __enter__(self) -> NodeTracker:
        self._process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_all([self._process])

    @property
    def error(self) -> str | None:
        """What has gone wrong, if anything."""
        if self._process.code is not None:
            return f"its process ended with code {self._process.code}: {self._process.last_words()}"
        return self._refusals[0] if self._refusals else None

    def bring_up(self) -> None:
        """Wait until the node is active; raises if it cannot be."""
        with RosClient("demo_starter") as ros:
            lifecycle = LifecycleClient(ros, self._name)
            bring_up(lifecycle, alive=lambda: self._process.code is None)
        if self.error is not None:
            raise TrackerNodeError(f"the tracker node did not start: {self.error}")

    def listen(self, node: Node) -> None:
        """Receive results, and send prompts, through a node that others spin from now on."""
        self._client = node.create_client(SetTarget, f"{self._name}/set_target")
        node.create_subscription(
            TrackedObjects, f"{self._name}/objects", self._on_objects, QoSProfile(depth=50)
        )
        deadline = time.monotonic() + DISCOVERY_SECONDS
        while not self._client.service_is_ready():  # a request before that goes to nobody
            rclpy.spin_once(node, timeout_sec=0.05)
            if time.monotonic() > deadline:
                raise TrackerNodeError(f"{self._name} was not found in {DISCOVERY_SECONDS:g} s")

    def begin(self, targets: Sequence[Target], stamp: int) -> None:
        """Mark the targets on the frame of this stamp, which may have passed by now."""
        for target in targets:
            request = SetTarget.Request(name=target.name)
            request.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
            x0, y0, x1, y1 = np.asarray(target.prompt.box, float).tolist()
            request.box = [Box2D(x0=x0, y0=y0, x1=x1, y1=y1)]
            self._client.call_async(request).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        answer = future.result()
        if not answer.success:
            self._refusals.append(f"it refused a prompt: {answer.message}")

    def _on_objects(self, message: TrackedObjects) -> None:
        received = time.time_ns()
        if not message.objects:
            return  # nothing is marked yet
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        masks = {entry.name: rle_to_mask(entry.mask) for entry in message.objects}
        labels = {entry.name: entry.class_name for entry in message.objects}
        self.results.append(Result(stamp, (received - stamp) / 1e9, masks, labels))
