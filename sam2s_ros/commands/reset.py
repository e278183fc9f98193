"""`sam2s reset`: let a running tracker forget every target."""

from __future__ import annotations

import argparse

from sam2s_ros.commands.common import add_tracker_arguments, connected

HELP = "let a running tracker forget every target"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which tracker is meant."""
    add_tracker_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Reset it."""
    with connected(args) as tracker:
        removed = tracker.reset()
    print(f"{removed} target{'' if removed == 1 else 's'} removed")
    return 0
