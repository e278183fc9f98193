"""`sam2s load-state`: let a running tracker go on with the targets of a file."""

from __future__ import annotations

import argparse

from sam2s_ros.commands.common import add_state_arguments, connected

HELP = "let a running tracker go on with the targets of a file that save-state wrote"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file."""
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load."""
    with connected(args) as tracker:
        names = tracker.load_state(args.path)
    print(f"tracking {', '.join(names) or 'nothing: the file has no targets'}")
    return 0
