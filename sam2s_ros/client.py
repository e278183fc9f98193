"""A short-lived ROS 2 participant that asks other nodes; what the command line is made of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from sam2s_ros.dds import use_profile

SPIN_SECONDS = 0.05  # between looks at a condition while nothing arrives


class RosClient:
    """A node with a context and an executor of its own; a context manager.

    Ctrl-C stays a KeyboardInterrupt, because no signal handlers are installed.

    Args:
        name: of the node, to which the process id is added.
        context: one that is already running, which then outlives this client.
    """

    def __init__(self, name: str = "sam2s_client", context: Context | None = None) -> None:
        self._owned = context is None
        if context is None:
            use_profile()
            context = Context()
            rclpy.init(context=context)
        self.context = context
        self.node: Node = rclpy.create_node(f"{name}_{os.getpid()}", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)

    def __enter__(self) -> RosClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave ROS."""
        self._executor.shutdown()
        self.node.destroy_node()
        if self._owned:
            self.context.try_shutdown()

    def spin_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Receive until a condition holds, for so long at most; tells whether it does."""
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(SPIN_SECONDS, left))
        return True

    def spin(self, seconds: float) -> None:
        """Receive for so long."""
        self.spin_until(lambda: False, seconds)

    def call(self, client: Any, request: Any, seconds: float) -> Any:
        """Call a service and return its answer, or None if none came in time."""
        begin = time.monotonic()
        if not self.spin_until(client.service_is_ready, seconds):
            return None
        future = client.call_async(request)
        if not self.spin_until(future.done, max(0.0, seconds - (time.monotonic() - begin))):
            client.remove_pending_request(future)
            return None
        return future.result()
