"""`evaluate`: score a training's averaged weights, as `sam2s eval` does."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

HELP = "score the averaged weights of a checkpoint, or of a run's newest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, help="checkpoint (.pt) or run folder")
    parser.add_argument(
        "suites", nargs="*", default=["val-short"], help="suites, or folders in DAVIS layout"
    )
    parser.add_argument("--memory", choices=("sam2", "divemem", "efp"), default="divemem")
    parser.add_argument("--prompt", choices=("click1", "click3", "box", "mask"), default="click1")
    parser.add_argument("--shard", default="1/1", help="i/n: only this share of the clips")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the clips")
    parser.add_argument("--out", type=Path, help="folder of the evaluation; default: in the run's")
    parser.add_argument("--full", action="store_true", help="keep masks; draw plots, worst clips")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the scores."""
    from sam2s_model.evaluation.report import ReportOptions, score_table
    from sam2s_training.evaluate import EvaluationSettings, evaluate_checkpoint

    settings = EvaluationSettings(
        tuple(args.suites), args.memory, args.prompt, args.shard, args.device, args.jobs
    )
    options = ReportOptions(
        plots=args.full, worst=3 if args.full else 0, show_progress=not args.quiet
    )
    command = shlex.join(["python", "-m", "sam2s_training", *sys.argv[1:]])
    results = evaluate_checkpoint(args.source, settings, args.out, options, args.full, command)
    for failure in results["failures"]:
        print(f"failed: {failure['clip']}: {failure['reason']}", file=sys.stderr)
    if not results["targets"]:
        print("nothing could be evaluated", file=sys.stderr)
        return 1
    print(score_table(results["scores"]))
    return 0
