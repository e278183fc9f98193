"""The DDS profile that carries large images, and the environment of a process that uses it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sam2s_ros.share import shared_file

# Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Humble to Jazzy) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


# Distributions whose Fast DDS is version 2. Version 3 warns when it finds the older variable.
FAST_DDS_2 = ("humble", "iron", "jazzy")


def variables(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Name the variables that the Fast DDS of this environment's distribution is told by."""
    return (
        PROFILE_VARIABLES if environment.get("ROS_DISTRO") in FAST_DDS_2 else PROFILE_VARIABLES[:1]
    )


def profile_path() -> Path:
    """Return the absolute path of the shipped Fast DDS profile."""
    return shared_file("config", "fastdds.xml")


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
        copy.update(dict.fromkeys(variables(environment), str(profile_path())))
    modern, former = PROFILE_VARIABLES
    if former not in variables(environment) and copy.get(former) == copy.get(modern):
        del copy[former]
    return copy


def use_profile() -> None:
    """Name the shipped profile for this process and its children; call it before `rclpy.init`."""
    wanted = with_profile()
    for name in PROFILE_VARIABLES:
        if name in wanted:
            os.environ[name] = wanted[name]
        else:
            os.environ.pop(name, None)
