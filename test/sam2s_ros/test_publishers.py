"""What is made for whom: nothing for topics that nobody listens to."""

from __future__ import annotations

import time

import pytest
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from session_builders import STAMP, picture, two_and_a_lost_one
from tracker_rig import PATIENCE, Spinner

from sam2s_msgs.msg import InstrumentClasses, TrackedObjects
from sam2s_ros import publishers
from sam2s_ros.headers import nanoseconds
from sam2s_ros.live import Counts, Outcome

pytestmark = pytest.mark.ros

MADE = {
    "objects": ("objects_message", TrackedObjects),
    "label_map": ("label_map_message", Image),
    "classes": ("classes_message", InstrumentClasses),
}


@pytest.fixture
def outputs(ros_context):
    """Publishers of a node, and another node that may subscribe to them."""
    node, hearer = Node("tracker", context=ros_context), Node("hearer", context=ros_context)
    made = publishers.Publishers(node, lambda: 85, pytest.fail)
    spinner = Spinner(hearer)
    yield made, hearer
    spinner.end()
    made.close()
    node.destroy_node()


@pytest.mark.parametrize("topic", MADE)
def test_a_message_is_made_only_while_someone_subscribes(outputs, monkeypatch, topic) -> None:
    made, hearer = outputs
    built = []
    for name, (function, _) in MADE.items():
        build = getattr(publishers, function)
        monkeypatch.setattr(
            publishers, function, lambda *a, _n=name, _b=build: (built.append(_n), _b(*a))[1]
        )
    outcome = Outcome(two_and_a_lost_one(), picture(), wait=1.0, inference=20.0)
    made.publish(outcome, Counts(received=1))
    assert not built
    heard = []
    hearer.create_subscription(
        MADE[topic][1], f"/tracker/{topic}", heard.append, QoSProfile(depth=5)
    )
    deadline = time.monotonic() + PATIENCE
    while not heard:
        assert time.monotonic() < deadline
        made.publish(outcome, Counts(received=1))
        time.sleep(0.02)
    assert set(built) == {topic}
    assert nanoseconds(heard[0].header.stamp) == STAMP
