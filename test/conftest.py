"""Fixtures for every test; those for ROS 2 give each test run a DDS domain of its own."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Set to 1 to skip tests marked `ros` on purpose; without it they fail where ROS 2 is missing,
# because a suite that silently leaves out its nodes looks like one that passes.
SKIP_ROS = "SAM2S_SKIP_ROS"

# Domains above 101 collide with the ports that Linux hands out to outgoing connections.
DOMAINS = range(1, 102)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail tests marked `ros` where ROS 2 is missing, unless asked to skip them."""
    if item.get_closest_marker("ros") is None:
        return
    if os.environ.get(SKIP_ROS) == "1":
        pytest.skip(f"{SKIP_ROS}=1")
    for module in ("rclpy", "sam2s_msgs"):
        if importlib.util.find_spec(module) is None:
            pytest.fail(
                f"{module} cannot be imported: `make setup`, then `source env.sh` "
                f"(or skip these tests with {SKIP_ROS}=1)",
                pytrace=False,
            )


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """Reserve a ROS_DOMAIN_ID on this machine for this test process."""
    folder = Path(tempfile.gettempdir()) / "sam2s-test-domains"
    folder.mkdir(exist_ok=True)
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        with (folder / str(domain)).open("w") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield domain
            return
    raise RuntimeError("all 101 test domains of this machine are taken")


@pytest.fixture
def ros_env(ros_domain: int, tmp_path: Path) -> dict[str, str]:
    """The environment for processes of a test: own domain, this machine only, profile, logs."""
    from sam2s_ros.dds import with_profile

    return with_profile(
        {
            **os.environ,
            "ROS_DOMAIN_ID": str(ros_domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(tmp_path / "ros_log"),
            "PYTHONUNBUFFERED": "1",
        }
    )


@pytest.fixture
def ros_context(ros_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A running rclpy context in the test's own process, in the same domain as its children.

    Nodes of the test are made with `rclpy.create_node(name, context=ros_context)`.
    """
    import rclpy

    for name, value in ros_env.items():
        monkeypatch.setenv(name, value)
    context = rclpy.context.Context()
    context.init()
    yield context
    context.try_shutdown()


class RosProcess:
    """A child process of a test, with its output in a file."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.command = command
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.popen.pid

    def output(self) -> str:
        """All that the child has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, timeout: float = 20.0) -> None:
        """Return when the child has printed a text; fail if it ends or `timeout` s pass first."""
        deadline = time.monotonic() + timeout
        while text not in self.output():
            if self.popen.poll() is not None:
                pytest.fail(f"{self.command} ended before printing {text!r}:\n{self.output()}")
            if time.monotonic() > deadline:
                pytest.fail(f"{self.command} did not print {text!r}:\n{self.output()}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child."""
        self.popen.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Return the child's exit code; fail if it takes longer than `timeout` s."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.command} did not end within {timeout} s:\n{self.output()}")

    def end(self) -> None:
        """End the child and all that it started, whatever its state."""
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(3)


@pytest.fixture
def ros_process(ros_env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., RosProcess]]:
    """Start `ros_process("module", "arg", …, env={…})` as `python -m module`; ended afterwards."""
    started: list[RosProcess] = []

    def start(module: str, *arguments: str, env: dict[str, str] | None = None) -> RosProcess:
        log = tmp_path / f"process-{len(started)}.log"
        command = [sys.executable, "-m", module, *arguments]
        started.append(RosProcess(command, {**ros_env, **(env or {})}, log))
        return started[-1]

    yield start
    for process in reversed(started):
        process.end()
        print(f"--- {' '.join(process.command[2:])}\n{process.output()}")


@pytest.fixture
def spin_until() -> Callable[..., None]:
    """Spin a node until a condition holds: `spin_until(node, lambda: …, timeout=10)`."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    def spin(node: rclpy.node.Node, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        deadline = time.monotonic() + timeout
        try:
            while not condition():
                if time.monotonic() > deadline:
                    pytest.fail(f"not within {timeout} s: {condition}")
                executor.spin_once(timeout_sec=0.05)
        finally:
            executor.remove_node(node)
            executor.shutdown()

    return spin
