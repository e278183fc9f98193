"""What a run's results depend on: tracker and protocol, and a key that changes with either."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from sam2s_model.evaluation.clip import Protocol as EvalProtocol
from sam2s_model.evaluation.protocol import Tracker
from sam2s_model.tracker_parameters import USUAL
from sam2s_model.versions import versions_of

LIBRARIES = ("torch", "numpy", "opencv-python-headless", "av", "onnxruntime")


class TrackerSpec(Protocol):
    """How to make the tracker under test; picklable, so that other processes can make it too."""

    def describe(self) -> dict[str, Any]:
        """Everything about the tracker that results depend on, as plain JSON values."""

    def build(self) -> Tracker:
        """Make the tracker."""


@dataclass(frozen=True)
class StreamTrackerSpec:
    """A `StreamTracker` by its settings."""

    weights: str = (
        "nano"  # preset name, checkpoint (.safetensors, .pt), or folder of exported graphs
    )
    memory: str = "divemem"
    runtime: str = "torch"
    device: str = "cpu"  # with onnx: the provider
    image_size: int | None = None  # of the network's input; None: the weights' own
    text_bank: str | None = None  # shipped name or file; None: the one that the weights name
    max_targets: int = 64  # more than any clip should hold; memory is taken per target in use
    # Changed settings of memory and track states, by the names of sam2s_model.tracker_parameters.
    # As in the node a pixel belongs to one target at most: annotations of targets do not overlap.
    parameters: Mapping[str, float] = field(default_factory=lambda: dict(USUAL))

    def describe(self) -> dict[str, Any]:
        """List the settings, with digests of the files that the names stand for."""
        from sam2s_model.textbank import find_bank
        from sam2s_model.weights import resolve

        weights = Path(self.weights)
        if not weights.is_dir():
            weights = resolve(self.weights)
        bank = None if self.text_bank is None else _files_digest(find_bank(self.text_bank))
        return {
            **asdict(self),
            "weights_sha256": _files_digest(weights),
            "text_bank_sha256": bank,
        }

    def build(self) -> Tracker:
        """Load the weights and make the tracker."""
        from sam2s_model import StreamTracker, load_model
        from sam2s_model.textbank import find_bank
        from sam2s_model.tracker_parameters import memory_settings, track_settings

        bank = None if self.text_bank is None else find_bank(self.text_bank)
        # Exported graphs come as a folder, and bring their own shapes.
        model = (
            load_model(self.weights, image_size=self.image_size)
            if self.runtime == "torch"
            else cast(Any, self.weights)
        )
        return StreamTracker(
            model,
            memory_settings(self.memory, self.parameters),
            track=track_settings(self.parameters),
            runtime=self.runtime,
            device="cpu" if self.runtime == "onnx" else self.device,
            provider=self.device if self.runtime == "onnx" else "cpu",
            text_bank=bank,
            max_targets=self.max_targets,
        )


@dataclass(frozen=True)
class Settings:
    """Tracker and protocol of a run."""

    tracker: TrackerSpec
    protocol: EvalProtocol = field(default_factory=EvalProtocol)

    def describe(self) -> dict[str, Any]:
        """Give all settings as plain JSON values."""
        return {"tracker": self.tracker.describe(), "protocol": asdict(self.protocol)}


def settings_key(description: dict[str, Any]) -> str:
    """Make a short key of settings: equal settings, equal key."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Name the versions that a result rests on; `source` is a digest of the library's own code."""
    return versions_of(LIBRARIES)


def host(jobs: int) -> dict[str, Any]:
    """Describe the machine; latencies mean little without it."""
    return {"machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count(), "jobs": jobs}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _files_digest(path: Path) -> str:
    """Digest a file, or all files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]
