"""Scores of a training's averaged weights on annotated video, kept beside the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam2s_model.evaluation.clip import Protocol
from sam2s_model.evaluation.protocol import PromptKind
from sam2s_model.evaluation.report import ReportOptions
from sam2s_model.evaluation.runner import Shard
from sam2s_model.evaluation.session import Source, evaluate_sources
from sam2s_model.evaluation.settings import Settings, StreamTrackerSpec
from sam2s_model.weights import read_state_dict
from sam2s_training.checkpoint import Checkpoint, find_checkpoint
from sam2s_training.export import write_ema
from sam2s_training.scores import SCORES_NAME, note_scores


@dataclass(frozen=True)
class EvaluationSettings:
    """How weights are judged; as in `sam2s eval`."""

    suites: tuple[str, ...] = ("val-short",)  # suites, or folders in DAVIS layout
    memory: str = "divemem"
    prompt: PromptKind = "click1"
    shard: str = "1/1"  # i/n: only this share of the clips, for a quick look
    device: str = "cpu"
    jobs: int = 1


def evaluate_checkpoint(
    source: Path,
    settings: EvaluationSettings,
    out: Path | None = None,
    options: ReportOptions | None = None,
    keep_masks: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Track and score with a checkpoint's averaged weights; gives the content of results.json.

    Args:
        source: a checkpoint or a run folder, of which the newest is taken.
        settings: suites, memory and prompt.
        out: folder of the evaluation; by default below the run folder, one per checkpoint and
            way of tracking. An interrupted evaluation is taken up where it stopped.
        options: of the report.
        keep_masks: whether predicted masks stay on the disk.
        command: for the report.
    """
    path = find_checkpoint(source)
    run = path.parent.parent
    state = Checkpoint.load(path)
    weights = run / "weights" / f"step-{state.step:08d}.safetensors"
    # Written anew only if they differ: their hash is what an interrupted evaluation goes by.
    if not (weights.exists() and _same(read_state_dict(weights), state.ema)):
        write_ema(state, weights)
    return evaluate_weights(weights, state.step, run, settings, out, options, keep_masks, command)


def evaluate_weights(
    weights: Path,
    step: int,
    run: Path,
    settings: EvaluationSettings,
    out: Path | None = None,
    options: ReportOptions | None = None,
    keep_masks: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Track and score with exported weights of a run's step, and note the scores in the run."""
    if out is None:
        out = run / "eval" / f"step-{step:08d}-{settings.memory}-{settings.prompt}"
    results = evaluate_sources(
        out,
        [Source(name) for name in settings.suites],
        Settings(
            StreamTrackerSpec(weights=str(weights), memory=settings.memory, device=settings.device),
            Protocol(settings.prompt),
        ),
        options=options or ReportOptions(plots=False, worst=0),
        shard=Shard.parse(settings.shard),
        jobs=settings.jobs,
        keep_masks=keep_masks,
        command=command,
    )
    how = {"memory": settings.memory, "prompt": settings.prompt, "shard": settings.shard}
    note_scores(run / SCORES_NAME, step, how, results["scores"]["datasets"])
    return results


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
