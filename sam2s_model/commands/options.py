"""What several commands declare alike: their actions, the tracker, how scores count, who works."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

# As in sam2s_model.config and sam2s_model.metrics, which are too slow to import for --help.
MEMORY_POLICIES = ("sam2", "divemem", "efp")
FRAME_RULES = ("tracked", "davis", "sav", "all")
RUNTIMES = ("torch", "onnx")


class Options(Protocol):
    """A parser, or a group of its options."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Declare one option."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something; None, false and an empty list do not."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False or action.default == []
        return action.help if silent else super()._get_help_string(action)


def add_actions(
    parser: argparse.ArgumentParser, actions: Mapping[str, str], default: str
) -> dict[str, argparse.ArgumentParser]:
    """Declare a command's actions, name: help; `default` may be left out by the user."""
    children = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    parse = parser.parse_known_args

    def parse_known_args(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        if words and words[0] not in (*actions, "-h", "--help"):
            words.insert(0, default)
        return parse(words, namespace)

    # argparse has no default subcommand; a parent hands its words to a child by this one method.
    parser.parse_known_args = parse_known_args  # type: ignore[assignment]
    return {
        name: children.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=HelpFormatter,
        )
        for name, text in actions.items()
    }


def add_tracker_options(
    group: Options,
    *,
    weights: str | None = None,
    memory: str | None = None,
    runtime: str | None = None,
    device: str | None = None,
) -> None:
    """Declare which tracker works; None leaves a choice to whatever else decides it."""
    group.add_argument(
        "--weights", "--model", dest="weights", default=weights,
        help="preset, checkpoint, or folder of exported graphs",
    )  # fmt: skip
    group.add_argument("--memory", choices=MEMORY_POLICIES, default=memory, help="memory policy")
    group.add_argument("--runtime", choices=RUNTIMES, default=runtime, help="who runs the network")
    group.add_argument("--device", default=device, help="cpu, cuda; with onnx the provider")
    add_allow_fallback(group)
    group.add_argument("--image-size", type=int, help="network input; default: the weights' own")
    group.add_argument("--text-bank", help="class names' embeddings; default: the weights' own")


def add_allow_fallback(group: Options) -> None:
    """Declare what to do without the provider of ONNX Runtime that was asked for."""
    group.add_argument(
        "--allow-fallback",
        action="store_true",
        help="with onnx: run on the CPU, and say so, where the provider is missing",
    )


def working_device(runtime: str, device: str, allow_fallback: bool) -> str:
    """Give the device, or with onnx the provider, that will be used, so that results name it."""
    if not allow_fallback:
        return device  # a missing one is refused when the network is loaded
    from sam2s_model.runtime.base import RuntimeUnavailableError

    if runtime != "onnx":
        raise RuntimeUnavailableError(
            f"--allow-fallback is about providers of runtime 'onnx', and the runtime is "
            f"'{runtime}': leave it, or choose --runtime onnx"
        )
    from sam2s_model.runtime.onnx import choose_provider

    return choose_provider(device, allow_fallback)


def add_score_options(group: Options) -> None:
    """Declare which frames count in scores."""
    group.add_argument(
        "--frames",
        choices=FRAME_RULES,
        default="tracked",
        help="which frames count: after the prompt but the last; as DAVIS; as SA-V; all",
    )
    group.add_argument(
        "--min-absence", type=int, default=5, help="absent frames before a return is judged"
    )


def add_work_options(group: Options, things: str) -> None:
    """Declare how the work on many things is shared out."""
    group.add_argument("--jobs", type=int, default=1, help=f"processes that share the {things}")
    group.add_argument(
        "--shard", default="1/1", help=f"i/n: only the i-th of n shares of the {things}"
    )


def command_line() -> str:
    """Give the command as it was typed, for reports."""
    return shlex.join(["sam2s", *sys.argv[1:]])


def path_text(path: Path | None) -> str | None:
    """Give a path that may be missing as text."""
    return None if path is None else str(path)
