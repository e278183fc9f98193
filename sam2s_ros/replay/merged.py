"""The report over many bags: one table, the pooled scores, and a link to every bag's own report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sam2s_model.evaluation.report import figure_text
from sam2s_model.evaluation.scores import FIGURES
from sam2s_model.metrics import MIN_ABSENCE, FrameRule
from sam2s_model.whole_file import write_whole
from sam2s_ros.replay.batch import Task, failures
from sam2s_ros.replay.page import Cell, bullets, card, facts, page, table, unbroken
from sam2s_ros.replay.report import all_settings, made_by, percent
from sam2s_ros.replay.results import REPORT, RESULTS, load_results, summarise_tracks, to_json
from sam2s_ros.replay.scoring import record_of, score_summary

FORMAT = "sam2s-replay-many/1"


def find_results(root: Path) -> dict[str, Path]:
    """List the finished replays below a folder by name."""
    found = {}
    for file in sorted(root.rglob(RESULTS)):
        folder = file.parent
        hidden = any(part.startswith(".") for part in folder.relative_to(root).parts)
        if folder != root and not hidden:
            found[folder.relative_to(root).as_posix()] = folder
    return found


def write_merged(
    root: Path, tasks: Sequence[Task], command: str = "", rule: FrameRule = "tracked",
    min_absence: int = MIN_ABSENCE,
) -> dict[str, Any]:  # fmt: skip
    """Write results.json and report.html over all bags that are finished; returns the content.

    `tasks` are all the bags there should be; those that other shards still work on are named.
    """
    folders = find_results(root)
    failed = failures(root)
    missing = [t.name for t in tasks if t.name not in folders and t.name not in failed]
    content = merge(folders, failed, missing, command, rule, min_absence)
    write_whole(root / RESULTS, to_json(content))
    write_whole(root / REPORT, _html(root, content))
    return content


def merge(
    folders: Mapping[str, Path], failed: Mapping[str, str], missing: Sequence[str], command: str,
    rule: FrameRule, min_absence: int,
) -> dict[str, Any]:  # fmt: skip
    """Add up finished replays."""
    bags, targets, records = [], [], []
    settings: dict[str, Any] = {}
    problems: list[str] = []
    for name, folder in folders.items():
        results = load_results(folder)
        shared = _shared(results["settings"])
        if settings and shared != settings:
            problems.append(f"{name} was replayed with other settings than the first bag")
        settings = settings or shared
        targets += results["targets"]
        for content in results["records"]:
            record = record_of(content)
            record.clip = name  # two folders may hold bags of one name
            records.append(record)
        problems += [f"{name}: {problem}" for problem in results["problems"]]
        bags.append(
            {
                "name": name,
                "report": f"{name}/{REPORT}",
                "frames": results["input"]["frames"],
                "seconds": results["input"]["seconds"],
                "summary": results["summary"],
                "suspects": len(results["suspects"]),
                "jf": (results["scores"] or {}).get("all", {}).get("jf"),
                "latency_ms": results["timing"]["latency_ms"],
                "frames_per_second": results["timing"]["frames_per_second"],
                "images_sha256": results["input"]["images_sha256"],
                "messages_sha256": results["output"]["messages_sha256"],
            }
        )
    return {
        "format": FORMAT,
        "command": command,
        "bags": bags,
        "failures": dict(failed),
        "missing": list(missing),
        "settings": settings,
        "summary": summarise_tracks(targets),
        "scores": score_summary(records, rule, min_absence) if records else None,
        "problems": problems,
    }


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the settings that all bags of a run have in common."""
    return {k: v for k, v in settings.items() if k not in ("prompts", "truth", "inputs")}


def _html(root: Path, content: Mapping[str, Any]) -> str:
    bags, summary = content["bags"], content["summary"]
    figures = [
        ("bags", str(len(bags))),
        ("frames", f"{sum(bag['frames'] for bag in bags):,}".replace(",", " ")),
        ("targets", str(summary["targets"])),
        ("of all frames tracked, %", percent(summary["coverage"])),
        ("switches suspected", str(sum(bag["suspects"] for bag in bags))),
    ]
    if content["scores"]:
        jf = percent(content["scores"]["all"]["jf"])
        figures.insert(3, ("J&F against the truth, %", jf))
    body = [
        f"<h1>{escape(root.resolve().name)}</h1>",
        '<p class="muted">Replay of several bags</p>',
        facts(figures),
        _failed(content),
        "<h2>Bags</h2>",
        card(_bags(bags, bool(content["scores"]))),
        _scores(content),
        _problems(content["problems"]),
        "<h2>Settings</h2>" if bags else "",
        card(table(["", ""], made_by(content)) + all_settings(content)) if bags else "",
    ]
    return page(f"{root.resolve().name} – replay", body)


def _failed(content: Mapping[str, Any]) -> str:
    parts = []
    if content["failures"]:
        lines = [f"{name}: {why}" for name, why in content["failures"].items()]
        parts.append(card(f"<h3>Bags that failed</h3>{bullets(lines)}", "bad"))
    if content["missing"]:
        head = "<h3>Bags not replayed yet</h3>"
        parts.append(card(head + bullets(content["missing"]), "warn"))
    return "".join(parts)


def _bags(bags: Sequence[Mapping[str, Any]], scored: bool) -> str:
    header = ["bag", "frames", "seconds", "targets", "tracked %", "lost %", "IoU est. mean"]
    header += ["switches", *(["J&F %"] if scored else []), "median ms", "frames / s"]
    rows = []
    for bag in bags:
        s = bag["summary"]
        link = Cell(f'<a href="{escape(bag["report"])}">{escape(bag["name"])}</a>')
        row = [link, bag["frames"], f"{bag['seconds']:.1f}", s["targets"], percent(s["coverage"])]
        row += [percent(s["lost"]), "n/a" if s["iou_mean"] is None else f"{s['iou_mean']:.2f}"]
        row += [bag["suspects"], *([percent(bag["jf"])] if scored else [])]
        median = bag["latency_ms"]["p50"]
        row += ["n/a" if median is None else f"{median:.1f}", f"{bag['frames_per_second']:.1f}"]
        rows.append(row)
    return table(header, rows, range(1, len(header))) if rows else "<p>None is finished.</p>"


def _scores(content: Mapping[str, Any]) -> str:
    scores = content["scores"]
    if not scores:
        return ""
    titles = [title for _, title, _ in FIGURES]
    groups = [*scores["bags"].items(), (Cell("<b>all</b>"), scores["all"])]
    rows = [
        [name if isinstance(name, Cell) else unbroken(name), group["targets"], group["frames"],
         *(figure_text(key, group[key]) for key, _, _ in FIGURES)]
        for name, group in groups
    ]  # fmt: skip
    header = ["bag", "targets", "frames", *titles]
    return "<h2>Against the truth</h2>" + card(table(header, rows, range(1, len(header))))


def _problems(found: Sequence[str]) -> str:
    if not found:
        return ""
    return f"<h2>Problems</h2>{card(bullets(found), 'warn')}"


def failed_names(content: Mapping[str, Any]) -> list[str]:
    """Sentences for the terminal: which bags failed, and why."""
    return [f"{name}: {json.dumps(why)[1:-1]}" for name, why in content["failures"].items()]
