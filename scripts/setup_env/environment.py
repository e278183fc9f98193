"""The environment that everything runs in, for the steps and for env.sh."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.setup_env.layout import INTERFACES, PYTHON, READY, ROOT, ROS, VENV, distribution


def search_paths() -> dict[str, list[str]]:
    """Return what goes in front of each search path; later steps add folders to it."""
    paths: dict[str, list[str]] = {
        "PATH": [str(VENV / "bin")],
        "PYTHONPATH": [],
        "AMENT_PREFIX_PATH": [],
        "CMAKE_PREFIX_PATH": [],
        "LD_LIBRARY_PATH": [],
    }
    if INTERFACES.is_dir():
        paths["AMENT_PREFIX_PATH"].append(str(INTERFACES))
        paths["CMAKE_PREFIX_PATH"].append(str(INTERFACES))
        paths["LD_LIBRARY_PATH"].append(str(INTERFACES / "lib"))
        # Debian's Python installs to local/lib/pythonX.Y/dist-packages, others to lib/.
        for module in sorted(INTERFACES.glob("**/*-packages/sam2s_msgs/__init__.py")):
            paths["PYTHONPATH"].append(str(module.parent.parent))
    if not distribution():
        paths["AMENT_PREFIX_PATH"].append(str(VENV))
        paths["CMAKE_PREFIX_PATH"].append(str(VENV))
        paths["LD_LIBRARY_PATH"].append(str(VENV / "lib"))
        bundled = VENV.glob("lib/python*/site-packages/ros_*.libs")
        paths["LD_LIBRARY_PATH"] += sorted(map(str, bundled))
    return paths


def base_environment() -> dict[str, str]:
    """Return this process's environment without what a sourced env.sh or other venv put in it."""
    env = dict(os.environ)
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "PIP_REQUIRE_VIRTUALENV", "MAKEFLAGS", "MFLAGS"):
        env.pop(name, None)
    for name in search_paths():
        kept = [part for part in env.pop(name, "").split(os.pathsep) if part]
        kept = [part for part in kept if not part.startswith((f"{VENV}/", str(ROS)))]
        kept = [part for part in kept if part != str(VENV)]
        if kept:
            env[name] = os.pathsep.join(kept)
    return env


def environment() -> dict[str, str]:
    """Return what env.sh will set, for the steps that need it."""
    env = base_environment()
    for name, parts in search_paths().items():
        joined = [*parts, *filter(None, [env.get(name)])]
        if joined:
            env[name] = os.pathsep.join(joined)
    env["VIRTUAL_ENV"] = str(VENV)
    if not distribution():
        env["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    return env


def distribution_prefix() -> str:
    """Find the sourced distribution: the lowest layer of AMENT_PREFIX_PATH that can be sourced."""
    for prefix in reversed(os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if prefix and (Path(prefix) / "setup.sh").is_file():
            return prefix
    return f"/opt/ros/{distribution()}"


def env_sh() -> str:
    """Write the script that a person sources, for any POSIX shell."""
    lines = [
        "# Made by `make setup`; source it: rclpy, sam2s_msgs, sam2s and the DDS profile.",
        f'if [ ! -e "{READY}" ] || [ ! -x "{PYTHON}" ]; then',
        f'    echo "the set-up of {ROOT} is not finished: run \\`make setup\\` there" >&2',
        "    return 2 2>/dev/null || exit 2",
        "fi",
    ]
    if distribution():
        lines += [
            f'if [ "${{ROS_DISTRO:-}}" != "{distribution()}" ]; then',
            f'    . "{distribution_prefix()}/setup.sh"',
            "fi",
        ]
    else:
        lines += [
            "# Keeps the wheels from starting each Python twice to set LD_LIBRARY_PATH.",
            "export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1",
            'export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"',
        ]
    lines += [
        "_sam2s_prepend() {  # VARIABLE FOLDER: in front, once",
        '    eval "_sam2s_old=\\${$1:-}"',
        '    case ":$_sam2s_old:" in',
        '        *":$2:"*) ;;',
        '        *) eval "export $1=\\"\\$2\\${_sam2s_old:+:\\$_sam2s_old}\\"" ;;',
        "    esac",
        "}",
    ]
    for name, parts in search_paths().items():
        lines += [f'_sam2s_prepend {name} "{part}"' for part in reversed(parts)]
    profile = ROOT / "config" / "fastdds.xml"
    lines += [
        "unset -f _sam2s_prepend; unset _sam2s_old",
        f'export VIRTUAL_ENV="{VENV}"',
        "# Carries large images between processes; a profile that you set yourself stays.",
    ]
    used = "${{{0}:-{1}}}"
    modern, former = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
    lines += [
        f'export {modern}="{used.format(modern, profile)}"',
        "# Fast DDS 2 reads the older name; version 3 complains about it.",
        'case "${ROS_DISTRO:-}" in',
        f'    humble|iron|jazzy) export {former}="{used.format(former, profile)}" ;;',
        "esac",
    ]
    return "\n".join(lines) + "\n"
