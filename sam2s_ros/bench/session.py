"""One case of the bench: starts camera and tracker node as processes, receives the results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from sam2s_model.allocator import keep_freed_memory
from sam2s_model.errors import Sam2sError
from sam2s_msgs.msg import TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.bench.figures import Case, Receipt
from sam2s_ros.client import RosClient
from sam2s_ros.dds import with_profile
from sam2s_ros.lifecycle import LifecycleClient, bring_up
from sam2s_ros.listener import Listener
from sam2s_ros.plan import NodePlan, Value
from sam2s_ros.supervisor import NodeProcess, end_all
from sam2s_ros.turns import take_short_turns

NAMESPACE = f"/sam2s_bench_{os.getpid()}"  # two benches do not hear each other
SOURCE_SECONDS = 180.0  # for the camera to render, to mark, and to end, beside the stream itself


class BenchError(Sam2sError):
    """A process of the bench ended too early, or took too long."""


@contextmanager
def tracker(params_file: str, parameters: Mapping[str, Value]) -> Iterator[NodePlan]:
    """Run a tracker node that is active; ended afterwards."""
    plan = NodePlan(
        executable="tracker_node",
        name="tracker",
        namespace=NAMESPACE,
        params_file=params_file,
        parameters=parameters,
        log_level="warn",
        lifecycle=True,
        autostart=True,
    )
    process = NodeProcess(plan, with_profile())
    process.start()
    try:
        with RosClient("bench_starter") as ros:
            bring_up(LifecycleClient(ros, plan.full_name), alive=lambda: process.code is None)
        if process.code is not None:
            raise BenchError(f"the tracker node ended with code {process.code}; see its output")
        yield plan
    finally:
        end_all([process])


def measure(
    case: Case, seconds: float, warmup: float, targets: int, plan: NodePlan
) -> tuple[list[int], list[Receipt]]:
    """Stream one case past a tracker: the stamps that were published, and what was received."""
    # What the receiver's own threads and memory take is none of the node's time.
    keep_freed_memory()
    take_short_turns()
    receipts: list[Receipt] = []
    maps = 0

    def on_objects(message: TrackedObjects) -> None:
        received = time.time_ns()
        stamp, timing = message.header.stamp, message.timing
        receipts.append(
            Receipt(
                stamp.sec * 10**9 + stamp.nanosec, received, timing.wait, timing.inference,
                timing.publish, timing.stamp_to_result,
            )
        )  # fmt: skip

    def on_label_map(message: Image) -> None:
        nonlocal maps
        maps += 1

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ros = stack.enter_context(RosClient("bench_receiver"))
        # A consumer takes both: what a result is, and where. It listens as the node itself does, so
        # that rclpy's executor is not counted as the node's.
        for kind, name, take, qos in (
            (TrackedObjects, "objects", on_objects, QoSProfile(depth=50)),
            (Image, "label_map", on_label_map, qos_profile_sensor_data),
        ):
            listener = Listener(ros.node, kind, f"{plan.full_name}/{name}", take, qos, _complain)
            stack.callback(listener.close)
        out = Path(folder) / "source.json"
        settings = {
            "width": case.width, "height": case.height, "targets": targets, "rate": case.rate,
            "seconds": seconds, "warmup": warmup, "encoding": case.encoding,
            "topic": f"{NAMESPACE}/image", "tracker": plan.full_name, "out": out,
            "title": case.name,
        }  # fmt: skip
        command = [sys.executable, "-m", "sam2s_ros.bench.source"]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        source = subprocess.Popen(command, env=with_profile(), stdin=subprocess.DEVNULL)
        try:
            _receive(ros, source, seconds + warmup)
        finally:
            source.kill()
            source.wait()
        if source.returncode:
            raise BenchError(f"the bench's camera ended with code {source.returncode}")
        stamps = json.loads(out.read_text())["stamps"]
    if receipts and not maps:
        raise BenchError("objects arrived but no label map did")
    return stamps, receipts


def _complain(trouble: str) -> None:
    print(f"bench receiver: {trouble}", file=sys.stderr)


def _receive(ros: RosClient, source: subprocess.Popen[bytes], streaming: float) -> None:
    """Receive until the camera ends, which shows how far it is."""
    begin = time.monotonic()
    while source.poll() is None:
        ros.spin(0.5)
        if time.monotonic() - begin > streaming + SOURCE_SECONDS:
            raise BenchError(
                f"the bench's camera took longer than {streaming + SOURCE_SECONDS:.0f} s"
            )
