"""Side-by-side timing of trackers: same frames, same weights, taking turns in one process.

Those that prepare frames ahead cannot take turns with others; they follow, on the same frames.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sam2s_model.config import MemorySettings, ModelConfig
from sam2s_model.errors import Sam2sError
from sam2s_model.model import Sam2s
from sam2s_model.prompt import Prompt
from sam2s_model.random_weights import lively_model
from sam2s_model.reference import ReferenceTracker
from sam2s_model.runtime.onnx_graph import OnnxOptions
from sam2s_model.table import markdown_table
from sam2s_model.tracker import StreamTracker

Masks = dict[str, NDArray[np.bool_]]
STAGES = ("encode_image", "attend_memory", "decode", "encode_memory")
REFERENCE = "sam2"  # the contender that is the reference package's predictor
# Contenders that are exported graphs, with the precision they are exported in.
ONNX = {"onnx": "fp32", "onnx-fp16": "fp16", "onnx-int8": "int8"}


class BenchmarkError(Sam2sError):
    """A benchmark that cannot be run as asked."""


class Setting(NamedTuple):
    """What all contenders of one comparison share."""

    preset: str
    image_size: int
    memory: str
    device: str
    weights: str | None  # a name or path; None for lively random weights
    threads: int
    width: int  # of the source frames, in pixels
    height: int
    exports: Mapping[str, str] = {}  # folders of exported graphs, by contender
    provider: str = "cpu"  # of ONNX Runtime
    allow_fallback: bool = False  # to the CPU, where the provider is not available


def onnx_contender(name: str) -> tuple[str, OnnxOptions | None]:
    """Take apart a name such as `onnx:spinning=off`: one of ONNX, and its options."""
    runtime, colon, options = name.partition(":")
    return runtime, OnnxOptions.parse(options) if colon else None


class Contender(Protocol):
    """A tracker in a benchmark."""

    def step(self, frame: NDArray[np.uint8]) -> tuple[Masks, Mapping[str, float]]:
        """Track one frame: masks at source size, and milliseconds by stage."""


class OurContender:
    """The StreamTracker with torch in one precision, or with exported graphs."""

    def __init__(self, setting: Setting, name: str, prompts: Mapping[str, Prompt]) -> None:
        memory = memory_settings(setting)
        runtime, options = onnx_contender(name)
        if runtime in setting.exports:
            self.tracker = StreamTracker(
                setting.exports[runtime],
                memory,
                runtime="onnx",
                provider=setting.provider,
                allow_fallback=setting.allow_fallback,
                onnx=options,
            )
        else:
            model = build_model(setting)
            self.tracker = StreamTracker(model, memory, device=setting.device, precision=name)
        for name, prompt in prompts.items():
            self.tracker.add_target(name, prompt)

    def step(self, frame: NDArray[np.uint8]) -> tuple[Masks, Mapping[str, float]]:
        """Track one frame."""
        result = self.tracker.step(frame)
        return {name: target.mask for name, target in result.items()}, result.timings

    def stream(
        self, frames: Iterable[NDArray[np.uint8]]
    ) -> Iterator[tuple[Masks, Mapping[str, float], float]]:
        """Track frames, each prepared by a second thread while the one before it is tracked.

        Yields what `step` returns, and the milliseconds since the frame was taken up.
        """
        following = iter(frames)
        with ThreadPoolExecutor(1) as other:
            coming = other.submit(self.tracker.prepare, next(following))
            while True:
                prepared = coming.result()
                frame = next(following, None)
                if frame is not None:
                    coming = other.submit(self.tracker.prepare, frame)
                result = self.tracker.step(prepared)
                masks = {name: target.mask for name, target in result.items()}
                yield masks, result.timings, (perf_counter() - prepared.began) * 1e3
                if frame is None:
                    return

    def memories(self) -> int:
        """Spatial memories that the fullest target's next frame attends to."""
        return max(self.tracker.memory_entries(name) for name in self.tracker.targets)


class ReferenceContender:
    """The reference package's video predictor, fed frame by frame."""

    def __init__(self, setting: Setting, prompts: Mapping[str, Prompt]) -> None:
        model = build_model(setting)
        weights = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if not name.startswith(("semantic.", "long_term_tpos_enc"))
        }
        self.tracker = ReferenceTracker(setting.preset, setting.image_size, weights, setting.device)
        for name, prompt in prompts.items():
            self.tracker.add_target(name, prompt)

    def step(self, frame: NDArray[np.uint8]) -> tuple[Masks, Mapping[str, float]]:
        """Track one frame."""
        result = self.tracker.step(frame)
        return {name: target.logits > 0 for name, target in result.items()}, self.tracker.stage_ms


@dataclass
class Timing:
    """What was measured of one contender at one number of targets."""

    contender: str
    targets: int
    frames_ms: list[float] = field(default_factory=list)  # from one frame's masks to the next one's
    latency_ms: list[float] = field(default_factory=list)  # from taking a frame up to its masks
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    overlap: list[float] = field(default_factory=list)  # mask IoU with the fp32 tracker's
    peak_mb: float = 0.0  # of a process that runs only this contender
    cpu_ms: list[float] = field(default_factory=list)  # of all threads, on each frame
    memories: int = 0  # spatial memories attended to when the measurement ended

    def note(
        self, elapsed: float, latency: float, worked: float, stages: Mapping[str, float]
    ) -> None:
        """Note the times of one frame."""
        self.frames_ms.append(elapsed)
        self.latency_ms.append(latency)
        self.cpu_ms.append(worked)
        for stage in STAGES:
            self.stages_ms.setdefault(stage, []).append(stages.get(stage, 0.0))

    @property
    def median_ms(self) -> float:
        """Half the frames took less."""
        return statistics.median(self.frames_ms)

    @property
    def p95_ms(self) -> float:
        """Nineteen of twenty frames took less."""
        return float(np.percentile(self.frames_ms, 95))

    def stage_ms(self, stage: str) -> float:
        """Median of one stage."""
        return statistics.median(self.stages_ms[stage]) if stage in self.stages_ms else 0.0


def build_model(setting: Setting) -> Sam2s:
    """Build the contenders' common model."""
    if setting.weights is not None:
        from sam2s_model.loading import load_model

        return load_model(setting.weights, image_size=setting.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the tensors that SAM 2.1 lacks, so that exports fit the next run
        return lively_model(ModelConfig.preset(setting.preset, image_size=setting.image_size))


def memory_settings(setting: Setting) -> MemorySettings:
    """The memory that trackers are timed with.

    Random weights rate their masks by chance, so there every frame is a long-term candidate.
    """
    settings = MemorySettings.for_policy(setting.memory)
    if setting.weights is None:
        settings = dataclasses.replace(settings, iou_threshold=0.0)
    return settings


def export_contender(setting: Setting, name: str, folder: Path, traced: Path | None = None) -> None:
    """Export the contenders' common model for one of ONNX, unless the folder has it already.

    An export made by other code or with other libraries is made anew: it may be another graph.
    `traced` is the fp32 export to convert, if there is one.
    """
    from sam2s_model.export.build import Check, build
    from sam2s_model.export.folder import ExportOptions, versions, weights_digest
    from sam2s_model.export.manifest import FILE, Manifest

    model = build_model(setting)
    if (folder / FILE).is_file():
        manifest = Manifest.load(folder)
        same = (manifest.source.get("sha256"), manifest.versions) == (
            weights_digest(model),
            versions(),
        )
        if same and manifest.config == model.config and manifest.precision == ONNX[name]:
            return
    options = ExportOptions(
        precision=ONNX[name], weights=setting.weights or "random", traced=traced
    )
    # What int8 costs in overlap stands in the bench's own table.
    build(model, folder, options, Check(frames=8, min_iou=0.0), say=lambda text: None)


def build_contender(name: str, setting: Setting, targets: int) -> Contender:
    """Build a contender by name, a precision or the reference's name, with its targets marked."""
    torch.set_num_threads(setting.threads)
    prompts = click_grid(targets, setting.width, setting.height)
    if name == REFERENCE:
        return ReferenceContender(setting, prompts)
    return OurContender(setting, name, prompts)


def click_grid(targets: int, width: int, height: int) -> dict[str, Prompt]:
    """Spread one click per target over the image."""
    prompts = {}
    for i in range(targets):
        x, y = width * (0.15 + 0.1 * i), height * (0.2 + 0.6 * (i * 0.37 % 1.0))
        prompts[f"target-{i + 1}"] = Prompt(points=[[x, y]], labels=[1])
    return prompts


def render_frames(setting: Setting, count: int) -> list[NDArray[np.uint8]]:
    """Render a clip of the simulated endoscope."""
    from sam2s_model.synth import SurgicalScene

    scene = SurgicalScene(seed=7, width=setting.width, height=setting.height)
    return [scene.render(n).image for n in tqdm(range(count), desc="rendering", leave=False)]


def compare(
    contenders: Sequence[str], setting: Setting, targets: int, frames: int, warmup: int
) -> list[Timing]:
    """Time the contenders in turn on each frame, after a warm-up that fills their memories."""
    running = {name: build_contender(name, setting, targets) for name in contenders}
    clip = render_frames(setting, warmup + frames)
    timings = {name: Timing(name, targets) for name in contenders}
    taking_turns = [name for name in contenders if not _ahead(name)]
    exact: list[Masks] = []  # the fp32 tracker's, for those that follow
    with torch.inference_mode():
        bar = tqdm(clip, desc=f"{targets} target(s)", leave=False, disable=not taking_turns)
        for number, frame in enumerate(bar):
            masks: dict[str, Masks] = {}
            # Another one goes first on each frame, so that none always finds the cache warm.
            turn = number % max(len(taking_turns), 1)
            for name in [*taking_turns[turn:], *taking_turns[:turn]]:
                begin, worked = perf_counter(), process_time()
                masks[name], stages = running[name].step(frame)
                elapsed = (perf_counter() - begin) * 1e3
                worked = (process_time() - worked) * 1e3
                if number < warmup:
                    continue
                timings[name].note(elapsed, elapsed, worked, stages)
            for name in taking_turns if number >= warmup else ():
                timings[name].overlap += _overlaps(masks[name], masks.get("fp32", masks[name]))
            exact += [masks["fp32"]] if "fp32" in masks else []
    for name in contenders:
        follower = running[name]
        if _ahead(name) and isinstance(follower, OurContender):
            _follow(follower, timings[name], clip, warmup, exact)
    for name, contender in running.items():
        if isinstance(contender, OurContender):
            timings[name].memories = contender.memories()
    return list(timings.values())


def _ahead(contender: str) -> bool:
    """Whether a contender prepares frames ahead."""
    options = onnx_contender(contender)[1]
    return options is not None and options.overlap


def _follow(
    contender: OurContender,
    timing: Timing,
    clip: Sequence[NDArray[np.uint8]],
    warmup: int,
    exact: Sequence[Masks],
) -> None:
    """Time a contender that prepares frames ahead."""
    bar = tqdm(clip, desc=f"{timing.targets} target(s), ahead", leave=False)
    done, worked = perf_counter(), process_time()
    for number, (masks, stages, latency) in enumerate(contender.stream(bar)):
        before, done = done, perf_counter()
        worked_before, worked = worked, process_time()
        if number >= warmup:
            timing.note((done - before) * 1e3, latency, (worked - worked_before) * 1e3, stages)
            timing.overlap += _overlaps(masks, exact[number] if exact else masks)


def peak_memory(contender: str, setting: Setting, targets: int, frames: int) -> float:
    """Measure the largest resident memory of a process that runs one contender, in MB."""
    # No multiprocessing.Pool: it ends its process by a signal, which one that has a handler may
    # not survive to answer, and then waits for it without end.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        running = pool.submit(_run_alone, contender, setting, targets, frames)
        try:
            return running.result()
        except BrokenProcessPool as error:
            raise BenchmarkError(
                f"the process that measures the memory of {contender} died, perhaps for lack of it"
            ) from error


def _run_alone(contender: str, setting: Setting, targets: int, frames: int) -> float:
    running = build_contender(contender, setting, targets)
    rng = np.random.default_rng(0)
    shape = (setting.height, setting.width, 3)
    with torch.inference_mode():
        for _ in range(frames):
            running.step(rng.integers(0, 256, shape, dtype=np.uint8))
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure survives from the process that this one came from
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _overlaps(ours: Masks, theirs: Masks) -> list[float]:
    values = []
    for name, mask in ours.items():
        union = np.count_nonzero(mask | theirs[name])
        both = np.count_nonzero(mask & theirs[name])
        values.append(both / union if union else 1.0)
    return values


def report(timings: Sequence[Timing], label: Callable[[str], str]) -> str:
    """Lay out the timings as a Markdown table; ratios are to the first contender's time."""
    header = ["targets", "tracker", *(f"{s} ms" for s in STAGES)]
    header += ["frame ms", "p95 ms", "FPS", "ratio", "peak MB", "IoU to fp32", "CPU ms", "memories"]
    header += ["latency ms"]
    rows = []
    first: dict[int, float] = {}
    for timing in timings:
        base = first.setdefault(timing.targets, timing.median_ms)
        rows.append(
            [
                timing.targets,
                label(timing.contender),
                *(f"{timing.stage_ms(stage):.1f}" for stage in STAGES),
                f"{timing.median_ms:.1f}",
                f"{timing.p95_ms:.1f}",
                f"{1e3 / timing.median_ms:.2f}",
                f"{base / timing.median_ms:.2f}",
                f"{timing.peak_mb:.0f}" if timing.peak_mb else "n/a",
                f"{statistics.mean(timing.overlap):.4f}",
                f"{statistics.median(timing.cpu_ms):.1f}" if timing.cpu_ms else "n/a",
                timing.memories or "n/a",
                f"{statistics.median(timing.latency_ms or timing.frames_ms):.1f}",
            ]
        )
    return markdown_table(header, rows)


def cost_per_target(timings: Sequence[Timing]) -> dict[str, float]:
    """Milliseconds that each target after the first adds, by contender."""
    costs = {}
    for name in dict.fromkeys(timing.contender for timing in timings):
        own = sorted((t for t in timings if t.contender == name), key=lambda t: t.targets)
        few, many = own[0], own[-1]
        if many.targets > few.targets:
            costs[name] = (many.median_ms - few.median_ms) / (many.targets - few.targets)
    return costs
