"""results.json: what a replay found, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam2s_model.evaluation.record import RecordError, read_json
from sam2s_model.metrics import latency
from sam2s_ros.replay.errors import ResultsError

FORMAT = "sam2s-replay/1"
RESULTS, REPORT, BAG, WORST = "results.json", "report.html", "bag", "worst"
BINS = 40  # of the latency histogram
BEYOND = 99.5  # percentile at which it ends; what took longer is in the last bin


def load_results(path: Path) -> dict[str, Any]:
    """Read a replay's results, given the file or its folder."""
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise ResultsError(f"{path}: neither a replay's folder nor its {RESULTS}")
    try:
        results = read_json(file)
    except RecordError as error:
        raise ResultsError(str(error)) from error
    if results.get("format") != FORMAT:
        raise ResultsError(f"{file}: not the results of a replay ({FORMAT})")
    return results


def to_json(results: Mapping[str, Any]) -> str:
    """Write results as text; each series on a line of its own would double the size."""
    return json.dumps(results, allow_nan=False, ensure_ascii=False) + "\n"


def summarise_tracks(targets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up all targets of one or many bags; frames count alike."""
    frames = sum(target["summary"]["frames"] for target in targets)

    def share(key: str) -> float | None:
        if not frames:
            return None
        total = sum(float(t["summary"][key]) * t["summary"]["frames"] for t in targets)
        return float(round(total / frames, 4))

    estimates = [
        (t["summary"]["iou_mean"], t["summary"]["coverage"] * t["summary"]["frames"])
        for t in targets
        if t["summary"]["iou_mean"] is not None
    ]
    weight = sum(w for _, w in estimates)
    return {
        "targets": len(targets),
        "target_frames": frames,
        "coverage": share("coverage"),
        "occluded": share("occluded"),
        "lost": share("lost"),
        "iou_mean": round(sum(v * w for v, w in estimates) / weight, 4) if weight else None,
    }


def timing(
    step_ms: Sequence[float], stages: Mapping[str, float], seconds: float, frames: int,
    machine: Mapping[str, Any], fps: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Sum up how long it took: the one part of the results that differs from run to run.

    `fps` is the images' own rate, which a live node would have to keep up with.
    """
    steps = np.array(step_ms, np.float64)
    figures = latency([float(v) for v in steps])._asdict()
    edges, counts = [0.0, 1.0], [0]
    if steps.size:
        high = float(np.percentile(steps, BEYOND)) * 1.05
        low = min(float(steps.min()) * 0.95, high - 1e-3)
        counted, bounds = np.histogram(np.clip(steps, low, high), BINS, (low, high))
        edges = [round(float(v), 3) for v in bounds]
        counts = [int(n) for n in counted]
    return {
        "latency_ms": {k: (v if v == v else None) for k, v in figures.items()},
        "histogram": {"edges": edges, "counts": counts},
        "stages_ms": {name: round(value, 3) for name, value in stages.items()},
        "late": round(float((steps > 1e3 / fps).mean()), 4) if fps and steps.size else None,
        "seconds": round(seconds, 3),
        "frames_per_second": round(frames / seconds, 3) if seconds else 0.0,
        "host": dict(machine),
    }
