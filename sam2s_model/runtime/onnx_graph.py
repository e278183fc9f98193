"""One exported graph in ONNX Runtime, fed with torch tensors where they lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2s_model.export.errors import ManifestError, NewerExportError
from sam2s_model.export.layout import POINTERS, POINTS, SEEN, SLOTS, TARGETS, Port, Ports
from sam2s_model.export.manifest import ENGINES
from sam2s_model.runtime.base import RuntimeUnavailableError
from sam2s_model.runtime.lanes import Lanes

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
OPTIMISATION = ("all", "extended", "basic", "none")
MOST_POINTS = 32  # point tokens of a prompt that TensorRT builds for; other providers take any

_TYPES = {torch.float32: np.float32, torch.long: np.int64, torch.bool: np.bool_}


@dataclass(frozen=True)
class OnnxOptions:
    """How ONNX Runtime works."""

    threads: int | None = None  # for one operator; None: as many as torch uses
    # Whether threads wait for the next operator by asking for it again and again: faster, but
    # they take a core from whatever else runs while they wait.
    spinning: bool = True
    arena: bool = True  # keep freed memory for the next frame
    memory_pattern: bool = True  # plan a graph's memory once per set of shapes
    optimisation: str = "all"  # of the graph when it is loaded: all, extended, basic or none
    # Whether memory attention always reads all slots of the bank, the empty ones hidden, so that
    # its shapes never change. None: with CUDA and TensorRT, which plan for shapes; a CPU computes
    # what it is given, so there the fullest target's slots are enough.
    fixed_slots: bool | None = None
    # Whether threads deal out the targets among them, where that comes out even, and each runs the
    # stages of its own alone; otherwise all of them share every operator. Only on a CPU.
    share_targets: bool = True
    # Whether a frame may be prepared while another one is tracked, each with half of the threads
    # for as long as both are at work. Takes the memory of further sessions. Only on a CPU.
    overlap: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise RuntimeUnavailableError(f"threads is {self.threads}; it must be at least 1")
        if self.optimisation not in OPTIMISATION:
            raise RuntimeUnavailableError(
                f"there is no optimisation '{self.optimisation}'; choose one of "
                f"{', '.join(OPTIMISATION)}"
            )

    @staticmethod
    def parse(text: str) -> OnnxOptions:
        """Read options as commands take them: `threads=2+spinning=off+optimisation=basic`."""
        kinds = {option.name: option.default for option in fields(OnnxOptions)}
        given: dict[str, Any] = {}
        for part in text.split("+"):
            name, _, value = part.partition("=")
            if name not in kinds:
                raise RuntimeUnavailableError(
                    f"ONNX Runtime has no option '{name}'; its options are {', '.join(kinds)}"
                )
            if name == "optimisation":
                given[name] = value
            elif name == "threads" and value.isdigit():
                given[name] = int(value)
            elif name != "threads" and value in ("on", "off"):
                given[name] = value == "on"
            else:
                wanted = "a number" if name == "threads" else "on or off"
                raise RuntimeUnavailableError(f"option {name} must be {wanted}, not '{value}'")
        return OnnxOptions(**given)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, or say what to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            "runtime 'onnx' needs the package onnxruntime: install the extra 'onnx' (CPU) or "
            "'onnx-gpu' (CUDA and TensorRT), for example `pip install sam2s_ros[onnx]`"
        ) from error
    return onnxruntime


class OnnxGraph:
    """A graph's session. Inputs and outputs are bound by address, so nothing is copied."""

    def __init__(
        self,
        path: Path,
        ports: Ports,
        provider: str,
        options: OnnxOptions,
        capacities: Mapping[str, int],
        fingerprint: str,
        lanes: Lanes,
    ) -> None:
        self.ports = ports
        self.threads = options.threads or torch.get_num_threads()
        ort = import_onnxruntime()
        self.session = _open(ort, path, ports, provider, options, capacities)
        self.providers: list[str] = self.session.get_providers()
        # TensorRT takes its tensors from CUDA memory too.
        self.device = torch.device("cpu" if provider == "cpu" else "cuda")
        self._check(path, fingerprint)
        self._lanes = lanes
        on_cpu = provider == "cpu" and self.threads > 1
        # While another lane is at work; rounded up, for the other one has pauses.
        self._half = (self.threads + 1) // 2 if on_cpu and options.overlap else self.threads
        # Targets are dealt out to this thread and those of the pool, each on its own.
        self._dealt = on_cpu and options.share_targets and _by_target(ports)
        self._sessions = {self.threads: self.session}  # by number of threads
        for count in {self._half, 1 if self._dealt else self._half} - {self.threads}:
            fewer = replace(options, threads=count)
            self._sessions[count] = _open(ort, path, ports, provider, fewer, capacities)
        if self._dealt:
            self._pool = ThreadPoolExecutor(self.threads - 1, f"sam2s {path.stem}")

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run on tensors in the order of the ports; outputs are new tensors."""
        sizes: dict[str, int] = {}
        given = []  # contiguous copies, which must live until the run has ended
        for port, tensor in zip(self.ports.inputs, inputs, strict=True):
            given.append(tensor.detach().to(port.dtype).contiguous())
            for name, size in zip(port.shape, tensor.shape, strict=True):
                if isinstance(name, str):
                    sizes[name] = size
        outputs = [
            torch.empty(port.sized(sizes), dtype=port.dtype, device=self.device)
            for port in self.ports.outputs
        ]
        if self.device.type == "cuda":
            # ONNX Runtime has a stream of its own and waits for it; torch's must have ended too.
            torch.cuda.current_stream(self.device).synchronize()
        threads = self._half if self._lanes.shared else self.threads
        targets = sizes.get(TARGETS, 0)
        if not self._dealt or threads == 1 or not targets or targets % threads:
            session = self._sessions[threads]
            session.run_with_iobinding(self._bound(session, given, outputs, slice(None)))
            return outputs
        alone = self._sessions[1]
        share = targets // threads
        first, *others = (
            self._bound(alone, given, outputs, slice(begin, begin + share))
            for begin in range(0, targets, share)
        )
        running = [self._pool.submit(alone.run_with_iobinding, other) for other in others]
        alone.run_with_iobinding(first)
        for run in running:
            run.result()
        return outputs

    def _bound(
        self, session: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], rows: slice
    ) -> Any:
        """Bind some of the targets' rows, and all of what belongs to no target."""
        binding = session.io_binding()
        for bind, ports, tensors in (
            (binding.bind_input, self.ports.inputs, inputs),
            (binding.bind_output, self.ports.outputs, outputs),
        ):
            for port, tensor in zip(ports, tensors, strict=True):
                bind(*self._place(port, tensor[rows] if port.shape[0] == TARGETS else tensor))
        return binding

    def _place(self, port: Port, tensor: Tensor) -> tuple[Any, ...]:
        """Where a tensor lies, as a binding wants to know it."""
        return (
            port.name,
            self.device.type,
            tensor.device.index or 0,
            _TYPES[port.dtype],
            list(tensor.shape),
            tensor.data_ptr(),
        )

    def _check(self, path: Path, fingerprint: str) -> None:
        """Refuse a graph that is not the one that the manifest describes."""
        for kind, own, found in (
            ("inputs", self.ports.inputs, self.session.get_inputs()),
            ("outputs", self.ports.outputs, self.session.get_outputs()),
        ):
            ours = [(port.name, list(port.shape)) for port in own]
            theirs = [(value.name, list(value.shape)) for value in found]
            if ours != theirs:
                raise ManifestError(
                    f"the manifest says that {path.name} has the {kind} {_listed(ours)}, but it "
                    f"has {_listed(theirs)}: export again with `sam2s export`"
                )
        marks = self.session.get_modelmeta().custom_metadata_map
        if marks.get("sam2s_fingerprint") != fingerprint:
            raise ManifestError(
                f"{path.name} was exported from other weights than the manifest names: export "
                "again with `sam2s export`"
            )


def _by_target(ports: Ports) -> bool:
    return any(port.shape[0] == TARGETS for port in ports.inputs)


def available_providers() -> list[str]:
    """The providers of PROVIDERS that the installed ONNX Runtime has."""
    offered = import_onnxruntime().get_available_providers()
    return [name for name, provider in PROVIDERS.items() if provider in offered]


def trt_profiles(inputs: Sequence[Port], most: Mapping[str, int]) -> dict[str, str]:
    """The ranges of shapes that TensorRT builds its engine for: from one of each to `most`."""
    dynamic = [port for port in inputs if any(isinstance(size, str) for size in port.shape)]
    usual = {**most, TARGETS: min(2, most[TARGETS]), POINTS: 2}

    def text(sizes: Mapping[str, int]) -> str:
        return ",".join(
            f"{port.name}:{'x'.join(str(size) for size in port.sized(sizes))}" for port in dynamic
        )

    if not dynamic:
        return {}
    # Memory attention always gets all of its slots, see OnnxOptions.fixed_slots.
    least = {**most, TARGETS: 1, POINTS: 2}
    return {
        "trt_profile_min_shapes": text(least),
        "trt_profile_opt_shapes": text(usual),
        "trt_profile_max_shapes": text(most),
    }


def most_sizes(slots: int, pointers: int, targets: int) -> dict[str, int]:
    """The largest size of each dimension that is chosen at run time."""
    return {
        TARGETS: targets,
        SLOTS: slots,
        POINTERS: pointers,
        SEEN: slots + pointers,
        POINTS: MOST_POINTS,
    }


def _open(
    ort: Any,
    path: Path,
    ports: Ports,
    provider: str,
    options: OnnxOptions,
    capacities: Mapping[str, int],
) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads or torch.get_num_threads()
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    settings.enable_mem_pattern = options.memory_pattern
    settings.graph_optimization_level = {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }[options.optimisation]
    settings.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.spinning else "0"
    )
    # A frame passes four sessions and torch in turn; whose run has ended must not hold a core.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.log_severity_level = 3  # errors; what is left on the CPU is no news
    chain: list[Any] = [PROVIDERS["cpu"]]
    if provider != "cpu":
        chain.insert(0, (PROVIDERS["cuda"], {"device_id": 0}))
    if provider == "tensorrt":
        cache = path.parent / ENGINES
        cache.mkdir(exist_ok=True)
        engine = {
            "device_id": 0,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": os.fspath(cache),
            **trt_profiles(ports.inputs, capacities),
        }
        chain.insert(0, (PROVIDERS["tensorrt"], engine))
    try:
        session = ort.InferenceSession(os.fspath(path), settings, providers=chain)
    except Exception as error:  # ONNX Runtime's own kinds share no base class but this one
        text = str(error).splitlines()[0]
        if "ir_version" in text.lower() or "opset" in text.lower() or "ir version" in text.lower():
            raise NewerExportError(
                f"ONNX Runtime {ort.__version__} cannot run {path.name}, which was written for a "
                f"newer one ({text}): update onnxruntime, or export again with a lower --opset"
            ) from error
        raise ManifestError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name} ({text}): export again with "
            "`sam2s export`"
        ) from error
    # Where its libraries are missing, ONNX Runtime leaves a provider out and says so in its log.
    if PROVIDERS[provider] not in session.get_providers():
        raise RuntimeUnavailableError(
            f"provider '{provider}' was asked for and onnxruntime lists it, but it could not "
            "start: check that its CUDA, cuDNN or TensorRT libraries are installed in the "
            "versions that this onnxruntime needs"
        )
    return session


def _listed(ports: list[tuple[str, list[Any]]]) -> str:
    return ", ".join(f"{name}{shape}" for name, shape in ports)
