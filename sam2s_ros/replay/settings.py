"""What a replay's results depend on, apart from the bag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam2s_model.evaluation.settings import StreamTrackerSpec
from sam2s_model.metrics import MIN_ABSENCE, FrameRule
from sam2s_ros.bags.writer import Compression, Storage
from sam2s_ros.replay.suspects import SuspectSettings
from sam2s_ros.session import SessionSettings


@dataclass(frozen=True)
class Inputs:
    """Where a replay finds what it needs; None means: find out by what the bag holds."""

    topic: str | None = None  # images
    prompts: str | None = None  # a YAML file
    prompts_topic: str | None = None  # recorded prompts
    truth: str | None = None  # a topic of label maps or a folder of masks
    classes: str | None = None  # JSON, names of the truth's instances


@dataclass(frozen=True)
class Outputs:
    """What a replay writes."""

    namespace: str = "/tracker"  # of the topics in the new bag
    storage: Storage = "sqlite3"
    compression: Compression = "none"
    times: str = "stamp"  # of the new messages: the images' stamps, or when they were "recorded"
    overlay: str | None = None  # a video's path, {bag} stands for the bag's name
    worst: int = 6  # pictures of the worst moments


@dataclass(frozen=True)
class ReplaySettings:
    """Everything that a replay is told; picklable, for other processes."""

    tracker: StreamTrackerSpec = field(default_factory=StreamTrackerSpec)
    session: SessionSettings = field(default_factory=SessionSettings)
    inputs: Inputs = field(default_factory=Inputs)
    outputs: Outputs = field(default_factory=Outputs)
    suspects: SuspectSettings = field(default_factory=SuspectSettings)
    rule: FrameRule = "tracked"
    min_absence: int = MIN_ABSENCE

    def describe(self) -> dict[str, Any]:
        """Give all settings as plain JSON values, with digests of the files they name."""
        inputs = asdict(self.inputs)
        for name in ("prompts", "classes"):
            path = inputs[name]
            inputs[f"{name}_sha256"] = None if path is None else file_digest(Path(path))
        return {
            "tracker": self.tracker.describe(),
            "session": plain(asdict(self.session)),
            "inputs": inputs,
            "outputs": {k: v for k, v in asdict(self.outputs).items() if k != "overlay"},
            "suspects": asdict(self.suspects),
            "scores": {"frames": self.rule, "min_absence": self.min_absence},
        }


def file_digest(path: Path) -> str:
    """Digest a file, or the names and sizes of a folder's files."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.iterdir()):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    elif path.is_file():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def plain(values: Any) -> Any:
    """Turn tuples into lists, as JSON has it."""
    if isinstance(values, Mapping):
        return {key: plain(value) for key, value in values.items()}
    return [plain(v) for v in values] if isinstance(values, (tuple, list)) else values
