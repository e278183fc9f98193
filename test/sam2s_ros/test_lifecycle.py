"""Bringing a lifecycle node up, however it behaves; over DDS, in processes of its own."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State

from sam2s_ros.client import RosClient
from sam2s_ros.lifecycle import BringUpError, LifecycleClient, bring_up

pytestmark = pytest.mark.ros

CHILDREN = {"PYTHONPATH": str(Path(__file__).parent / "children")}


@pytest.fixture
def start_child(ros_process, ros_env, tmp_path):
    """Start the node /lifecycle_test/child that behaves in a certain manner."""
    path = ":".join([CHILDREN["PYTHONPATH"], ros_env.get("PYTHONPATH", "")])

    def start(manner: str):
        return ros_process(
            "lifecycle_child", manner, str(tmp_path / "crashed"),
            "--ros-args", "-r", "__ns:=/lifecycle_test", env={"PYTHONPATH": path},
        )  # fmt: skip

    return start


@pytest.fixture
def client(ros_context):
    with RosClient("lifecycle_tester", ros_context) as ros:
        yield LifecycleClient(ros, "/lifecycle_test/child")


def test_node_that_starts_late_and_configures_slowly_becomes_active(client, start_child):
    process = start_child("slow")
    words: list[str] = []
    bring_up(client, seconds=60.0, say=words.append)
    assert process.output().count("child is active") == 1
    assert client.state() == State.PRIMARY_STATE_ACTIVE
    bring_up(client, seconds=5.0)  # a second time changes nothing
    assert process.output().count("child is active") == 1


def test_refusal_is_told_and_the_node_lives(client, start_child):
    process = start_child("refuse")
    with pytest.raises(BringUpError, match=r"/lifecycle_test/child refused to configure; its own"):
        bring_up(client, seconds=60.0)
    assert "there are no weights" in process.output()
    assert process.popen.poll() is None


def test_node_killed_and_started_again_is_brought_up_again(client, start_child):
    first = start_child("ready")
    bring_up(client, seconds=60.0)
    first.signal(signal.SIGKILL)
    first.wait()
    second = start_child("ready")
    begin = time.monotonic()
    bring_up(client, seconds=60.0)
    assert time.monotonic() - begin < 20.0
    assert "child is active" in second.output()


def test_crash_in_configure_is_survived_by_the_same_bring_up(ros_process, start_child):
    helper = ros_process("sam2s_ros.lifecycle", "--node", "/lifecycle_test/child", "--ros-args")
    first = start_child("crash")
    assert first.wait(60.0) == 9
    second = start_child("crash")
    second.wait_for("child is active", 60.0)
    assert helper.wait(20.0) == 0
    assert "bring_up: /lifecycle_test/child is active" in helper.output()


def test_nobody_there_is_an_error_after_the_limit(client):
    with pytest.raises(BringUpError, match="was not active after 1 s"):
        bring_up(client, seconds=1.0)
    begin = time.monotonic()
    bring_up(client, seconds=60.0, alive=lambda: False)  # its process has ended: no use to wait
    assert time.monotonic() - begin < 1.0
