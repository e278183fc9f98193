"""From settings to a tracker that is loaded, warm, and as fast on its first frame as later."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import torch

from sam2s_model import Prompt, StreamTracker, load_model
from sam2s_model.errors import Sam2sError
from sam2s_model.runtime.onnx_graph import OnnxOptions
from sam2s_ros.parameters import NodeSettings

WARM_TARGETS = 2  # tracked together while warming up
WARM_FRAMES = 4  # each; the first prompts, the others remember


class EngineError(Sam2sError):
    """The network could not be loaded or run."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(asked: int) -> int:
    """Cores for the network: as asked, else all but one from four cores on.

    The images' way in and the results' way out need some of a core too; of two cores the network
    still takes both, for it works while the others wait.
    """
    return asked or (cores() - 1 if cores() >= 4 else cores())


def make_tracker(settings: NodeSettings) -> StreamTracker:
    """Load the network and make its tracker; says in one sentence why it cannot."""
    threads = thread_count(settings.threads)
    torch.set_num_threads(threads)
    cv2.setNumThreads(min(threads, cores() - 1) or 1)
    options: dict[str, Any] = {
        "memory": settings.memory_settings(),
        "track": settings.track_settings(),
        "max_targets": settings.max_targets,
        "text_bank": settings.text_bank or None,
    }
    try:
        if settings.runtime == "onnx":
            return StreamTracker(
                settings.model, runtime="onnx", provider=settings.provider,
                allow_fallback=settings.allow_fallback,
                onnx=OnnxOptions(threads=threads, overlap=settings.overlap), **options,
            )  # fmt: skip
        model = load_model(settings.model, image_size=settings.image_size or None)
        return StreamTracker(
            model, device=settings.device, precision=settings.precision, **options
        )  # fmt: skip
    except Sam2sError:
        raise
    except Exception as error:  # of drivers, of files that look right; the node must live
        raise EngineError(f"'{settings.model}' could not be loaded: {error}") from error


def place(tracker: StreamTracker) -> str:
    """Say where a tracker's network runs: a device of torch's, or a provider of ONNX Runtime's."""
    provider = getattr(tracker.runtime, "provider", None)
    return f"ONNX Runtime {provider}" if provider else str(tracker.runtime.device)


def works_ahead(settings: NodeSettings, tracker: StreamTracker) -> bool:
    """Whether the next image is prepared while one is tracked: where that has been seen to help."""
    on_cpu = getattr(tracker.runtime, "provider", None) == "cpu"
    return settings.overlap and on_cpu and thread_count(settings.threads) > 1


def warm_up(tracker: StreamTracker, ahead: bool = False) -> None:
    """Let everything happen once that happens once: kernels chosen, memory taken, graphs built.

    With `ahead`, also what is run while two images are worked on.
    """
    try:
        _run_once(tracker)
        if ahead:
            with tracker.runtime.lane():
                _run_once(tracker)
    except Exception as error:  # such as too little memory on the device
        raise EngineError(f"the network cannot run here: {error}") from error


def _run_once(tracker: StreamTracker) -> None:
    size = tracker.config.image_size
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    for count in range(1, min(WARM_TARGETS, tracker.max_targets) + 1):
        scratch = tracker.branch(0)
        for n in range(count):
            at = size * (n + 1) / (count + 1)
            scratch.add_target(f"warm-{n}", Prompt(points=[[at, at]], labels=[1]), (size, size))
        for _ in range(WARM_FRAMES):
            scratch.step(picture)
