"""Whether exported graphs compute what the model computes: per stage, and over a tracked clip."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sam2s_model.config import MEMORY_POLICIES, MemorySettings
from sam2s_model.export.errors import ParityError
from sam2s_model.export.manifest import STAGES
from sam2s_model.model import Sam2s
from sam2s_model.prompt import Prompt
from sam2s_model.result import FrameResult
from sam2s_model.runtime.base import Runtime
from sam2s_model.table import markdown_table
from sam2s_model.tracker import StreamTracker

FILE = "parity.json"
Frame = NDArray[np.uint8]
Prompts = Mapping[int, Mapping[str, Prompt]]  # by frame number and target


@dataclass(frozen=True)
class Bounds:
    """How far an export may be from the model."""

    logits: float | None  # largest difference of a mask logit; None: any
    iou: float | None  # overlap of a target's mask with the model's; None: any
    every: bool = True  # whether each mask is held to it, or their mean


# An int8 export is held to the overlap that its user sets, see quantisation.py.
# Half precision moves a border here and there by a pixel, which small masks show much of.
BOUNDS = {"fp32": Bounds(2e-3, 0.999), "fp16": Bounds(None, 0.99, every=False)}


@dataclass(frozen=True)
class Clip:
    """Frames, and what is marked on them."""

    frames: Sequence[Frame]
    prompts: Prompts


@dataclass
class StageParity:
    """One stage, given the same inputs."""

    stage: str
    calls: int = 0
    largest: float = 0.0  # difference of any value of any output
    scale: float = 0.0  # the largest value itself


@dataclass
class ClipParity:
    """One memory policy, each runtime going its own way over the clip."""

    memory: str
    frames: int
    logits: float = 0.0  # largest difference of a mask logit
    ious: list[float] = field(default_factory=list)  # of every target on every frame
    states: int = 0  # targets on frames whose state or label differs

    @property
    def least_iou(self) -> float:
        """The worst overlap."""
        return min(self.ious)

    @property
    def mean_iou(self) -> float:
        """The mean overlap."""
        return float(np.mean(self.ious))


@dataclass
class Parity:
    """A comparison and what it was held to."""

    bounds: Bounds
    stages: list[StageParity]
    clips: list[ClipParity]

    def failures(self) -> list[str]:
        """Say what lies beyond the bounds."""
        found = []
        for clip in self.clips:
            limit = self.bounds.logits
            if limit is not None and not clip.logits <= limit:
                found.append(f"{clip.memory}: logits differ by {clip.logits:.2g} (at most {limit})")
            overlap = clip.least_iou if self.bounds.every else clip.mean_iou
            if self.bounds.iou is not None and not overlap >= self.bounds.iou:
                which = "a mask overlaps" if self.bounds.every else "masks overlap on average"
                found.append(
                    f"{clip.memory}: {which} by {overlap:.4f} (at least {self.bounds.iou})"
                )
        return found

    def save(self, folder: Path) -> None:
        """Write parity.json."""
        content = {
            "bounds": asdict(self.bounds),
            "holds": not self.failures(),
            "stages": [asdict(stage) for stage in self.stages],
            "clips": [
                {
                    "memory": clip.memory,
                    "frames": clip.frames,
                    "logits": clip.logits,
                    "least_iou": clip.least_iou,
                    "mean_iou": clip.mean_iou,
                    "states": clip.states,
                }
                for clip in self.clips
            ],
        }
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")

    def table(self) -> str:
        """Lay the comparison out as two Markdown tables."""
        stages = [[s.stage, s.calls, f"{s.largest:.1e}", f"{s.scale:.1e}"] for s in self.stages]
        clips = [
            [
                clip.memory,
                clip.frames,
                f"{clip.logits:.1e}",
                f"{clip.least_iou:.4f}",
                f"{clip.mean_iou:.5f}",
                clip.states,
            ]
            for clip in self.clips
        ]
        return "\n\n".join(
            (
                markdown_table(["stage", "calls", "largest difference", "largest value"], stages),
                markdown_table(
                    ["end to end", "frames", "logits", "least IoU", "mean IoU", "other states"],
                    clips,
                ),
            )
        )


class ShadowRuntime:
    """Runs a tracker on one runtime and asks another the same at every stage."""

    def __init__(self, first: Runtime, second: Runtime) -> None:
        self._first, self._second = first, second
        self.stages = {name: StageParity(name) for name in STAGES}

    def __getattr__(self, name: str) -> Any:
        """Everything but the stages is the first runtime's."""
        value = getattr(self._first, name)
        if name not in STAGES:
            return value
        return self._compared(name, value, getattr(self._second, name))

    @property
    def semantics(self) -> bool:
        """Class vectors are compared wherever there are any, even if no bank names them."""
        return self._first.semantics

    @semantics.setter
    def semantics(self, wanted: bool) -> None:
        pass

    def _compared(
        self, stage: str, first: Callable[..., Any], second: Callable[..., Any]
    ) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            given, other = first(*args), second(*args)
            self._note(stage, _tensors(given), _tensors(other))
            return given

        return run

    def _note(self, stage: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        entry = self.stages[stage]
        entry.calls += 1
        for a, b in zip(ours, theirs, strict=True):
            if a.numel():
                entry.largest = _larger(entry.largest, a, b)
                entry.scale = max(entry.scale, float(a.abs().max()))


def compare(
    model: Sam2s,
    folder: Path,
    clip: Clip,
    bounds: Bounds,
    policies: Sequence[str] = MEMORY_POLICIES,
) -> Parity:
    """Track the clip with the model and with its export, and compare."""
    from sam2s_model.runtime.eager import EagerRuntime
    from sam2s_model.runtime.onnx import OnnxRuntime

    torch_runtime, onnx_runtime = EagerRuntime(model), OnnxRuntime(folder)
    shadow = ShadowRuntime(torch_runtime, onnx_runtime)
    watched = StreamTracker(model, "divemem", runtime=cast(Runtime, shadow))
    for _ in _results(watched, clip, "per stage"):
        pass
    clips = []
    for policy in policies:
        parity = ClipParity(policy, len(clip.frames))
        ours = StreamTracker(model, exact(policy), runtime=torch_runtime)
        theirs = StreamTracker(model, exact(policy), runtime=onnx_runtime)
        pairs = zip(_results(ours, clip, policy), _results(theirs, clip, None), strict=True)
        for a, b in pairs:
            _note_frame(parity, a, b)
        clips.append(parity)
    return Parity(bounds, list(shadow.stages.values()), clips)


def exact(policy: str) -> MemorySettings:
    """A policy's settings with memories in float32.

    `sam2` keeps bfloat16, which turns the last bit of a sum into a jump of one part in 256: two
    runtimes would then be compared by where their rounding happens to fall.
    """
    return dataclasses.replace(MemorySettings.for_policy(policy), storage="float32")


def verify(parity: Parity, folder: Path) -> None:
    """Write parity.json, and raise if the comparison does not hold."""
    parity.save(folder)
    failures = parity.failures()
    if failures:
        raise ParityError(f"the export does not do what the model does: {'; '.join(failures)}")


def synthetic_clip(length: int, width: int = 320, height: int = 256, seed: int = 7) -> Clip:
    """Simulated endoscopy, with three targets marked at different times and one corrected."""
    from sam2s_model.synth import SurgicalScene

    scene = SurgicalScene(seed=seed, width=width, height=height)
    shots = [scene.render(n) for n in tqdm(range(length), desc="rendering", leave=False)]
    later, last = length // 8, length // 4
    prompts: dict[int, dict[str, Prompt]] = {0: {}, later: {}, last: {}}
    first = _largest(shots[0].masks)
    prompts[0]["clicked"] = Prompt(points=[_inside(first)], labels=[1])
    rows, columns = np.nonzero(_largest(shots[later].masks, skip=1))
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    prompts[later]["boxed"] = Prompt(box=box)
    prompts[last]["masked"] = Prompt(mask=_largest(shots[last].masks))
    corrected = length // 2
    point = _inside(_largest(shots[corrected].masks))
    prompts[corrected] = {"clicked": Prompt(points=[point, [1, 1]], labels=[1, 0])}
    return Clip([shot.image for shot in shots], prompts)


def _largest(masks: NDArray[np.integer[Any]], skip: int = 0) -> NDArray[np.bool_]:
    """The mask of the largest object of an id map, or of the next one after `skip` larger ones."""
    ids, counts = np.unique(masks[masks > 0], return_counts=True)
    order = ids[np.argsort(-counts)]
    return np.asarray(masks == order[min(skip, len(order) - 1)])


def _inside(mask: NDArray[np.bool_]) -> list[int]:
    """A point x, y well inside a mask."""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return [int(x), int(y)]


def _results(tracker: StreamTracker, clip: Clip, label: str | None) -> Any:
    frames = tqdm(clip.frames, desc=label, leave=False) if label else clip.frames
    for number, frame in enumerate(frames):
        for name, prompt in clip.prompts.get(number, {}).items():
            tracker.add_target(name, prompt)
        yield tracker.step(frame)


def _note_frame(parity: ClipParity, ours: FrameResult, theirs: FrameResult) -> None:
    for name, target in ours.items():
        other = theirs[name]
        parity.logits = _larger(parity.logits, target.low_res_logits, other.low_res_logits)
        parity.ious.append(mask_iou(target.mask, other.mask))
        parity.states += (target.state, target.label) != (other.state, other.label)


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def _larger(so_far: float, a: Tensor, b: Tensor) -> float:
    """The largest difference so far; NaN counts as infinite, which max() would lose."""
    difference = float((a.cpu() - b.cpu()).abs().max())
    return float("inf") if math.isnan(difference) else max(so_far, difference)


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)
