"""`ablate`: train and judge the variants of an ablation file, in slices that resume."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

HELP = "train variants of a recipe for the same budget, judge them, and write a table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ablation", type=Path, help="YAML file, or a shipped one's name")
    parser.add_argument("--out", type=Path, help="folder; default: out/ablation/<its name>")
    parser.add_argument("--weights", help="what all variants start from; default: the recipe's")
    parser.add_argument("--minutes", type=float, help="stop after this time; go on with the same")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="VARIANT",
        help="work on this variant alone (may be repeated); several processes can share a folder",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default: its own choice")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the clips judged")
    parser.add_argument("--table", action="store_true", help="only print what is there so far")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Work on the ablation and print the table as far as it is known."""
    import torch

    from sam2s_training.ablation import AblationRun, load_ablation
    from sam2s_training.distributed import DeviceError, World, choose_device

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise DeviceError(
            "an ablation runs in one process; start it without torchrun, or train each variant's "
            "recipe by itself"
        )
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    ablation, recipes = load_ablation(args.ablation, args.weights)
    job = AblationRun(
        ablation,
        recipes,
        args.out or Path("out/ablation") / ablation.name,
        World(choose_device(args.device)),
        minutes=args.minutes,
        only=args.only,
        jobs=args.jobs,
        quiet=args.quiet,
        command=shlex.join(["python", "-m", "sam2s_training", *sys.argv[1:]]),
    )
    done = args.table or job.run()
    print(job.write())
    if not done:
        print(f"not finished ({job.stopped}); the same command goes on", file=sys.stderr)
    return 0
