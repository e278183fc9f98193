"""`sam2s save-state`: let a running tracker write its targets and their memory to a file."""

from __future__ import annotations

import argparse

from sam2s_ros.commands.common import add_state_arguments, connected

HELP = "let a running tracker write its targets with their memory to a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file."""
    add_state_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Save."""
    with connected(args) as tracker:
        answer = tracker.save_state(args.path)
    print(f"{answer.path}: {', '.join(answer.targets) or 'no targets'}")
    return 0
