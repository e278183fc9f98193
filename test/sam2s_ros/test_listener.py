"""A subscription with a thread of its own, over DDS, beside an executor."""

from __future__ import annotations

import threading
import time

import pytest
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from tracker_rig import PATIENCE, Spinner

from sam2s_ros.listener import Listener

pytestmark = pytest.mark.ros

QOS = QoSProfile(depth=10)


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def nodes(ros_context):
    """A node that speaks, and one that listens and is spun."""
    speaker, hearer = Node("speaker", context=ros_context), Node("hearer", context=ros_context)
    spinner = Spinner(hearer)
    yield speaker, hearer
    spinner.end()
    speaker.destroy_node()


@pytest.fixture
def listen(nodes):
    made = []

    def begin(callback, troubles=None, qos=QOS):
        kept = [] if troubles is None else troubles
        made.append(Listener(nodes[1], String, "words", callback, qos, kept.append))
        return made[-1]

    yield begin
    for listener in made:
        listener.close()


def test_each_message_is_heard_once_in_a_thread_of_its_own(nodes, listen) -> None:
    heard, threads = [], set()

    def hear(message) -> None:
        heard.append(message.data)
        threads.add(threading.current_thread().name)

    listener = listen(hear)
    assert listener.topic_name == "/words"
    publisher = nodes[0].create_publisher(String, "words", QOS)
    until(lambda: publisher.get_subscription_count() == 1)
    said = [f"word {n}" for n in range(20)]
    for word in said:
        publisher.publish(String(data=word))
        until(lambda word=word: heard and heard[-1] == word)
    assert heard == said
    assert threads == {"listen words"}


def test_a_callback_that_fails_is_told_and_the_next_message_heard(nodes, listen) -> None:
    heard, troubles = [], []

    def hear(message) -> None:
        heard.append(message.data)
        raise ValueError(message.data)

    listen(hear, troubles)
    publisher = nodes[0].create_publisher(String, "words", QOS)
    until(lambda: publisher.get_subscription_count() == 1)
    for word in ("one", "two"):
        publisher.publish(String(data=word))
        until(lambda word=word: heard and heard[-1] == word)
    until(lambda: len(troubles) == 2)
    assert "ValueError('one')" in troubles[0]


def test_a_closed_listener_hears_nothing_and_is_gone(nodes, listen) -> None:
    heard = []
    listener = listen(heard.append)
    publisher = nodes[0].create_publisher(String, "words", QOS)
    until(lambda: publisher.get_subscription_count() == 1)
    begin = time.monotonic()
    listener.close()
    assert time.monotonic() - begin < 2.0
    until(lambda: publisher.get_subscription_count() == 0)
    publisher.publish(String(data="late"))
    time.sleep(0.3)
    assert not heard
    assert "listen words" not in {thread.name for thread in threading.enumerate()}


def test_a_message_that_waits_for_its_turn_does_not_keep_the_executor_busy(nodes, listen) -> None:
    heard = []
    busy, go_on = threading.Event(), threading.Event()

    def hear(message) -> None:
        heard.append(message.data)
        busy.set()
        assert go_on.wait(PATIENCE)

    listen(hear)
    publisher = nodes[0].create_publisher(String, "words", QOS)
    until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="one"))
    assert busy.wait(PATIENCE)
    publisher.publish(String(data="two"))
    time.sleep(0.2)
    begin = time.process_time()
    time.sleep(0.5)
    spent = time.process_time() - begin
    go_on.set()
    until(lambda: heard == ["one", "two"])
    assert spent < 0.2, f"{spent:.2f} s of processor time in half a second in which nothing happens"


def test_publishers_that_do_not_match_are_still_reported(nodes, listen, capfd) -> None:
    listen(lambda message: None, qos=QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    nodes[0].create_publisher(String, "words", best_effort)
    told = ""

    def warned() -> bool:
        nonlocal told
        told += capfd.readouterr().err
        return "hearer" in told and "incompatible QoS" in told

    until(warned)
