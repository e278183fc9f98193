"""`curves`: draw a run's log and scores."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "draw a run's losses, learning rate and scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, help="picture; default: <run>/curves.png")


def run(args: argparse.Namespace) -> int:
    """Draw and say where to."""
    from sam2s_training.curves import draw_curves

    print(draw_curves(args.run_folder, args.out))
    return 0
