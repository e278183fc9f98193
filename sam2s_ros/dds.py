"""The DDS profile that carries large images, and the environment of a process that uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sam2s_model.errors import Sam2sError

PROFILE = "fastdds.xml"

# Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Humble to Jazzy) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


class ProfileMissingError(Sam2sError):
    """The DDS profile was not installed with this package."""


def _candidates() -> Iterator[Path]:
    """Where the profile can be: a checkout, a ROS 2 workspace, a virtual environment."""
    yield Path(__file__).resolve().parent.parent / "config"
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix) / "share" / "sam2s_ros" / "config"
    yield Path(sys.prefix) / "share" / "sam2s_ros" / "config"


def profile_path() -> Path:
    """Return the absolute path of the shipped Fast DDS profile."""
    for folder in _candidates():
        if (folder / PROFILE).is_file():
            return folder / PROFILE
    raise ProfileMissingError(
        f"the DDS profile config/{PROFILE} is not installed: run `make setup` in the checkout, or "
        "build with `colcon build --base-paths . sam2s_msgs training` and source the install folder"
    )


def profile_in_use(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the profile that Fast DDS will load in this environment, or None for its defaults."""
    for variable in PROFILE_VARIABLES:
        if environment.get(variable):
            return Path(environment[variable])
    return None


def with_profile(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Copy an environment and name the shipped profile in it, unless it names one already.

    Whatever starts a node starts it with this environment: Fast DDS reads the profile once, when
    a process makes its first participant.
    """
    copy = dict(environment)
    if profile_in_use(environment) is None:
        copy.update(dict.fromkeys(PROFILE_VARIABLES, str(profile_path())))
    return copy


def use_profile() -> None:
    """Name the shipped profile for this process and its children; call it before `rclpy.init`."""
    os.environ.update(with_profile())
