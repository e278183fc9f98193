"""What earlier runs may have left half done, and what the wheels carry wrong."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys

from scripts.setup_env.environment import environment
from scripts.setup_env.layout import (
    NOT_SETUP,
    PYTHON,
    ROOT,
    UNFINISHED,
    VENV,
    SetupError,
    distribution,
    made,
    write_whole,
)


def refuse_other_environment() -> None:
    """Start anew after our own interruption; refuse what is broken or made for something else."""
    if UNFINISHED.is_file():
        shutil.rmtree(VENV)
    if not VENV.is_dir() or not any(VENV.iterdir()):
        return
    asked = None
    with contextlib.suppress(OSError):
        code = "import sys, pip; print('{}.{}'.format(*sys.version_info[:2]))"
        asked = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)
    if asked is None or asked.returncode != 0:
        raise SetupError(f".venv is half built: its Python or its pip does not start; {NOT_SETUP}")
    record = made()
    if record and record["root"] != str(ROOT):
        raise SetupError(f".venv was made for {record['root']} and cannot be moved; {NOT_SETUP}")
    wanted = "{}.{}".format(*sys.version_info[:2])
    if not distribution() and asked.stdout.strip() != wanted:
        raise SetupError(
            f".venv is for Python {asked.stdout.strip()}, not {wanted}: to change it, {NOT_SETUP}"
        )
    if record and record["distribution"] != distribution():
        old = record["distribution"]
        what = f"ROS 2 {old}" if old else "the ROS 2 wheels"
        remedy = f"source /opt/ros/{old}/setup.bash" if old else "unset ROS_DISTRO"
        raise SetupError(f".venv is for {what}: {remedy}; or, to change it, {NOT_SETUP}")


def heal_packages() -> None:
    """Forget packages whose installation was killed: pip would take them for complete.

    pip writes INSTALLER when all files of a package are in place; RECORD is no such sign, because
    it comes out of the wheel before the libraries that go to .venv/lib.
    """
    for site in VENV.glob("lib/python*/site-packages"):
        for info in site.glob("*.dist-info"):
            if not (info / "INSTALLER").is_file():
                shutil.rmtree(info)
        for leftover in site.glob("~*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def mend_cmake_paths() -> None:
    """Point the wheels' exported CMake files at this Python; they carry their build machine's."""
    code = (
        "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    )
    asked = subprocess.run(
        [str(PYTHON), "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    python_include, numpy_include = asked.stdout.splitlines()[-2:]
    foreign = r"/opt/python/cp\d+-cp\d+"
    for path in VENV.glob("share/*/cmake/*.cmake"):
        text = path.read_text(encoding="utf-8")
        if not re.search(foreign, text):
            continue
        text = re.sub(rf"{foreign}/include/python[\d.]+", lambda _: python_include, text)
        text = re.sub(
            rf"{foreign}/lib/python[\d.]+/site-packages/numpy/_?core/include",
            lambda _: numpy_include,
            text,
        )
        write_whole(path, text)
