"""`sam2s remove-target`: let a running tracker forget a target."""

from __future__ import annotations

import argparse

from sam2s_ros.commands.common import add_tracker_arguments, connected

HELP = "let a running tracker forget a target"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the target."""
    parser.add_argument("name", help="the target's name")
    add_tracker_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Remove it."""
    with connected(args) as tracker:
        tracker.remove_target(args.name)
    print(f"{args.name} is removed")
    return 0
