"""Two replays of the same bag, or of the same bags, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from sam2s_model.evaluation.compare import CompareError, Comparison, compare_runs
from sam2s_model.evaluation.report import figure_text
from sam2s_model.evaluation.scores import FIGURES, known
from sam2s_model.metrics import region_similarity
from sam2s_model.table import markdown_table
from sam2s_ros.bags.reader import Bag, decode, header_stamp
from sam2s_ros.conversions import image_to_labels
from sam2s_ros.replay.errors import ResultsError
from sam2s_ros.replay.merged import find_results
from sam2s_ros.replay.page import Cell, bullets, card, page, table
from sam2s_ros.replay.report import flat, percent, timeline_cards, timeline_legend
from sam2s_ros.replay.results import load_results, summarise_tracks
from sam2s_ros.replay.scoring import record_of, score_summary

APART = 0.5  # overlap of a target's two masks under which the replays disagree on a frame
BAGS_DRAWN = 10  # timelines of more would make the page unwieldy
OF_ONE_RUN = ("inputs", "outputs")  # settings that say where things are, not how it was tracked


@dataclass
class Agreement:
    """How much two replays' masks of one target overlap."""

    bag: str
    target: str
    jf: tuple[float | None, float | None]  # of A and B; None without truth
    overlaps: list[float] = field(default_factory=list)  # of frames on which either shows it
    first_apart: int | None = None  # frame from which on they differ

    @property
    def mean(self) -> float:
        """Mean overlap."""
        return float(np.mean(self.overlaps)) if self.overlaps else 1.0

    @property
    def apart(self) -> int:
        """Frames on which they disagree."""
        return sum(value < APART for value in self.overlaps)


@dataclass
class Versus:
    """What two runs have in common, and how they differ."""

    names: tuple[str, str]
    bags: int
    settings: list[tuple[str, Any, Any]]
    figures: list[tuple[str, str, str, str]]  # name, A, B, B − A
    scores: Comparison | None
    agreement: list[Agreement]
    unpaired: list[str]
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]]  # results of A and of B, by bag


def compare(a: Path, b: Path) -> Versus:
    """Compare two results folders: of one bag each, or of many."""
    left, right = _runs(a), _runs(b)
    alone = len(left) == 1 and len(right) == 1
    pairs = (
        [(*left.values(), *right.values())]
        if alone
        else [(left[name], right[name]) for name in left if name in right]
    )
    if not pairs:
        raise ResultsError(f"{a} and {b} have no bag in common: were they made of the same bags?")
    unpaired = [] if alone else sorted(set(left) ^ set(right))
    ours, theirs = [], []
    agreement = []
    for one, other in pairs:
        mine, its = load_results(one), load_results(other)
        if mine["input"]["images_sha256"] != its["input"]["images_sha256"]:
            raise ResultsError(
                f"{one} and {other} were not replayed from the same images "
                f"({mine['input']['bag']} and {its['input']['bag']})"
            )
        ours.append(mine)
        theirs.append(its)
        agreement += _agreement(one, other, mine, its)
    return Versus(
        (str(a), str(b)), len(pairs), _settings(ours[0], theirs[0]), _figures(ours, theirs),
        _scores(ours, theirs), agreement, unpaired, (ours, theirs),
    )  # fmt: skip


def versus_markdown(versus: Versus) -> str:
    """Lay the comparison out for a terminal."""
    a, b = versus.names
    bags = "one bag" if versus.bags == 1 else f"{versus.bags} bags"
    parts = [f"# {a} against {b}", f"A is {a}, B is {b}; {bags}."]
    for title, (header, rows) in _tables(versus).items():
        parts += [f"## {title}", markdown_table(header, rows)]
    if versus.unpaired:
        parts += ["## In one run only (left out)", "\n".join(f"- {n}" for n in versus.unpaired)]
    return "\n\n".join(parts) + "\n"


def versus_html(versus: Versus) -> str:
    """Lay the comparison out as a page."""
    a, b = versus.names
    body = [
        "<h1>Two replays compared</h1>",
        f'<p class="muted">A is <code>{escape(a)}</code>, B is <code>{escape(b)}</code></p>',
    ]
    for title, (header, rows) in _tables(versus).items():
        cells = [[Cell(f"<code>{escape(str(v))}</code>") for v in row] for row in rows]
        plain = title != "Settings that differ"
        numbers = range(1, len(header)) if plain else ()
        body += [f"<h2>{title}</h2>", card(table(header, rows if plain else cells, numbers))]
    if versus.unpaired:
        body += ["<h2>In one run only (left out)</h2>", card(bullets(versus.unpaired))]
    return page("Two replays compared", [*body, *_timelines(versus)])


def _timelines(versus: Versus) -> Iterator[str]:
    """Show every target's life in A above the same in B, bag by bag."""
    yield f"<h2>Timelines</h2>{timeline_legend(*versus.sides[0], *versus.sides[1])}"
    for number, pair in enumerate(zip(*versus.sides, strict=True)):
        if number == BAGS_DRAWN:
            left = versus.bags - BAGS_DRAWN
            yield f'<p class="muted">{left} more bags: see the reports of each.</p>'
            return
        yield f"<h3>{escape(pair[0]['name'])}</h3>"
        cards = [timeline_cards(results) for results in pair]
        for name in dict.fromkeys([*cards[0], *cards[1]]):
            for side, made in zip("AB", cards, strict=True):
                yield f'<p class="muted">{side}</p>{made.get(name, card("not there"))}'


def _tables(versus: Versus) -> dict[str, tuple[list[str], list[list[Any]]]]:
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
    settings = [[name, left, right] for name, left, right in versus.settings]
    tables["Settings that differ"] = (["setting", "A", "B"], settings or [["none", "", ""]])
    if versus.scores is not None:
        rows = []
        for d, (key, title, better) in zip(versus.scores.macro, FIGURES, strict=True):
            texts = [_figure(key, v) for v in (d.a, d.b, d.difference)]
            clear = "" if not d.clear else "B better" if (d.difference > 0) == better else "B worse"
            interval = "n/a"
            if d.low == d.low:
                interval = f"{_figure(key, d.low)} … {_figure(key, d.high)}"
            rows.append([title, *texts, interval, clear])
        tables["Against the truth"] = (
            ["figure", "A", "B", "B − A", "95 % interval over targets", "verdict"], rows,
        )  # fmt: skip
    tables["Without the truth"] = (["figure", "A", "B", "B − A"], [[*r] for r in versus.figures])
    tables["Agreement of the masks"] = (
        ["target", "J&F % of A", "J&F % of B", "overlap %", f"frames below {APART:.0%}",
         "first differing frame"],
        [
            [f"{g.bag} {g.target}", *map(percent, g.jf), percent(g.mean), g.apart,
             "none" if g.first_apart is None else g.first_apart]
            for g in versus.agreement
        ] or [["none in both", "", "", "", "", ""]],
    )  # fmt: skip
    return tables


def _figure(key: str, value: float) -> str:
    """Write a figure or a difference, without a sign before nothing."""
    text = figure_text(key, known(value))
    return text.lstrip("-") if not text.strip("-0.") else text


def _runs(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise ResultsError(f"{path}: there is no such folder of results")
    folders = find_results(path) if path.is_dir() else {}
    if folders:
        return folders
    load_results(path)
    return {path.name: path if path.is_dir() else path.parent}


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    left, right = (
        dict(flat({k: v for k, v in r["settings"].items() if k not in OF_ONE_RUN})) for r in (a, b)
    )
    left["code"], right["code"] = (r["versions"].get("source") for r in (a, b))
    return [
        (name, left.get(name), right.get(name))
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]


def _figures(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> list[tuple[str, str, str, str]]:
    sides = [summarise_tracks([t for r in side for t in r["targets"]]) for side in (ours, theirs)]
    rows = []
    for name, key in (
        ("tracked %", "coverage"), ("occluded %", "occluded"), ("lost %", "lost"),
        ("IoU estimate, mean %", "iou_mean"),
    ):  # fmt: skip
        a, b = (side[key] for side in sides)
        change = "n/a" if a is None or b is None else f"{100 * (b - a):+.1f}"
        rows.append((name, percent(a), percent(b), change))
    counts = [sum(len(r["suspects"]) for r in side) for side in (ours, theirs)]
    rows.append(
        ("switches suspected", str(counts[0]), str(counts[1]), f"{counts[1] - counts[0]:+d}")
    )
    for key in ("p50", "p95"):
        a, b = (_latency(side, key) for side in (ours, theirs))
        rows.append((f"latency {key}, ms", f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}"))
    return rows


def _latency(results: list[dict[str, Any]], key: str) -> float:
    """The largest of the bags' percentiles; they cannot be pooled exactly."""
    return max((r["timing"]["latency_ms"][key] or 0.0) for r in results)


def _scores(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Comparison | None:
    """Compare by the rules of `sam2s eval compare`, resampling targets."""
    sides = []
    for side in (ours, theirs):
        records = []
        for number, results in enumerate(side):
            for content in results["records"]:
                record = record_of(content)
                record.clip = f"{number}"
                records.append(record)
        if not records:
            return None
        first = side[0]["scores"]
        summary = score_summary(records, first["frames_counted"], first["min_absence"])
        sides.append({**summary, "scores": {"macro": {}}})
    try:
        return compare_runs(sides[0], sides[1], unit="target")
    except CompareError as error:
        raise ResultsError(str(error)) from error


def _agreement(
    one: Path, other: Path, mine: Mapping[str, Any], its: Mapping[str, Any]
) -> list[Agreement]:
    """Overlap the label maps of two replays, target by target."""
    values = [{t["name"]: t["label_value"] for t in r["targets"]} for r in (mine, its)]
    scored = [_jf_by_target(r) for r in (mine, its)]
    found = {
        name: Agreement(mine["name"], name, (scored[0].get(name), scored[1].get(name)))
        for name in values[0]
        if name in values[1]
    }
    if not found:
        return []
    maps = zip(_label_maps(one, mine), _label_maps(other, its), strict=False)
    for frame, ((stamp, left), (its_stamp, right)) in enumerate(maps):
        if stamp != its_stamp or left.shape != right.shape:
            break
        for name, kept in found.items():
            a, b = left == values[0][name], right == values[1][name]
            if a.any() or b.any():
                overlap = region_similarity(a, b)
                kept.overlaps.append(overlap)
                if overlap < 1 and kept.first_apart is None:
                    kept.first_apart = frame
    return list(found.values())


def _jf_by_target(results: Mapping[str, Any]) -> dict[str, float | None]:
    """Give J&F by target; of several lives of one name the last one's."""
    return {t["target"]: t["values"]["jf"] for t in (results["scores"] or {}).get("targets", [])}


def _label_maps(
    folder: Path, results: Mapping[str, Any]
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Read the label maps that a replay wrote."""
    topic = next(name for name in results["output"]["topics"] if name.endswith("/label_map"))
    with Bag(folder / results["output"]["bag"]) as bag:
        for message in bag.messages(topic):
            yield header_stamp(message.data), image_to_labels(decode(message, Image))
