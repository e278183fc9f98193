"""Finds the files that belong to this package but are no Python: config/ and launch/."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sam2s_model.errors import Sam2sError


class SharedFileMissingError(Sam2sError):
    """A file of config/ or launch/ was not installed with this package."""


def _roots() -> Iterator[Path]:
    """Where the folders can be: a checkout, a ROS 2 workspace, a virtual environment."""
    yield Path(__file__).resolve().parent.parent
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix) / "share" / "sam2s_ros"
    yield Path(sys.prefix) / "share" / "sam2s_ros"


def shared_file(folder: str, name: str) -> Path:
    """Return the absolute path of a shipped file, for example `shared_file("config", …)`."""
    for root in _roots():
        if (root / folder / name).is_file():
            return root / folder / name
    raise SharedFileMissingError(
        f"{folder}/{name} is not installed: run `make setup` in the checkout, or build with "
        "`colcon build --base-paths . sam2s_msgs training` and source install/setup.bash"
    )
