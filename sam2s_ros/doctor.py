"""`sam2s doctor`: what this machine can do, and what to do about what it cannot."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HELP = "say what this machine can do: Python, torch, ROS 2, DDS, codecs, weights"

PYTHONS = ((3, 10), (3, 13))  # the versions that the tests cover
SHARED_MEMORY = 128 << 20  # bytes of /dev/shm: the segments of two publishing processes
SET_UP = "run `make setup` in the checkout, then `source env.sh`"


class Status(str, Enum):
    """How well a part of the system works."""

    OK = "ok"
    DEGRADED = "degraded"  # works, but slower or with less than it could
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    status: Status
    detail: str
    remedy: str = ""  # one sentence; empty if all is well
    required: bool = False  # without this no tracker node runs


Check = Callable[[], Iterator[Finding]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `sam2s doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 if something required is missing, else 0."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    broken = [f.name for f in findings if f.required and f.status is Status.MISSING]
    if args.json:
        print(json.dumps({"healthy": not broken, "findings": [asdict(f) for f in findings]}))
    elif broken:
        print(f"\nnot ready: {', '.join(broken)} missing")
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """Make every check, in the order in which one builds on the other."""
    yield from check_python()
    for name, required, check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # a broken installation can raise anything at import
            detail = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Finding(name, Status.MISSING, detail, SET_UP, required)


def _line(finding: Finding) -> str:
    remedy = f"\n{'':10}{'':18}-> {finding.remedy}" if finding.remedy else ""
    return f"{finding.status.value:10}{finding.name:18}{finding.detail}{remedy}"


def check_python() -> Iterator[Finding]:
    """The interpreter's version, and which one it is."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield Finding("Python", Status.OK, detail, required=True)
    else:
        low, high = (".".join(map(str, bound)) for bound in PYTHONS)
        remedy = f"use CPython {low} to {high}: `make distclean`, `make setup PYTHON=python3.11`"
        yield Finding("Python", Status.DEGRADED, detail, remedy, required=True)


def check_torch() -> Iterator[Finding]:
    """PyTorch, and whether it has a GPU to run on."""
    import torch

    detail = f"{torch.__version__}, {torch.get_num_threads()} threads"
    yield Finding("torch", Status.OK, detail, required=True)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("CUDA", Status.OK, f"{torch.version.cuda}: {', '.join(names)}")
    elif torch.version.cuda:
        remedy = "check the driver with `nvidia-smi`; in a container, pass the GPU in"
        detail = f"torch is built for CUDA {torch.version.cuda} but finds no device"
        yield Finding("CUDA", Status.DEGRADED, detail, remedy)
    else:
        remedy = "for a GPU, `pip install` the CUDA build of torch; the nano preset runs on a CPU"
        yield Finding("CUDA", Status.MISSING, "this torch is built for the CPU", remedy)


def check_onnxruntime() -> Iterator[Finding]:
    """ONNX Runtime's providers; needed only for exported models."""
    try:
        import onnxruntime
    except ImportError:
        remedy = "for runtime=onnx, `pip install onnxruntime` (with a GPU: onnxruntime-gpu)"
        yield Finding("ONNX Runtime", Status.MISSING, "not installed", remedy)
        return
    available = onnxruntime.get_available_providers()
    providers = [name.removesuffix("ExecutionProvider") for name in available]
    yield Finding("ONNX Runtime", Status.OK, f"{onnxruntime.__version__}: {', '.join(providers)}")


def check_ros() -> Iterator[Finding]:
    """Which ROS 2 this is, and which middleware it uses."""
    import rclpy
    from rclpy.utilities import get_rmw_implementation_identifier

    try:
        detail = f"wheels, rclpy {version('ros-rclpy')}"
    except PackageNotFoundError:
        detail = f"distribution {os.environ.get('ROS_DISTRO', 'unknown')} at {rclpy.__file__}"
    yield Finding("ROS 2", Status.OK, detail, required=True)
    rmw = get_rmw_implementation_identifier()
    if rmw.startswith("rmw_fastrtps"):
        yield Finding("RMW", Status.OK, rmw)
    else:
        remedy = "the shipped DDS profile is for rmw_fastrtps_cpp: unset RMW_IMPLEMENTATION, or "
        remedy += "give this middleware shared memory for images of 6 MB yourself"
        yield Finding("RMW", Status.DEGRADED, rmw, remedy)


def check_interfaces() -> Iterator[Finding]:
    """The messages and services that colcon built."""
    modules = [importlib.import_module(f"sam2s_msgs.{kind}") for kind in ("msg", "srv")]
    # Importing finds the Python side only; making the type support loads the compiled one.
    modules[0].TrackedObjects.__import_type_support__()
    folder = Path(modules[0].__file__ or "").parent.parent
    yield Finding("sam2s_msgs", Status.OK, str(folder), required=True)


def check_profile() -> Iterator[Finding]:
    """The DDS profile, without which large images are lost."""
    from sam2s_ros.dds import profile_in_use, profile_path

    used = profile_in_use()
    if used is None:
        remedy = "`source env.sh`, or set FASTDDS_DEFAULT_PROFILES_FILE to "
        yield Finding("DDS profile", Status.MISSING, "not set", f"{remedy}{profile_path()}")
    elif not used.is_file():
        remedy = "Fast DDS ignores it silently; `source env.sh` in a new shell"
        yield Finding("DDS profile", Status.MISSING, f"{used} does not exist", remedy)
    elif used.read_bytes() != profile_path().read_bytes():
        remedy = f"make sure that it has what {profile_path()} has; the next lines tell"
        yield Finding("DDS profile", Status.DEGRADED, f"{used}, not the shipped one", remedy)
    else:
        yield Finding("DDS profile", Status.OK, str(used))


def check_shared_memory() -> Iterator[Finding]:
    """Room for the segments that carry images."""
    free = shutil.disk_usage("/dev/shm").free
    detail = f"{free >> 20} MB free in /dev/shm"
    if free >= SHARED_MEMORY:
        yield Finding("shared memory", Status.OK, detail)
    else:
        remedy = "remove what is left of dead processes (`fastdds shm clean`); start a container "
        remedy += "with --shm-size=512m or --ipc=host"
        yield Finding("shared memory", Status.DEGRADED, detail, remedy)


def check_transport() -> Iterator[Finding]:
    """Full-HD images really sent from one process to another, as this environment is now."""
    from sam2s_ros.transport_probe import ProbeSettings, probe

    result = probe(ProbeSettings(count=30, match_seconds=10), add_profile=False)
    detail = f"{result.received} of {result.sent} full-HD images crossed processes"
    if result.received:
        detail += f", median {result.median_ms:.0f} ms"
    if result.received >= result.sent - 1:
        yield Finding("image transport", Status.OK, detail, required=True)
        return
    status = Status.DEGRADED if result.received else Status.MISSING
    remedy = "set the DDS profile (`source env.sh`); with it set, free a processor or /dev/shm"
    yield Finding("image transport", status, detail, remedy, required=True)


def check_codecs() -> Iterator[Finding]:
    """Compressed images and video files, really encoded and decoded."""
    import cv2
    import numpy as np

    picture = np.zeros((32, 32, 3), np.uint8)
    done = [kind for kind in (".jpg", ".png") if cv2.imencode(kind, picture)[0]]
    status = Status.OK if len(done) == 2 else Status.DEGRADED
    remedy = "" if status is Status.OK else "`pip install --force-reinstall opencv-python-headless`"
    yield Finding("image codecs", status, f"OpenCV {cv2.__version__}: {' '.join(done)}", remedy)

    import av
    from av.codec import codecs_available

    wanted = {"h264", "hevc", "mpeg4", "vp9"}
    missing = sorted(wanted - set(codecs_available))
    detail = f"PyAV {av.__version__}: {' '.join(sorted(wanted - set(missing)))}"
    remedy = f"these cannot be read: {' '.join(missing)}; `pip install --force-reinstall av`"
    if missing:
        yield Finding("video codecs", Status.DEGRADED, detail, remedy)
    else:
        yield Finding("video codecs", Status.OK, detail)


def check_weights() -> Iterator[Finding]:
    """Which weights are on this machine; one set is enough."""
    from sam2s_model.weights import WeightState, list_weights

    all_weights = list_weights()
    there = [w.name for w in all_weights if w.state is WeightState.AVAILABLE]
    if there:
        yield Finding("weights", Status.OK, ", ".join(there), required=True)
    else:
        remedy = "see `sam2s weights list`; `sam2s weights fetch NAME` gets one"
        yield Finding("weights", Status.MISSING, "none on this machine", remedy, required=True)
    for weights in all_weights:
        if weights.name not in there:
            detail = f"{weights.preset}: {weights.state.value}"
            yield Finding(f"  {weights.name}", Status.MISSING, detail, weights.note)


def check_open_clip() -> Iterator[Finding]:
    """The text encoder that embeds new names for the bank; the shipped bank does without."""
    try:
        yield Finding("open_clip", Status.OK, version("open_clip_torch"))
    except PackageNotFoundError:
        remedy = "only to embed new class names: `pip install open_clip_torch`"
        yield Finding("open_clip", Status.MISSING, "not installed", remedy)


# Name and whether it is required, for when a check cannot even begin.
CHECKS: list[tuple[str, bool, Check]] = [
    ("torch", True, check_torch),
    ("ONNX Runtime", False, check_onnxruntime),
    ("ROS 2", True, check_ros),
    ("sam2s_msgs", True, check_interfaces),
    ("DDS profile", False, check_profile),
    ("shared memory", False, check_shared_memory),
    ("image transport", True, check_transport),
    ("codecs", True, check_codecs),
    ("weights", True, check_weights),
    ("open_clip", False, check_open_clip),
]
