"""The report of one replay as a single HTML file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from sam2s_model.evaluation.report import figure_text
from sam2s_model.evaluation.scores import FIGURES
from sam2s_model.overlay import colour_of
from sam2s_ros.bags.reader import seconds
from sam2s_ros.replay import charts
from sam2s_ros.replay.page import (
    Cell,
    bullets,
    card,
    chip,
    facts,
    legend,
    page,
    picture,
    table,
    unbroken,
)

EVENTS_SHOWN = 200  # more are in results.json


def report_html(results: Mapping[str, Any], folder: Path) -> str:
    """Write the report of a replay; pictures are read from the results' own folder."""
    source = results["input"]
    body = [
        f"<h1>{escape(results['name'])}</h1>",
        f'<p class="muted">Replay of <code>{escape(source["bag"])}</code>, topic '
        f"<code>{escape(source['topic'])}</code></p>",
        facts(_facts(results)),
        _problems(results),
        "<h2>Targets</h2>",
        card(_summary(results)),
        _scores(results),
        "<h2>Timelines</h2>",
        _timelines(results),
        "<h2>Worst moments</h2>",
        _worst(results, folder),
        _suspects(results),
        "<h2>Latency</h2>",
        card(_latency(results)),
        _events(results),
        "<h2>Settings</h2>",
        card(_settings(results)),
    ]
    return page(f"{results['name']} – replay", body)


def percent(value: float | None) -> str:
    """Write a share in percent."""
    return "n/a" if value is None else f"{100 * value:.1f}"


def colour(label_value: int) -> str:
    """A target's colour as in overlays."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(label_value - 1))


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    source, timing = results["input"], results["timing"]
    shown = [
        ("frames", f"{source['frames']:,}".replace(",", " ")),
        _length(source["seconds"]),
        ("pixels", f"{source['width']}×{source['height']}"),
        ("targets", str(len(results["targets"]))),
    ]
    if results["scores"]:
        shown.append(("J&F against the truth, %", percent(results["scores"]["all"]["jf"])))
    shown += [
        ("of all frames tracked, %", percent(results["summary"]["coverage"])),
        ("switches suspected", str(len(results["suspects"]))),
        ("median latency, ms", f"{timing['latency_ms']['p50']:.1f}"),
    ]
    return shown


def _length(seconds: float) -> tuple[str, str]:
    if seconds < 60:
        return "length, seconds", f"{seconds:.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return "length, min:s", f"{minutes}:{rest:02d}"


def _problems(results: Mapping[str, Any]) -> str:
    found = results["problems"]
    if not found:
        return ""
    title = "One problem" if len(found) == 1 else f"{len(found)} problems"
    return card(f"<h3>{title}</h3>{bullets(found)}", "warn")


def _summary(results: Mapping[str, Any]) -> str:
    scores = {
        (t["target"], t["prompt_frame"]): t["values"]
        for t in (results["scores"] or {}).get("targets", [])
    }
    header = [
        "", "target", "class", "prompted on frame", "frames", "tracked %", "occluded %",
        "lost %", "longest gap", "IoU est. mean", "IoU est. low 5 %",
    ]  # fmt: skip
    if scores:
        header.append("J&F %")
    by_name = _latest(scores)
    rows = []
    for target in results["targets"]:
        s = target["summary"]
        row = [
            chip(colour(target["label_value"])),
            unbroken(target["name"]),
            unbroken(s["class"]),
            target["first_frame"],
            s["frames"],
            percent(s["coverage"]),
            percent(s["occluded"]),
            percent(s["lost"]),
            s["longest_absence"],
            _number(s["iou_mean"]),
            _number(s["iou_low"]),
        ]
        if scores:
            row.append(percent((by_name.get(target["name"]) or {}).get("jf")))
        rows.append(row)
    if not rows:
        return "<p>No target was ever tracked.</p>"
    return table(header, rows, range(3, len(header)))


def _latest(scores: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    return {name: values for (name, _), values in sorted(scores.items(), key=lambda kv: kv[0][1])}


def _scores(results: Mapping[str, Any]) -> str:
    scores = results["scores"]
    if not scores:
        return (
            '<p class="muted">There is no ground truth in this replay: IoU is the model\'s own '
            "estimate, and suspected switches are only that.</p>"
        )
    titles = [title for _, title, _ in FIGURES]
    rows = [
        [
            unbroken(target["target"]),
            unbroken(target["class"] or ""),
            target["frames"],
            *(figure_text(key, target["values"][key]) for key, _, _ in FIGURES),
        ]
        for target in scores["targets"]
    ]
    every = scores["all"]
    rows.append(
        [Cell("<b>all</b>"), "", every["frames"],
         *(figure_text(key, every[key]) for key, _, _ in FIGURES)]
    )  # fmt: skip
    header = ["target", "true class", "frames", *titles]
    note = (
        f"Frames counted as in <code>sam2s eval --frames {escape(scores['frames_counted'])}</code>."
        " Shares in %; J, F and J&amp;F of <i>all</i> are means over targets."
    )
    return "<h2>Against the truth</h2>" + card(
        table(header, rows, range(2, len(header))) + f'<p class="muted">{note}</p>'
    )


def _timelines(results: Mapping[str, Any]) -> str:
    return timeline_legend(results) + "".join(timeline_cards(results).values())


def timeline_legend(*replays: Mapping[str, Any]) -> str:
    """Explain the colours and signs of the timelines of these results."""
    keys = [(charts.STATE_COLOURS[state], state) for state in charts.STATE_COLOURS]
    keys += [(charts.NONE_COLOUR, "not there"), (charts.BLUE, "IoU estimate")]
    if any(_in_view(results) for results in replays):
        keys.append((charts.VIOLET, "J against the truth"))
        keys += [(colour, f"{view} by the truth") for view, colour in charts.VIEW_COLOURS.items()]
    keys += [("", "▼ prompt"), ("", "▽ correction"), ("", "◆ suspected switch")]
    return legend(keys)


def timeline_cards(results: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """Draw the timeline of every target, by its name and which of its lives it is."""
    axis = charts.Axis(results["input"]["frames"], results["input"]["seconds"])
    truths = _in_view(results)
    cards: dict[tuple[str, int], str] = {}
    lives: Counter[str] = Counter()
    for target in results["targets"]:
        first, last = target["first_frame"], target["last_frame"]
        mine = [
            s for s in results["suspects"]
            if s["target"] == target["name"] and first <= s["frame"] <= last
        ]  # fmt: skip
        covered = percent(target["summary"]["coverage"])
        head = (
            f"<h3>{chip(colour(target['label_value']))}{escape(target['name'])}"
            f'<span class="muted">{escape(target["summary"]["class"])}, label '
            f"{target['label_value']}, {covered} % tracked</span></h3>"
        )
        truth = truths.get((target["name"], first), ())
        drawn = card(head + charts.timeline(target, axis, mine, truth))
        cards[target["name"], lives[target["name"]]] = drawn
        lives[target["name"]] += 1
    return cards


def _in_view(results: Mapping[str, Any]) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """Say by target and first frame when it was really in view, as runs of frames."""
    found = {}
    last = {(t["name"], t["first_frame"]): t["last_frame"] for t in results["targets"]}
    for record in results["records"]:
        for series in record["targets"]:
            key = (series["name"], series["prompt_frame"])
            if key not in last:
                continue
            areas = dict(zip(record["annotated"], series["area"], strict=True))
            views = [
                "unknown" if frame not in areas else "in view" if areas[frame] else "out of view"
                for frame in range(key[1], last[key] + 1)
            ]
            found[key] = [(view, len(list(run))) for view, run in groupby(views)]
    return found


def _worst(results: Mapping[str, Any], folder: Path) -> str:
    figures = []
    for moment in results["worst"]:
        path = folder / moment["picture"]
        text = (
            f"<b>{escape(moment['target'])}</b>, frame {moment['frame']} "
            f'<span class="muted">({moment["second"]:.2f} s)</span><br>{escape(moment["why"])}'
        )
        figures.append(picture(path.read_bytes(), text))
    if not figures:
        return '<p class="muted">None: no target was in view.</p>'
    note = ""
    if results["scores"]:
        note = '<p class="muted">The white line is the border of the truth.</p>'
    return f'<div class="grid">{"".join(figures)}</div>{note}'


def _suspects(results: Mapping[str, Any]) -> str:
    if not results["suspects"]:
        return ""
    rows = [[s["frame"], s["target"], s["kind"], s["text"]] for s in results["suspects"]]
    return (
        "<h2>Identity switches suspected</h2>"
        + card(table(["frame", "target", "sign", "what was seen"], rows[:EVENTS_SHOWN], [0]))
        + _more(rows)
    )


def _latency(results: Mapping[str, Any]) -> str:
    timing = results["timing"]
    latency = timing["latency_ms"]
    if not latency["steps"]:
        return "<p>No frame was tracked without a prompt.</p>"
    marks = {key: latency[key] for key in ("p50", "p95", "p99")}
    chart = charts.histogram(timing["histogram"]["edges"], timing["histogram"]["counts"], marks)
    stages = ", ".join(f"{name} {value:.1f}" for name, value in timing["stages_ms"].items())
    return (
        f"{chart}<p>{latency['steps']} frames without a prompt; mean {latency['mean']:.1f} ms "
        f"({stages}). The whole replay took {timing['seconds']:.0f} s, "
        f"{timing['frames_per_second']:.1f} frames a second.{_late(results)}</p>"
        f'<p class="muted">{escape(timing["host"]["cpu"])}, {timing["host"]["cores"]} cores, '
        f"{escape(_device(results))}; tracker only, "
        "without reading and writing the bag.</p>"
    )


def _late(results: Mapping[str, Any]) -> str:
    share, fps = results["timing"]["late"], results["input"]["fps"]
    if share is None:
        return ""
    return (
        f" {percent(share)} % of the frames took longer than the {1e3 / fps:.1f} ms between two "
        "images, so a live node would have skipped images."
        if share
        else f" Every frame took less than the {1e3 / fps:.1f} ms between two images."
    )


def _device(results: Mapping[str, Any]) -> str:
    tracker = results["settings"]["tracker"]
    where = tracker["provider"] if tracker["runtime"] == "onnx" else tracker["device"]
    return f"{tracker['runtime']} on {where}"


def _events(results: Mapping[str, Any]) -> str:
    rows = [
        [event["frame"], seconds(event["stamp_ns"]), event["kind"], event["target"],
         event["message"]]
        for event in results["events"]
    ]  # fmt: skip
    shown = table(["frame", "stamp", "event", "target", ""], rows[:EVENTS_SHOWN], [0])
    return (
        f"<details><summary>{len(rows)} events</summary>{card(shown)}{_more(rows)}</details>"
        if rows
        else ""
    )


def _more(rows: Sequence[Any]) -> str:
    left = len(rows) - EVENTS_SHOWN
    return f'<p class="muted">{left} more in results.json</p>' if left > 0 else ""


def made_by(results: Mapping[str, Any]) -> list[list[Any]]:
    """Name what decides most: the command, the weights, the memory, the runtime."""
    tracker = results["settings"]["tracker"]
    return [
        ["command", _code(results.get("command", ""))],
        ["weights", _code(f"{tracker['model']}, SHA-256 {tracker['weights_sha256']}…")],
        ["memory", _code(tracker["memory"])],
        ["runtime", _code(_device(results))],
    ]


def all_settings(results: Mapping[str, Any], more: Sequence[Sequence[Any]] = ()) -> str:
    """List every setting, to be unfolded."""
    rows: list[Sequence[Any]] = [
        [f"{part} {name}", _code(value)]
        for part, values in results["settings"].items()
        for name, value in flat(values)
    ]
    rows += more
    return f"<details><summary>all {len(rows)} settings</summary>{table(['', ''], rows)}</details>"


def _settings(results: Mapping[str, Any]) -> str:
    rows = made_by(results)
    for part in ("prompts", "truth"):
        values = flat(results["settings"][part] or {})
        rows.append([part, _code(", ".join(f"{name} {value}" for name, value in values) or None)])
    rows += [
        ["images, SHA-256", _code(results["input"]["images_sha256"])],
        ["results, SHA-256", _code(results["output"]["messages_sha256"])],
        ["settings' key", _code(results["key"])],
    ]
    more = [[f"version of {name}", _code(value)] for name, value in results["versions"].items()]
    more += [[f"messages on {t}", n] for t, n in results["output"]["topics"].items()]
    return table(["", ""], rows) + all_settings(results, more)


def flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Name nested settings by their path."""
    if not isinstance(values, Mapping):
        return [(prefix or "", values)]
    return [
        pair
        for name, value in values.items()
        for pair in (
            flat(value, f"{prefix}{name} ")
            if isinstance(value, Mapping)
            else [(f"{prefix}{name}", value)]
        )
    ]


def _code(value: Any) -> Cell:
    return Cell(f"<code>{escape('–' if value is None else str(value))}</code>")


def _number(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"
