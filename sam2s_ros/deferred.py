"""Services whose answers come later, from any thread, while the executor goes on.

rclpy sends what a service's callback returns. A coroutine could wait instead, but rclpy resumes a
waiting coroutine again and again until it ends, which takes a whole core from the network, and a
callback that blocks takes a thread. Here the callback returns a Deferred at once, and the answer is
sent when there is one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

DEPTH = 256  # requests that may wait in DDS; of a flood, each is answered


class Deferred:
    """An answer that is still to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: Any = None
        self._send: Callable[[Any], None] | None = None

    def answer(self, response: Any) -> None:
        """Send the answer; only the first one counts."""
        with self._lock:
            if self._response is not None:
                return
            self._response = response
            send = self._send
        if send is not None:
            send(response)

    def _to(self, send: Callable[[Any], None]) -> None:
        """Say where the answer goes."""
        with self._lock:
            self._send = send
            response = self._response
        if response is not None:
            send(response)


def create_deferred_service(
    node: Node, kind: Any, name: str, handler: Callable[[Any, Any], Deferred]
) -> Any:
    """Create a service whose handler, given request and empty response, returns a Deferred."""
    service: Any = node.create_service(kind, name, handler, qos_profile=_services())
    send_now = service.send_response

    def send_response(response: Any, header: Any) -> None:
        if not isinstance(response, Deferred):
            send_now(response, header)
            return

        def send(answer: Any) -> None:
            with contextlib.suppress(Exception):  # the node may be gone by now
                send_now(answer, header)

        response._to(send)

    service.send_response = send_response
    return service


def _services() -> QoSProfile:
    return QoSProfile(depth=DEPTH)
