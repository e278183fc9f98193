"""Every parameter of the tracker node: declared, described, bounded, and checked as one set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sam2s_model.config import MEMORY_POLICIES, MemorySettings, TrackSettings
from sam2s_model.errors import Sam2sError
from sam2s_model.tracker_parameters import USUAL, memory_settings, track_settings
from sam2s_ros.session_settings import SessionSettings
from sam2s_ros.settings import ParameterError, Setting, declare_all, expected

__all__ = [
    "SETTINGS",
    "NodeSettings",
    "ParameterError",
    "Setting",
    "change",
    "declare",
    "expected",
]

_SESSION, _TRACK, _MEMORY = SessionSettings(), TrackSettings(), MemorySettings()


# config/tracker.yaml shows the same list with the same defaults.
SETTINGS = (
    # --- model
    Setting(
        "model", "nano",
        "weights: a name from `sam2s weights list`, a file's path, or with runtime onnx a folder",
    ),
    Setting("image_size", 0, "side of the network's input in pixels; 0: the weights' own", 0, 2048),
    Setting("text_bank", "", "file of class names; empty: the one that belongs to the weights"),
    Setting("runtime", "torch", "who executes the network", choices=("torch", "onnx")),
    Setting("device", "cpu", "runtime torch: where it runs, for example cpu, cuda or cuda:1"),
    Setting("precision", "fp32", "runtime torch: of the network", choices=("fp32", "bf16")),
    Setting(
        "provider", "cpu", "runtime onnx: where it runs", choices=("cpu", "cuda", "tensorrt")
    ),
    Setting(
        "allow_fallback", False,
        "runtime onnx: run on the CPU, with a warning, where the provider is missing",
    ),
    Setting("threads", 0, "processor cores for the network; 0: chosen by the machine", 0, 256),
    Setting(
        "overlap", True,
        "runtime onnx on a CPU: encode the next image while one is tracked; they share the cores",
    ),
    # --- memory
    Setting("memory", _MEMORY.policy, "what is remembered of a target", choices=MEMORY_POLICIES),
    Setting(
        "memory_iou", _MEMORY.iou_threshold,
        "divemem: predicted IoU above which a frame may be remembered for long", 0.0, 1.0,
    ),
    Setting(
        "memory_buffer", _MEMORY.buffer_size,
        "divemem: such frames of which one is remembered", 1, 1000,
    ),
    Setting(
        "memory_long", _MEMORY.max_long, "divemem: frames remembered for long, per target", 1, 64
    ),
    Setting(
        "memory_drop", _MEMORY.efp_drop,
        "efp: recent frames left out because they resemble the newest one", 0, 5,
    ),
    # --- targets
    Setting("max_targets", 16, "targets tracked at once", 1, 255, live=True),
    Setting(
        "exclusive", bool(USUAL["exclusive"]),
        "a pixel belongs to one target at most, the most certain one; else masks may overlap",
        live=True,
    ),
    Setting(
        "presence_low", USUAL["presence_low"],
        "presence below which a tracked target counts as out of sight", 0.0, 1.0, live=True,
    ),
    Setting(
        "presence_high", USUAL["presence_high"],
        "presence from which a target out of sight is tracked again", 0.0, 1.0, live=True,
    ),
    Setting(
        "iou_low", _TRACK.iou_low,
        "predicted IoU below which a mask is not trusted", 0.0, 1.0, live=True,
    ),
    Setting(
        "iou_high", _TRACK.iou_high,
        "predicted IoU from which it is trusted again", 0.0, 1.0, live=True,
    ),
    Setting(
        "lost_after", _TRACK.lost_after,
        "frames out of sight after which a target is lost", 1, 100000, live=True,
    ),
    Setting(
        "class_momentum", _TRACK.label_momentum,
        "share of the past in a target's class scores", 0.0, 0.999, live=True,
    ),
    Setting(
        "class_threshold", _TRACK.label_threshold,
        "probability under which a class is unknown", 0.0, 1.0, live=True,
    ),
    # --- images
    Setting("transport", "raw", "of the images", choices=("raw", "compressed")),
    Setting(
        "reliability", "best_effort",
        "asked of the camera; best_effort hears both kinds of publishers",
        choices=("best_effort", "reliable"),
    ),
    Setting(
        "max_rate", 0.0, "images tracked per second at most; 0: all that the model can",
        0.0, 1000.0, live=True,
    ),
    Setting(
        "stale_after", 0.5, "seconds without an image after which the stream is stale",
        0.01, 3600.0, live=True,
    ),
    Setting(
        "jump_back", _SESSION.jump_back,
        "seconds by which a stamp may lie back and count as late, not as a clock that jumped",
        0.0, 3600.0, live=True,
    ),
    # --- prompts
    Setting(
        "history_seconds", _SESSION.history_seconds,
        "age that the image of a stamped prompt may have; 0: no history", 0.0, 60.0, live=True,
    ),
    Setting(
        "history_frames", _SESSION.history_frames, "the same in frames", 1, 10000, live=True
    ),
    Setting(
        "catch_up_steps", _SESSION.catch_up_steps,
        "frames of the past tracked with each image for a stamped prompt; 0: all at once",
        0, 10000, live=True,
    ),
    Setting("max_prompts", 64, "prompts that may wait for an image", 1, 10000, live=True),
    Setting(
        "prompt_timeout", 5.0, "seconds after which a waiting prompt is refused",
        0.1, 3600.0, live=True,
    ),
    # --- state
    Setting("autosave_path", "", "file that all targets are kept in, to go on after a crash"),
    Setting("autosave_period", 1.0, "seconds between two savings", 0.05, 3600.0, live=True),
    Setting(
        "autosave_max_age", 300.0,
        "seconds after which a saved state is not gone on from; 0: any age", 0.0, 1e9,
    ),
    # --- outputs
    Setting("overlay_quality", 85, "of the compressed overlay's jpeg", 1, 100, live=True),
    Setting("diagnostics_period", 1.0, "seconds between diagnostics", 0.1, 60.0),
)  # fmt: skip


# What one runtime alone heeds, and what to do about it with the other.
ONLY_TORCH = {
    "image_size": "choose it with `sam2s export --image-size`",
    "device": "choose a provider",
    "precision": "choose it with `sam2s export --precision`",
}
ONLY_ONNX = {
    "provider": "choose a device, or runtime onnx",
    "allow_fallback": "leave it, or choose runtime onnx",
}


@dataclass(frozen=True)
class NodeSettings:
    """The values of all parameters; a set that contradicts itself cannot be made."""

    model: str
    image_size: int
    text_bank: str
    runtime: str
    device: str
    precision: str
    provider: str
    allow_fallback: bool
    threads: int
    overlap: bool
    memory: str
    memory_iou: float
    memory_buffer: int
    memory_long: int
    memory_drop: int
    max_targets: int
    exclusive: bool
    presence_low: float
    presence_high: float
    iou_low: float
    iou_high: float
    lost_after: int
    class_momentum: float
    class_threshold: float
    transport: str
    reliability: str
    max_rate: float
    stale_after: float
    jump_back: float
    history_seconds: float
    history_frames: int
    catch_up_steps: int
    max_prompts: int
    prompt_timeout: float
    autosave_path: str
    autosave_period: float
    autosave_max_age: float
    overlay_quality: int
    diagnostics_period: float

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            setting.check(getattr(self, setting.name))
        if not self.model:
            raise ParameterError("the parameter 'model' is empty; name weights, for example 'nano'")
        self._check_runtime()
        # Made here so that they refuse what does not go together.
        self.session_settings()
        self.track_settings()
        self.memory_settings()

    def _check_runtime(self) -> None:
        """Refuse what the other runtime would take, for this one would not heed it."""
        others = ONLY_TORCH if self.runtime == "onnx" else ONLY_ONNX
        defaults = {setting.name: setting.default for setting in SETTINGS}
        for name, instead in others.items():
            value = getattr(self, name)
            if value != defaults[name]:
                raise ParameterError(
                    f"the parameter '{name}' is '{value}', but the runtime is '{self.runtime}': "
                    f"{instead}"
                )

    def session_settings(self) -> SessionSettings:
        """What the session wants to know."""
        return SessionSettings(
            history_seconds=self.history_seconds,
            history_frames=self.history_frames,
            catch_up_steps=self.catch_up_steps,
            jump_back=self.jump_back,
        )

    def track_settings(self) -> TrackSettings:
        """Thresholds of track states and classes."""
        return track_settings(vars(self))

    def memory_settings(self) -> MemorySettings:
        """What is remembered of each target."""
        return memory_settings(self.memory, vars(self))

    def changed(self, changes: Mapping[str, Any]) -> NodeSettings:
        """Give a copy with other values; refuses a set that contradicts itself."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return NodeSettings(**{**values, **changes})


def declare(node: Node) -> NodeSettings:
    """Declare every parameter and give the values, or say which one cannot be."""
    return NodeSettings(**declare_all(node, SETTINGS))


def change(
    settings: NodeSettings, parameters: Iterable[Parameter[Any]]
) -> tuple[NodeSettings, SetParametersResult]:
    """Try a change of live parameters; the answer says why it cannot be."""
    names = {setting.name for setting in SETTINGS}
    changes = {p.name: p.value for p in parameters if p.name in names}
    try:
        return settings.changed(changes), SetParametersResult(successful=True)
    except Sam2sError as error:
        return settings, SetParametersResult(successful=False, reason=str(error))
