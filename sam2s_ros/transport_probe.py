"""Sends large images from one process to another and counts what arrives.

`probe` starts both processes, so it measures what a camera driver and a tracker node see:
discovery, DDS profile, shared memory, serialisation. `sam2s doctor` and the tests use it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sam2s_model.allocator import keep_freed_memory
from sam2s_model.errors import Sam2sError
from sam2s_ros.dds import with_profile

TOPIC = "sam2s_transport_probe"


class ProbeError(Sam2sError):
    """A process of the probe failed, so nothing was measured."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe counted; times are milliseconds from before publishing to a numpy array."""

    sent: int
    received: int
    median_ms: float
    worst_ms: float


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How many images, of what size, how fast."""

    count: int = 200
    rate: float = 30.0  # images a second
    width: int = 1920  # pixels
    height: int = 1080  # pixels
    match_seconds: float = 20.0  # time for both processes to find each other


def probe(
    settings: ProbeSettings,
    environment: Mapping[str, str] = os.environ,
    *,
    add_profile: bool = True,
) -> ProbeResult:
    """Send best-effort rgb8 images from a new process to another and report what arrived.

    `add_profile` names the shipped DDS profile where the environment names none.
    """
    env = with_profile(environment) if add_profile else dict(environment)
    command = [sys.executable, "-m", __name__]
    for key, value in asdict(settings).items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    receiver = _start([*command, "receive"], env)
    sender = _start([*command, "send"], env)
    limit = settings.match_seconds + settings.count / settings.rate * 2 + 20
    try:
        sent = _answer(sender, limit)
        received = _answer(receiver, limit)
    finally:
        for process in (sender, receiver):
            if process.poll() is None:
                process.kill()
            process.communicate()
    return ProbeResult(
        sent=sent["sent"],
        received=received["received"],
        median_ms=received["median_ms"],
        worst_ms=received["worst_ms"],
    )


def _start(command: list[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _answer(process: subprocess.Popen[str], limit: float) -> dict[str, Any]:
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"the image probe did not finish within {limit:.0f} s") from error
    if process.returncode != 0:
        reason = errors.strip().splitlines()[-1:] or ["no reason given"]
        raise ProbeError(f"a process of the image probe failed: {reason[0]}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def _send(settings: ProbeSettings) -> dict[str, float]:
    """Publish the images once a subscriber is there, each with its number in its frame_id."""
    import array

    import rclpy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("sam2s_probe_sender")
    publisher = node.create_publisher(Image, TOPIC, _qos())
    message = Image(height=settings.height, width=settings.width, encoding="rgb8")
    message.step = settings.width * 3
    message.data = array.array("B", os.urandom(settings.width * 3) * settings.height)
    deadline = time.monotonic() + settings.match_seconds
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            raise ProbeError("two processes on this machine do not discover each other over DDS")
        time.sleep(0.02)
    time.sleep(0.3)  # the receiver's side of the match may come a little later than ours
    start = time.monotonic()
    for number in range(settings.count):
        time.sleep(max(0.0, start + number / settings.rate - time.monotonic()))
        message.header.frame_id = str(number)
        _stamp(message)
        publisher.publish(message)
    time.sleep(1.0)  # let the last image leave before its memory goes
    node.destroy_node()
    rclpy.shutdown()
    return {"sent": settings.count}


def _qos() -> Any:
    """Best effort, as camera drivers publish; ten deep, so that a short stall loses nothing."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


def _stamp(message: Any) -> None:
    """Stamp with the monotonic clock, which both processes of one machine share."""
    now = time.monotonic_ns()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)


def _receive(settings: ProbeSettings) -> dict[str, float]:
    """Count distinct images until the last one arrived or nothing comes any more."""
    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("sam2s_probe_receiver")
    latencies: dict[str, float] = {}
    last = time.monotonic()

    def on_image(message: Any) -> None:
        nonlocal last
        pixels = np.frombuffer(message.data, np.uint8)
        last = time.monotonic()
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        if pixels.size == settings.height * settings.width * 3:
            latencies[message.header.frame_id] = (last - stamp) * 1000

    node.create_subscription(Image, TOPIC, on_image, _qos())
    # Silence ends the count: at first the time of discovery, later a few frame intervals.
    while str(settings.count - 1) not in latencies:
        rclpy.spin_once(node, timeout_sec=0.1)
        patience = max(2.0, 10 / settings.rate) if latencies else settings.match_seconds + 2
        if time.monotonic() - last > patience:
            break
    node.destroy_node()
    rclpy.shutdown()
    return {
        "received": len(latencies),
        "median_ms": float(np.median(list(latencies.values()))) if latencies else float("nan"),
        "worst_ms": max(latencies.values(), default=float("nan")),
    }


def main() -> int:
    """Run one side of the probe and print what it counted as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["send", "receive"])
    for key, value in asdict(ProbeSettings()).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=type(value), default=value)
    values = vars(parser.parse_args())
    side = values.pop("side")
    settings = ProbeSettings(**values)
    keep_freed_memory()  # as the nodes do
    try:
        print(json.dumps(_send(settings) if side == "send" else _receive(settings)), flush=True)
    except Sam2sError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
