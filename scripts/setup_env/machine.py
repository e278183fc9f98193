"""What must be on the machine before anything is made; one sentence for what is not."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from scripts.setup_env.layout import SetupError, distribution

PYTHONS = ((3, 10), (3, 13))  # first and last with ROS 2 wheels
CMAKE = (3, 20)  # what ament_cmake of Kilted asks for


def check_python() -> None:
    """Refuse a Python for which there are no ROS 2 wheels, before anything is made."""
    low, high = (".".join(map(str, version)) for version in PYTHONS)
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        raise SetupError(
            f"Python {platform.python_version()} does not fit: install CPython {low} to {high} and "
            "name it, for example `make setup PYTHON=python3.11`"
        )
    if sys.implementation.name != "cpython":
        raise SetupError(f"{sys.implementation.name} does not fit: use CPython {low} to {high}")
    if not distribution() and (sys.platform != "linux" or platform.machine() != "x86_64"):
        raise SetupError(
            f"there are no ROS 2 wheels for {sys.platform} on {platform.machine()}: install a "
            "ROS 2 distribution and source its setup.bash first"
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = "python{}.{}".format(*sys.version_info[:2])
            raise SetupError(
                f"Python's module {module} is missing: `sudo apt install {version}-venv`"
            )


def check_build_tools() -> None:
    """Refuse to start a build of sam2s_msgs that cannot succeed."""
    needed = {
        "a C compiler": (os.environ.get("CC", "cc"), "build-essential"),
        "a C++ compiler": (os.environ.get("CXX", "c++"), "build-essential"),
        "make": ("make", "build-essential"),
        "cmake": ("cmake", "cmake"),
    }
    if distribution():
        needed["colcon"] = ("colcon", "python3-colcon-common-extensions")
    for what, (program, package) in needed.items():
        if shutil.which(program) is None:
            raise SetupError(f"{what} is missing ({program}): `sudo apt install {package}`")
    printed = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.(\d+)", printed.stdout)
    if not found or tuple(map(int, found.groups())) < CMAKE:
        raise SetupError(
            "cmake {}.{} or newer is needed: `pip install cmake` or your distribution's "
            "backports".format(*CMAKE)
        )
    if distribution():
        return  # its own Python builds, and its development packages brought the headers
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        version = "python{}.{}".format(*sys.version_info[:2])
        raise SetupError(
            f"Python's headers are missing ({header}): `sudo apt install {version}-dev`"
        )


def interpreter() -> str:
    """Choose the Python to make the environment from: with a distribution, the one it is for."""
    own: str = getattr(sys, "_base_executable", sys.executable)
    if not distribution():
        return own
    for candidate in (own, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if (
                subprocess.run(
                    [candidate, "-c", "import rclpy"], stderr=subprocess.DEVNULL
                ).returncode
                == 0
            ):
                return candidate
    raise SetupError(
        f"ROS_DISTRO is {distribution()}, but no Python here imports its rclpy: source "
        f"/opt/ros/{distribution()}/setup.bash again, or unset ROS_DISTRO to use the ROS 2 wheels"
    )
