"""The `sam2s` command: finds its subcommands and turns expected errors into one sentence."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Protocol, cast

from sam2s_model.errors import Sam2sError

ENTRY_POINT_GROUP = "sam2s.commands"

OWN_COMMANDS = {
    "bank": "sam2s_model.commands.bank",
    "bench": "sam2s_model.commands.bench",
    "eval": "sam2s_model.commands.eval",
    "export": "sam2s_model.commands.export",
    "scene": "sam2s_model.commands.scene",
    "weights": "sam2s_model.commands.weights",
}


class Command(Protocol):
    """What a command's module offers; importing it must stay cheap (no torch at module level)."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


def command_modules() -> dict[str, str]:
    """Map each command name to its module: the library's own and those other packages register."""
    registered = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    return dict(sorted({**registered, **OWN_COMMANDS}.items()))


def build_parser(modules: dict[str, str]) -> argparse.ArgumentParser:
    """Make the parser for these commands, importing each of their modules."""
    parser = argparse.ArgumentParser(
        prog="sam2s",
        description="Live segmentation and tracking of surgical instruments and tissue.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, path in modules.items():
        module = cast(Command, importlib.import_module(path))
        child = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 a mistake the message explains, 130 an interruption."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    modules = command_modules()
    if arguments and arguments[0] in modules:
        modules = {arguments[0]: modules[arguments[0]]}
    args = build_parser(modules).parse_args(arguments)
    try:
        return int(args.run(args))
    except Sam2sError as error:
        print(f"sam2s {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"sam2s {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
