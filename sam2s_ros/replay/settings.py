"""What a replay's results depend on, apart from the bag."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sam2s_model import StreamTracker
from sam2s_model.evaluation.settings import StreamTrackerSpec
from sam2s_model.metrics import MIN_ABSENCE, FrameRule
from sam2s_ros.bags.writer import Compression, Storage
from sam2s_ros.engine import make_tracker
from sam2s_ros.parameters import SETTINGS, NodeSettings
from sam2s_ros.replay.errors import ReplayError
from sam2s_ros.replay.suspects import SuspectSettings
from sam2s_ros.settings import Setting, expected

# Parameters that say how images and results travel, or when: they cannot change a replay.
OF_THE_STREAM = (
    "transport", "reliability", "max_rate", "stale_after", "max_prompts", "prompt_timeout",
    "autosave_path", "autosave_period", "autosave_max_age", "overlay_quality",
    "diagnostics_period",
)  # fmt: skip


def default_node() -> NodeSettings:
    """Give the defaults of the node's parameters."""
    return NodeSettings(**{setting.name: setting.default for setting in SETTINGS})


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
    # Label maps shrink to a hundredth, and `ros2 bag play` undoes it on the fly.
    compression: Compression = "message"
    times: str = "stamp"  # of the new messages: the images' stamps, or when they were "recorded"
    overlay: str | None = None  # a video's path, {bag} stands for the bag's name
    worst: int = 6  # pictures of the worst moments


@dataclass(frozen=True)
class ReplaySettings:
    """Everything that a replay is told; picklable, for other processes."""

    node: NodeSettings = field(default_factory=default_node)  # as the live node has them
    inputs: Inputs = field(default_factory=Inputs)
    outputs: Outputs = field(default_factory=Outputs)
    suspects: SuspectSettings = field(default_factory=SuspectSettings)
    rule: FrameRule = "tracked"
    min_absence: int = MIN_ABSENCE

    def build(self) -> StreamTracker:
        """Load the network and make its tracker, as the node does."""
        return make_tracker(self.node)

    def describe(self) -> dict[str, Any]:
        """Give all settings as plain JSON values, with digests of the files they name."""
        inputs = asdict(self.inputs)
        for name in ("prompts", "truth", "classes"):
            path = inputs[name]
            inputs[f"{name}_sha256"] = None if path is None else file_digest(Path(path))
        bank = self.node.text_bank or None
        files = StreamTrackerSpec(weights=self.node.model, text_bank=bank).describe()
        return {
            "tracker": {
                **{k: v for k, v in asdict(self.node).items() if k not in OF_THE_STREAM},
                "weights_sha256": files["weights_sha256"],
                "text_bank_sha256": files["text_bank_sha256"],
            },
            "inputs": inputs,
            "outputs": {k: v for k, v in asdict(self.outputs).items() if k != "overlay"},
            "suspects": asdict(self.suspects),
            "scores": {"frames": self.rule, "min_absence": self.min_absence},
        }


def node_settings(file: Path | None, changes: Mapping[str, Any]) -> NodeSettings:
    """Read the node's parameters from its YAML file, and change some; checked as by the node."""
    known = {setting.name: setting for setting in SETTINGS}
    values = {name: setting.default for name, setting in known.items()}
    given = dict(_parameters(file)) if file is not None else {}
    for name, value in [*given.items(), *changes.items()]:
        if name == "use_sim_time":
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ReplayError(f"the tracker node has no parameter '{name}'{hint}")
        values[name] = _checked(known[name], value)
    return NodeSettings(**values)


def _parameters(file: Path) -> Iterator[tuple[str, Any]]:
    """Read the parameters that a file gives to a tracker, whatever the node is called there."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        nodes = [part["ros__parameters"] for part in content.values()]
        pairs = [pair for parameters in nodes for pair in parameters.items()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as e:
        raise ReplayError(
            f"{file}: no parameters file of a node ({type(e).__name__}: {' '.join(str(e).split())})"
        ) from e
    yield from pairs


def _checked(setting: Setting, value: Any) -> Any:
    """Refuse what the node would refuse: another type, or a number out of range."""
    right = type(value) is type(setting.default)
    if right and setting.low is not None and setting.high is not None:
        right = setting.low <= value <= setting.high
    if not right:
        raise ReplayError(f"the parameter '{setting.name}' is {value!r}; {expected(setting)}")
    return value


def file_digest(path: Path) -> str:
    """Digest a file, or the names and sizes of a folder's files."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.iterdir()):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    elif path.is_file():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
