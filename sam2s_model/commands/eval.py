"""`sam2s eval`: score a tracker over annotated videos, merge shards, compare runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2s_model.commands.options import (
    add_actions,
    add_score_options,
    add_tracker_options,
    add_work_options,
    command_line,
    path_text,
    working_device,
)

if TYPE_CHECKING:
    from sam2s_model.evaluation.report import ReportOptions

HELP = "score a tracker over a suite, a folder in DAVIS layout, or a video with masks"

ACTIONS = {
    "run": "evaluate clips (may be left out: `sam2s eval val-short`)",
    "merge": "bring the shards of one run together and report on all",
    "compare": "set two runs side by side with bootstrap intervals",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    children = add_actions(parser, ACTIONS, default="run")
    _add_run(children["run"])
    _add_merge(children["merge"])
    _add_compare(children["compare"])


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    action = {"run": _run, "merge": _merge, "compare": _compare}[args.action]
    return action(args)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="+", help="suite name, folder in DAVIS layout, or video file"
    )
    parser.add_argument("--out", type=Path, default=Path("out/eval"), help="run folder")
    what = parser.add_argument_group("source")
    what.add_argument("--masks", type=Path, help="folder of a video's masks, named by frame number")
    what.add_argument("--classes", type=Path, help="JSON file of the instances' class names")
    what.add_argument("--split", help="only these clips: a file of names, or one of ImageSets")
    protocol = parser.add_argument_group("protocol")
    protocol.add_argument(
        "--prompt",
        choices=("click1", "click3", "box", "mask"),
        default="click1",
        help="first prompt",
    )
    protocol.add_argument(
        "--late",
        choices=("prompt", "skip"),
        default="prompt",
        help="targets that appear later: prompt on their first visible frame, or leave out",
    )
    protocol.add_argument(
        "--min-area", type=int, default=1, help="visible pixels from which a target is prompted"
    )
    tracker = parser.add_argument_group("tracker")
    add_tracker_options(tracker, weights="nano", memory="divemem", runtime="torch", device="cpu")
    tracker.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="parameters",
        help="a parameter of memory or track states by the node's name, such as memory_iou=0.7; "
        "may be repeated",
    )  # fmt: skip
    work = parser.add_argument_group("work")
    add_work_options(work, "clips")
    work.add_argument("--no-masks", action="store_true", help="keep no predicted masks")
    _add_report(parser)


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="+", type=Path, help="run folders of the shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the merged run")
    _add_report(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    report = parser.add_argument_group("report")
    add_score_options(report)
    report.add_argument("--worst", type=int, default=3, help="clips to draw as overlay videos")
    report.add_argument("--no-plots", action="store_true", help="draw no plots")
    report.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="run folder or its results.json")
    parser.add_argument("b", type=Path, metavar="B", help="run folder or its results.json")
    parser.add_argument(
        "--unit", choices=("video", "target"), default="video", help="what is resampled"
    )
    parser.add_argument("--out", type=Path, help="also write the comparison to this Markdown file")


def _run(args: argparse.Namespace) -> int:
    from sam2s_model.evaluation.clip import Protocol
    from sam2s_model.evaluation.plots import require_matplotlib
    from sam2s_model.evaluation.runner import Shard
    from sam2s_model.evaluation.session import Source, evaluate_sources
    from sam2s_model.evaluation.settings import Settings, StreamTrackerSpec
    from sam2s_model.tracker_parameters import USUAL, parse_parameters

    if not args.no_plots:
        require_matplotlib()
    shard = Shard.parse(args.shard)
    sources = [
        Source(name, path_text(args.masks), path_text(args.classes), args.split)
        for name in args.source
    ]
    device = working_device(args.runtime, args.device, args.allow_fallback)
    settings = Settings(
        StreamTrackerSpec(
            weights=args.weights,
            memory=args.memory,
            runtime=args.runtime,
            device=device,
            image_size=args.image_size,
            text_bank=args.text_bank,
            parameters={**USUAL, **parse_parameters(args.parameters)},
        ),
        Protocol(args.prompt, args.late == "prompt", args.min_area),
    )
    results = evaluate_sources(
        args.out,
        sources,
        settings,
        options=_options(args),
        shard=shard,
        jobs=args.jobs,
        keep_masks=not args.no_masks,
        command=command_line(),
    )
    return _conclude(results, args.out)


def _merge(args: argparse.Namespace) -> int:
    from sam2s_model.evaluation.report import write_report
    from sam2s_model.evaluation.session import merge_runs

    command = command_line()
    folder, what, clips = merge_runs(args.folder, args.out, command)
    return _conclude(write_report(folder, what, clips, _options(args)), args.out)


def _compare(args: argparse.Namespace) -> int:
    from sam2s_model.evaluation.compare import compare_runs, comparison_markdown, load_results
    from sam2s_model.whole_file import write_whole

    comparison = compare_runs(load_results(args.a), load_results(args.b), args.unit)
    text = comparison_markdown(comparison, str(args.a), str(args.b))
    print(text, end="")
    if args.out is not None:
        write_whole(args.out, text)
    return 0


def _options(args: argparse.Namespace) -> ReportOptions:
    from sam2s_model.evaluation.report import ReportOptions

    return ReportOptions(
        rule=args.frames,
        min_absence=args.min_absence,
        plots=not args.no_plots,
        # Without the masks there is nothing to draw; a merge knows only when it looks.
        worst=0 if getattr(args, "no_masks", False) else args.worst,
        show_progress=not args.quiet,
    )


def _conclude(results: Mapping[str, Any], out: Path) -> int:
    """Print the scores and what failed; 1 if nothing could be scored."""
    from sam2s_model.evaluation.report import score_table

    if results["targets"]:
        print(score_table(results["scores"]))
    for failure in results["failures"]:
        print(f"failed: {failure['clip']}: {failure['reason']}", file=sys.stderr)
    for what, key in (("clips not evaluated yet", "clips_missing"), ("problems", "problems")):
        if results[key]:
            print(f"{len(results[key])} {what}; {out}/results.md names them", file=sys.stderr)
    print(f"results: {out}/results.json, {out}/results.md")
    if not results["targets"]:
        print("nothing could be evaluated", file=sys.stderr)
        return 1
    return 0
