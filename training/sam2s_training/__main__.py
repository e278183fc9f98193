"""`python -m sam2s_training`: train, evaluate, export, plot, ablate, render."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from sam2s_model.errors import Sam2sError

COMMANDS = ("train", "evaluate", "export", "curves", "ablate", "shards")


class Command(Protocol):
    """What a command's module offers; torch is imported only when it runs."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 a mistake the message explains, 130 an interruption."""
    parser = argparse.ArgumentParser(
        prog="python -m sam2s_training", description="Train, evaluate and export SAM2S weights."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = cast(Command, importlib.import_module(f"sam2s_training.commands.{name}"))
        child = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except Sam2sError as error:
        print(f"sam2s_training {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sam2s_training {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
