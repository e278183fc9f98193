"""A subscription with a thread of its own, for large messages that come many times a second.

An executor of rclpy puts all that a node waits for together anew before each wait, which takes a
lifecycle node with its twenty services a millisecond of Python. Here one subscription is waited
for, so its messages neither cost that nor wait behind a service.

Its QoS events are waited for here too. Whoever waits for them is also woken by each message, and
again and again until it is taken; an executor that cannot take it turns in a circle then, and as it
hardly lets go of Python's interpreter, whoever could take it may not run for tenths of a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile

NANO = 1_000_000_000
LOOK = 0.25  # seconds after which the thread looks whether ROS was shut down
PAUSE = 0.01  # seconds after a failure, so that one that lasts takes no core
CLOSE_SECONDS = 2.0  # for a callback that is running when the listener is closed


class _LeftAlone(ReentrantCallbackGroup):
    """Keeps the executor from the subscription and its QoS events."""

    def can_execute(self, entity: Any) -> Any:
        return False


class Listener:
    """Subscribes, and calls back from its thread until it is closed.

    Args:
        node: whose subscription it is.
        kind: the type of the messages.
        topic: their topic.
        callback: takes a message.
        qos: of the subscription.
        trouble: is told when the callback has failed; the listener goes on.
    """

    def __init__(
        self,
        node: Node,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        trouble: Callable[[str], None],
    ) -> None:
        self._node, self._callback, self._trouble = node, callback, trouble
        self._subscription: Any = node.create_subscription(
            kind, topic, callback, qos, callback_group=_LeftAlone()
        )
        self._context: Any = node.context
        handle: Any = node.context.handle
        with handle:
            self._wake: Any = rclpy_implementation.GuardCondition(handle)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"listen {topic}", daemon=True)
        self._thread.start()

    @property
    def topic_name(self) -> str:
        """The topic's full name."""
        return str(self._subscription.topic_name)

    def close(self) -> None:
        """Unsubscribe; nothing is called back after this."""
        if self._closed:
            return
        self._closed = True
        with self._wake:
            self._wake.trigger_guard_condition()
        self._thread.join(CLOSE_SECONDS)
        self._node.destroy_subscription(self._subscription)
        self._wake.destroy_when_not_in_use()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                events = self._subscription.event_handlers
                for used in (self._subscription.handle, self._wake, self._context.handle, *events):
                    stack.enter_context(used)
                self._listen(events)
        except Exception as error:
            # A signal shuts ROS down beside this thread, which may be in the middle of using it.
            if self._context.ok() and not self._closed:
                self._trouble(f"messages are no longer received: {error!r}")

    def _listen(self, events: Sequence[Any]) -> None:
        source = self._subscription.handle
        wait_set: Any = rclpy_implementation.WaitSet(
            1, 1, 0, 0, 0, len(events), self._context.handle
        )
        while not self._closed and self._context.ok():
            wait_set.clear_entities()
            wait_set.add_subscription(source)
            wait_set.add_guard_condition(self._wake)
            for event in events:
                event.add_to_wait_set(wait_set)
            wait_set.wait(round(LOOK * NANO))
            if source.pointer in wait_set.get_ready_entities("subscription"):
                self._guarded("a message", self._take, source)
            for event in events:
                if event.is_ready(wait_set):
                    self._guarded("a QoS event", self._report, event)

    def _take(self, source: Any) -> None:
        """Take a message, if it is still there, and call back."""
        if self._closed:
            return
        taken = source.take_message(self._subscription.msg_type, False)
        if taken is not None:
            self._callback(taken[0])

    def _report(self, event: Any) -> None:
        """Take a QoS event, and hand it to whoever reports it."""
        data = event.take_data()
        if data is not None:
            event.callback(data)

    def _guarded(self, what: str, work: Callable[[Any], None], source: Any) -> None:
        """Do something; tell if it fails, and go on."""
        try:
            work(source)
        except Exception as error:
            if not self._context.ok():
                return
            self._trouble(f"{what} could not be processed: {error!r}")
            time.sleep(PAUSE)
