"""`sam2s replay`: a recorded bag through the tracker; compare two replays; merge shards."""

from __future__ import annotations

import argparse
import sys
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
from sam2s_ros.commands.bag_options import add_bag_options

if TYPE_CHECKING:
    from sam2s_ros.replay.settings import ReplaySettings

HELP = "replay recorded bags through the tracker, frame by frame, and report"

ACTIONS = {
    "run": "replay a bag, or all bags below a folder (may be left out: `sam2s replay BAG`)",
    "compare": "set two replays of the same bags side by side",
    "merge": "write the report over all replays below a folder anew",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    children = add_actions(parser, ACTIONS, default="run")
    _add_run(children["run"])
    compare = children["compare"]
    compare.add_argument("a", type=Path, metavar="A", help="folder of a replay, or of many")
    compare.add_argument("b", type=Path, metavar="B", help="the other one's")
    compare.add_argument("--out", type=Path, help="also write it to this .html or .md file")
    merge = children["merge"]
    merge.add_argument("folder", type=Path, help="folder with the replays of many bags")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="bag, one of its files, or a folder of bags")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    given = parser.add_argument_group("input")
    given.add_argument("--topic", help="of the images; default: the only one of a camera")
    given.add_argument(
        "--prompts", type=Path, help="YAML file; default: prompts.yaml in the bag's folder"
    )
    given.add_argument("--prompts-topic", help="recorded prompts; default: the only ones there are")
    given.add_argument(
        "--truth",
        help="topic of label maps, or folder of masks with stamps; default: the topic "
        "ground_truth/label_map if there is one; none: do not score",
    )
    given.add_argument("--classes", type=Path, help="JSON file of the truth's class names")
    tracker = parser.add_argument_group("tracker", "as the node's parameters")
    tracker.add_argument("--params-file", type=Path, help="the node's YAML file")
    add_tracker_options(tracker)
    tracker.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="parameters",
        help="any other parameter of the node, such as lost_after=100; may be repeated",
    )  # fmt: skip
    made = parser.add_argument_group("output")
    made.add_argument("--namespace", default="/tracker", help="of the topics in the new bag")
    add_bag_options(made)
    made.add_argument(
        "--times",
        choices=("stamp", "recorded"),
        default="stamp",
        help="times of the new messages: the images' stamps, or when the images were recorded",
    )
    made.add_argument("--overlay", help="video to write; {bag} stands for the bag's name")
    made.add_argument("--worst", type=int, default=6, help="pictures of the worst moments")
    add_score_options(made)
    work = parser.add_argument_group("work")
    add_work_options(work, "bags")
    work.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return {"run": _run, "compare": _compare, "merge": _merge}[args.action](args)


def _run(args: argparse.Namespace) -> int:
    from sam2s_ros.bags.errors import NoBagError
    from sam2s_ros.bags.files import is_bag

    settings = _settings(args)
    if not args.bag.exists():
        raise NoBagError(f"{args.bag}: there is no such bag")
    if args.bag.is_file() or is_bag(args.bag):
        return _one(args, settings)
    return _many(args, settings)


def _one(args: argparse.Namespace, settings: ReplaySettings) -> int:
    from tqdm import tqdm

    from sam2s_ros.replay.results import REPORT
    from sam2s_ros.replay.runner import replay_bag

    with tqdm(unit="frame", disable=args.quiet) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        results = replay_bag(
            args.bag, args.out, settings,
            command=command_line(), overwrite=args.overwrite, progress=progress,
        )  # fmt: skip
    print(_tell(results))
    for problem in results["problems"]:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"report: {args.out / REPORT}")
    return 0


def _many(args: argparse.Namespace, settings: ReplaySettings) -> int:
    from sam2s_model.evaluation.runner import Shard
    from sam2s_ros.replay.batch import find_tasks, replay_all
    from sam2s_ros.replay.merged import failed_names, write_merged
    from sam2s_ros.replay.results import REPORT

    tasks = find_tasks(args.bag, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    replay_all(
        tasks, settings, args.out, jobs=args.jobs, shard=Shard.parse(args.shard),
        overwrite=args.overwrite, command=command_line(), show_progress=not args.quiet,
    )  # fmt: skip
    content = write_merged(args.out, tasks, command_line(), args.frames, args.min_absence)
    print(f"{len(content['bags'])} of {len(tasks)} bags are finished")
    for line in failed_names(content):
        print(f"failed: {line}", file=sys.stderr)
    print(f"report: {args.out / REPORT}")
    return 1 if content["failures"] else 0


def _merge(args: argparse.Namespace) -> int:
    from sam2s_ros.replay.errors import ResultsError
    from sam2s_ros.replay.merged import find_results, write_merged
    from sam2s_ros.replay.results import REPORT

    if not args.folder.is_dir() or not find_results(args.folder):
        raise ResultsError(f"{args.folder} holds no replays")
    content = write_merged(args.folder, (), command_line())
    print(f"{len(content['bags'])} bags; report: {args.folder / REPORT}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from sam2s_model.whole_file import write_whole
    from sam2s_ros.replay.compare import compare, versus_html, versus_markdown

    versus = compare(args.a, args.b)
    text = versus_markdown(versus)
    print(text, end="")
    if args.out is not None:
        page = args.out.suffix.lower() in (".html", ".htm")
        write_whole(args.out, versus_html(versus) if page else text)
    return 0


def _settings(args: argparse.Namespace) -> ReplaySettings:
    from sam2s_ros.replay.settings import Inputs, Outputs, ReplaySettings, node_settings

    node = node_settings(args.params_file, _changes(args))
    if args.device is not None:
        node = node.changed({"provider" if node.runtime == "onnx" else "device": args.device})
    if node.allow_fallback:  # the provider that works is the one that the results shall name
        node = node.changed({"provider": working_device(node.runtime, node.provider, True)})
    return ReplaySettings(
        node=node,
        inputs=Inputs(
            topic=args.topic,
            prompts=path_text(args.prompts),
            prompts_topic=args.prompts_topic,
            truth=args.truth,
            classes=path_text(args.classes),
        ),
        outputs=Outputs(
            namespace=args.namespace,
            storage=args.storage,
            compression=args.compression,
            times=args.times,
            overlay=args.overlay,
            worst=args.worst,
        ),
        rule=args.frames,
        min_absence=args.min_absence,
    )


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the node's parameters that the command line gives."""
    import yaml

    from sam2s_ros.replay.errors import ReplayError

    changes: dict[str, Any] = {}
    for text in args.parameters:
        name, sign, value = text.partition("=")
        if not sign:
            raise ReplayError(f"--set {text}: expected NAME=VALUE, such as lost_after=100")
        changes[name] = yaml.safe_load(value)
    given = {
        "model": args.weights,
        "memory": args.memory,
        "runtime": args.runtime,
        "allow_fallback": args.allow_fallback or None,
        "image_size": args.image_size,
        "text_bank": args.text_bank,
    }
    return {**changes, **{name: value for name, value in given.items() if value is not None}}


def _tell(results: dict[str, Any]) -> str:
    """Sum a replay up for the terminal."""
    from sam2s_model.table import markdown_table
    from sam2s_ros.replay.report import percent

    rows = []
    scores = {t["target"]: t["values"] for t in (results["scores"] or {}).get("targets", [])}
    for target in results["targets"]:
        s = target["summary"]
        row = [target["name"], s["class"], target["first_frame"], s["frames"]]
        row += [percent(s["coverage"]), percent(s["iou_mean"])]
        rows.append([*row, percent(scores.get(target["name"], {}).get("jf"))])
    header = ["target", "class", "from frame", "frames", "tracked %", "IoU est. %", "J&F %"]
    timing = results["timing"]
    resumed = timing["resumed_at"]
    before = f"; {resumed} of them by a replay that was interrupted" if resumed else ""
    return (
        markdown_table(header, rows)
        + f"\n{results['input']['frames']} frames, {timing['frames_per_second']:.1f} a second"
        f"{before}; {len(results['suspects'])} identity switches suspected"
    )
