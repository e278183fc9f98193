"""What the node says of itself on /diagnostics: its stream, its targets, its machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import psutil
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from sam2s_model.result import TrackState
from sam2s_ros.live import Live
from sam2s_ros.session import TargetStanding


def array(stamp: Time, statuses: Sequence[DiagnosticStatus]) -> DiagnosticArray:
    """Put statuses together."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message


def idle_status(node: str, trouble: str) -> DiagnosticStatus:
    """Tell of a node without a network; `trouble` is why, empty if nobody has asked for one."""
    level = DiagnosticStatus.ERROR if trouble else DiagnosticStatus.OK
    return _status(node, "stream", level, trouble or "not configured", {})


def stream_status(node: str, live: Live, trouble: str) -> DiagnosticStatus:
    """Tell of images and results; `trouble` is the last image's, empty if it had none."""
    times, counts = live.times.read(), live.counts
    level, message = DiagnosticStatus.OK, f"{times.rate:.1f} results a second"
    if not live.active:
        message = "not active"
    elif not live.last_arrival:
        level, message = DiagnosticStatus.WARN, "no usable image has come yet"
    elif live.stale:
        level, message = DiagnosticStatus.WARN, "the stream is stale: no usable image comes"
    if live.active and trouble:
        level, message = DiagnosticStatus.WARN, trouble
    values = {
        "rate [Hz]": f"{times.rate:.2f}",
        "inference p50 [ms]": f"{times.inference_p50:.1f}",
        "inference p99 [ms]": f"{times.inference_p99:.1f}",
        "image to result p50 [ms]": f"{times.total_p50:.1f}",
        "image to result p99 [ms]": f"{times.total_p99:.1f}",
        "image age at inference p99 [ms]": f"{times.wait_p99:.1f}",
        **{f"images {name}": str(count) for name, count in asdict(counts).items()},
    }
    return _status(node, "stream", level, message, values)


def targets_status(node: str, standings: Sequence[TargetStanding]) -> DiagnosticStatus:
    """Tell how each target stands."""
    lost = [s.name for s in standings if s.state is TrackState.LOST]
    level = DiagnosticStatus.WARN if lost else DiagnosticStatus.OK
    message = f"{len(standings)} targets" + (f", lost: {', '.join(lost)}" if lost else "")
    values = {
        f"{s.label_value} {s.name}": f"{s.state.value}, IoU {s.iou:.2f}, {s.class_name}"
        for s in standings
    }
    return _status(node, "targets", level, message, values)


def machine_status(node: str, model: str, device: str) -> DiagnosticStatus:
    """Tell what runs where, and the memory it takes."""
    values = {
        "model": model,
        "device": device,
        "torch threads": str(torch.get_num_threads()),
        "memory [MB]": f"{psutil.Process().memory_info().rss / 1e6:.0f}",
    }
    if device.startswith("cuda"):
        values["device memory [MB]"] = f"{torch.cuda.memory_allocated() / 1e6:.0f}"
    return _status(node, "machine", DiagnosticStatus.OK, f"{model} on {device}", values)


def _status(
    node: str, part: str, level: Any, message: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=f"{node.lstrip('/')}: {part}",
        message=message,
        hardware_id="",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
