"""Write a run down: results.json, results.md, plots of every target, a video of the worst clips."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from tqdm import tqdm

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.plots import plot_clip
from sam2s_model.evaluation.record import ClipRecord
from sam2s_model.evaluation.runner import RunFolder
from sam2s_model.evaluation.scores import (
    FIGURES,
    Scores,
    by,
    known,
    pooled_figure,
    score_records,
    summarise_all,
)
from sam2s_model.evaluation.sources import Clip, SourceError
from sam2s_model.evaluation.worst import overlay_clip
from sam2s_model.metrics import MIN_ABSENCE, FrameRule
from sam2s_model.table import markdown_table
from sam2s_model.whole_file import write_whole

FORMAT = "sam2s-eval/1"
SHARES = {"recovery_frames": False}  # figures that are not percentages


@dataclass(frozen=True)
class ReportOptions:
    """What a report counts and draws."""

    rule: FrameRule = "tracked"
    min_absence: int = MIN_ABSENCE
    plots: bool = True
    worst: int = 3  # clips in the video of the worst; 0: no video
    show_progress: bool = True


def write_report(
    folder: RunFolder,
    run: Mapping[str, Any],
    clips: Sequence[Clip],
    options: ReportOptions,
) -> dict[str, Any]:
    """Score a run folder's records of these clips and write the report; returns its content.

    `run` is what run.json says: settings, command, sources and machine.
    """
    records, missing = [], []
    for clip in clips:
        path = folder.record(clip)
        if path.exists():
            records.append(ClipRecord.load(path))
        else:
            missing.append(f"{clip.dataset}/{clip.name}")
    good = [record for record in records if record.failure is None]
    scores = score_records(good, options.rule, options.min_absence)
    sources = {record.versions.get("source", "") for record in good}
    mixed = ["the clips were evaluated by different versions of the code"] * (len(sources) > 1)
    results = {
        "format": FORMAT,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **run,
        "frames_counted": options.rule,
        "min_absence": options.min_absence,
        "versions": _distinct(record.versions for record in records),
        "hosts": _distinct(record.host for record in records),
        "clips_evaluated": len(good),
        "clips_missing": missing,
        "failures": [
            {"clip": f"{r.dataset}/{r.clip}", "reason": r.failure} for r in records if r.failure
        ],
        "problems": [problem for r in records for problem in r.problems] + scores.unscored + mixed,
        "scores": summarise_all(scores),
        "targets": [_target_json(target) for target in scores.targets],
    }
    _write(folder, results, scores)
    if options.plots:
        _draw_plots(folder, good, options)
    if options.worst and (undrawn := _draw_worst(folder, good, clips, scores, options)):
        results["problems"] += undrawn
        _write(folder, results, scores)
    return results


def _write(folder: RunFolder, results: Mapping[str, Any], scores: Scores) -> None:
    write_whole(folder.root / "results.json", json.dumps(results, indent=1, allow_nan=False))
    write_whole(folder.root / "results.md", results_markdown(results, scores))


def results_markdown(results: Mapping[str, Any], scores: Scores) -> str:
    """Lay the results out as tables for reading."""
    summary = results["scores"]
    parts = ["# Evaluation", f"`{results.get('command', '')}`", _settings_line(results)]
    parts += ["## Scores", _counting_line(results), score_table(summary)]
    parts += ["## Latency", _latency_table(summary)]
    for name, group in summary["datasets"].items():
        rows = [
            [clip, video["targets"], *_figure_cells(video)]
            for clip, video in group["per_video"].items()
        ]
        titles = [title for _, title, _ in FIGURES]
        parts += [f"## {name}, by video", markdown_table(["video", "targets", *titles], rows)]
        if group["confusion"]["true"]:
            parts += [f"## {name}, classes", *_classes(group)]
    parts += ["## Targets", _target_table(scores)]
    left_out = [*(f"{f['clip']}: {f['reason']}" for f in results["failures"])]
    if left_out:
        parts += ["## Clips that failed", _bullets(left_out)]
    if results["clips_missing"]:
        parts += ["## Clips not evaluated yet", _bullets(results["clips_missing"])]
    if results["problems"]:
        parts += ["## Problems", _bullets(results["problems"])]
    return "\n\n".join(parts) + "\n"


def score_table(summary: Mapping[str, Any]) -> str:
    """Lay out every data set's figures and the macro average."""
    total = summary["datasets"].values()
    rows = [
        [name, group["videos"], group["targets"], *_figure_cells(group)]
        for name, group in summary["datasets"].items()
    ]
    macro = [sum(group[key] for group in total) for key in ("videos", "targets")]
    rows.append(["macro average", *macro, *_figure_cells(summary["macro"])])
    heading = ["data set", "videos", "targets", *(title for _, title, _ in FIGURES)]
    return markdown_table(heading, rows)


def _settings_line(results: Mapping[str, Any]) -> str:
    settings = results.get("settings", {})
    pairs = {**settings.get("tracker", {}), **settings.get("protocol", {})}
    text = ", ".join(f"{key} {value}" for key, value in pairs.items() if value is not None)
    return f"{text}; settings {results.get('key', 'unknown')}"


def _counting_line(results: Mapping[str, Any]) -> str:
    return (
        f"Frames counted: `{results['frames_counted']}`. J, F and shares in %; J, F, J&F are "
        "means over targets. Absence: the absent frames are the positives. Re-identified: "
        f"returns after at least {results['min_absence']} absent frames that were found again."
    )


def _figure_cells(group: Mapping[str, Any]) -> list[str]:
    return [figure_text(key, group[key]) for key, _, _ in FIGURES]


def figure_text(key: str, value: float | None) -> str:
    """Write a figure: shares in percent, frames as they are, n/a where nothing counts."""
    if value is None:
        return "n/a"
    return f"{100 * value:.1f}" if SHARES.get(key, True) else f"{value:.1f}"


def _latency_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, group in [*summary["datasets"].items(), ("all", summary["macro"])]:
        if times := group.get("latency_seconds"):
            milliseconds = (f"{1e3 * times[k]:.1f}" for k in ("mean", "p50", "p95", "p99"))
            rows.append([name, times["steps"], *milliseconds])
    return markdown_table(["data set", "steps", "mean ms", "p50 ms", "p95 ms", "p99 ms"], rows)


def _classes(group: Mapping[str, Any]) -> list[str]:
    table = group["confusion"]
    rows = [[name, *counts] for name, counts in zip(table["true"], table["frames"], strict=True)]
    return [
        f"Top-1 over frames {figure_text('top1', group['top1'])} %, over targets by majority "
        f"{figure_text('top1', group['target_top1'])} % (instruments only). Frames per true class "
        "(rows) and reported class (columns):",
        markdown_table(["true", *table["reported"]], rows),
    ]


def _target_table(scores: Scores) -> str:
    rows = [
        [
            f"{t.dataset}/{t.clip}",
            t.target,
            t.class_name or "",
            t.prompt_frame,
            t.frames,
            *(figure_text(key, known(t.ratio(key).value)) for key, _, _ in FIGURES),
        ]
        for t in sorted(scores.targets, key=lambda t: t.jf.mean)
    ]
    titles = [title for _, title, _ in FIGURES]
    return markdown_table(["clip", "target", "class", "prompted", "frames", *titles], rows)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _target_json(target: Any) -> dict[str, Any]:
    return {
        "dataset": target.dataset,
        "clip": target.clip,
        "target": target.target,
        "class": target.class_name,
        "prompt_frame": target.prompt_frame,
        "frames": target.frames,
        "figures": {key: list(target.ratio(key)) for key, _, _ in FIGURES},
        "returns": [
            {"frame": r.frame, "absent": r.absent_frames, "recovered_after": r.recovered_after}
            for r in target.returns
        ],
    }


def _distinct(mappings: Any) -> list[dict[str, Any]]:
    """Keep each mapping once: a run resumed elsewhere has several machines or versions."""
    seen: list[dict[str, Any]] = []
    for mapping in mappings:
        if mapping and dict(mapping) not in seen:
            seen.append(dict(mapping))
    return seen


def _draw_plots(folder: RunFolder, records: Sequence[ClipRecord], options: ReportOptions) -> None:
    plots = folder.root / "plots"
    shutil.rmtree(plots, ignore_errors=True)  # none may be left of other settings
    for record in tqdm(records, desc="plots", unit="clip", disable=not options.show_progress):
        path = plots / record.dataset / f"{record.clip}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_clip(path, record, options.min_absence)


def _draw_worst(
    folder: RunFolder,
    records: Sequence[ClipRecord],
    clips: Sequence[Clip],
    scores: Scores,
    options: ReportOptions,
) -> list[str]:
    """Draw the clips with the lowest J&F; returns what could not be drawn, and why."""
    record_of = {(record.dataset, record.clip): record for record in records}
    means = {
        (dataset, name): pooled_figure(group, "jf")
        for dataset, targets in by(scores.targets, "dataset").items()
        for name, group in by(targets, "clip").items()
    }
    ranked = sorted(clips, key=lambda clip: means.get((clip.dataset, clip.name), math.inf))
    worst = [clip for clip in ranked if (clip.dataset, clip.name) in means][: options.worst]
    undrawn = []
    shutil.rmtree(folder.root / "worst", ignore_errors=True)
    for clip in tqdm(worst, desc="worst clips", unit="clip", disable=not options.show_progress):
        masks = folder.masks(clip.dataset, clip.name)
        path = folder.root / "worst" / f"{clip.dataset}_{clip.name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not masks.is_dir():
                raise SourceError(
                    f"the predicted masks of {clip.dataset}/{clip.name} were not kept"
                )
            overlay_clip(path, clip.open(), record_of[clip.dataset, clip.name], masks)
        except Sam2sError as error:
            undrawn.append(f"no overlay video: {error}")
    return undrawn
