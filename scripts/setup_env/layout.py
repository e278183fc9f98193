"""Where things lie in this checkout, and what every part of the set-up shares."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
ROS = ROOT / ".ros"  # colcon's build, install and log folders, stamps
STAMPS = ROS / "stamps"
LOGS = ROS / "log" / "setup"
READY = ROS / "ready"  # env.sh refuses to work without it
ENV_SH = ROOT / "env.sh"
MADE = VENV / ".sam2s-environment.json"  # who made this environment, for what
UNFINISHED = VENV / ".sam2s-unfinished"  # there while the environment is being made
INTERFACES = ROS / "install" / "sam2s_msgs"


NOT_SETUP = "run `make distclean`, then `make setup`"


class SetupError(Exception):
    """Something is missing or broken; the message is one sentence with the remedy."""


def distribution() -> str:
    """Name the sourced ROS 2 distribution, or return an empty string."""
    return os.environ.get("ROS_DISTRO", "")


def made() -> dict[str, str]:
    """Read who made the virtual environment; empty if it was not made by this script."""
    with contextlib.suppress(OSError, ValueError):
        record: dict[str, str] = json.loads(MADE.read_text(encoding="utf-8"))
        return record
    return {}


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one move, so that no reader and no interruption sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
