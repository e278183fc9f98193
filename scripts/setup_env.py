"""Makes this checkout ready to run: what `make setup` calls. Needs only Python's standard library.

Two ways to have ROS 2. With a distribution sourced (ROS_DISTRO is set), its rclpy and colcon are
used and the virtual environment only adds what the distribution lacks. Without one, the virtual
environment gets ROS 2 as wheels. Either way colcon builds sam2s_msgs into .ros/, and env.sh is
written last, so a person can `source env.sh` and work by hand.

Each step leaves a stamp with a hash of its inputs, so a second call does only what has changed,
and a call that was interrupted goes on where it stopped. Exit codes: 0 ready, 2 something is
missing (one sentence says what and how to get it), 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
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

PYTHONS = ((3, 10), (3, 13))  # first and last with ROS 2 wheels
CMAKE = (3, 20)  # what ament_cmake of Kilted asks for
HEARTBEAT = 15.0  # seconds between lines of progress where there is no terminal
NOT_SETUP = "run `make distclean`, then `make setup`"


class SetupError(Exception):
    """Something is missing or broken; the message is one sentence with the remedy."""


class Step(NamedTuple):
    """One part of the set-up; skipped while its inputs are those of its stamp."""

    name: str
    title: str
    inputs: Iterable[Path | str]  # files, folders, or plain text
    run: Callable[[], None]


# --- what must be on the machine --------------------------------------------------------------


def distribution() -> str:
    """Name the sourced ROS 2 distribution, or return an empty string."""
    return os.environ.get("ROS_DISTRO", "")


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


# --- running commands -------------------------------------------------------------------------


class Progress:
    """Says which step is at work and for how long; keeps each command's output in a log."""

    def __init__(self, steps: int, lock: int) -> None:
        self.steps = steps
        self.lock = lock  # inherited by children: a step that outlives us keeps the lock
        self.number = 0
        self.title = ""
        self.log = LOGS / "none.log"
        self.terminal = sys.stdout.isatty()

    def begin(self, step: Step) -> None:
        """Start the next step's clock and log."""
        self.number += 1
        self.title = f"[{self.number}/{self.steps}] {step.title}"
        self.started = time.monotonic()
        self.log = LOGS / f"{step.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        if not self.terminal:
            print(f"{self.title} ...", flush=True)

    def end(self, outcome: str = "done") -> None:
        """Close the step's line."""
        seconds = time.monotonic() - self.started
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}{self.title}: {outcome} in {seconds:.1f} s", flush=True)

    def _tick(self, beat: float) -> float:
        """Show the time gone and the log's last line; return when to show it next."""
        now = time.monotonic()
        if now < beat:
            return beat
        text = f"{self.title} {now - self.started:4.0f} s  {last_line(self.log)}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{text[:width]}", end="", flush=True)
            return now + 0.5
        print(text[:120], flush=True)
        return now + HEARTBEAT

    def call(self, command: list[str], env: Mapping[str, str]) -> None:
        """Run a command to its end, or raise with the reason that its output gives."""
        with self.log.open("a", encoding="utf-8") as log:
            print("+", *command, file=log, flush=True)
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self.lock,),
            )
        beat = time.monotonic() + (0.5 if self.terminal else HEARTBEAT)
        try:
            while child.poll() is None:
                beat = self._tick(beat)
                time.sleep(0.1)
        finally:
            if child.poll() is None:
                stop_group(child)
        if child.returncode != 0:
            raise SetupError(f"{self.title} failed: {explain(self.log)}; all of it: {self.log}")


def stop_group(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started, first politely."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def explain(log: Path) -> str:
    """Find the sentence in a failed command's log that helps a person."""
    text = log.read_text(encoding="utf-8", errors="replace")
    offline = ("NameResolutionError", "ConnectTimeout", "NewConnectionError", "ProxyError")
    if any(sign in text for sign in offline):
        return "the package index cannot be reached, check the network or proxy and run it again"
    if "No space left on device" in text:
        return "the disk is full, free some space and run it again"
    errors = re.findall(r"^(?:ERROR|CMake Error|.*?: error): .*$", text, re.MULTILINE)
    return (errors[-1] if errors else last_line(log)).strip().rstrip(".")


# --- the environment that everything runs in --------------------------------------------------


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
        prefix = f"/opt/ros/{distribution()}"
        lines += [
            f'if [ "${{ROS_DISTRO:-}}" != "{distribution()}" ]; then',
            f'    . "{prefix}/setup.sh"',
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
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        lines.append(f'export {name}="${{{name}:-{profile}}}"')
    return "\n".join(lines) + "\n"


# --- stamps -----------------------------------------------------------------------------------


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


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one move, so that no reader and no interruption sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def made() -> dict[str, str]:
    """Read who made the virtual environment; empty if it was not made by this script."""
    with contextlib.suppress(OSError, ValueError):
        record: dict[str, str] = json.loads(MADE.read_text(encoding="utf-8"))
        return record
    return {}


# --- steps ------------------------------------------------------------------------------------


class Setup:
    """The steps, in order."""

    def __init__(self, lock: int) -> None:
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        self.pins = [line.split("#")[0].strip() for line in pins]
        ros_pins = [pin for pin in self.pins if pin.startswith(("ros-", "empy", "lark", "catkin"))]
        requirements = [ROOT / "constraints.txt", ROOT / "requirements-ros.txt", ROOT / "setup.py"]
        project = [ROOT / name for name in ("setup.py", "setup.cfg", "package.xml", "training")]
        project = [*project[:-1], ROOT / "config", ROOT / "launch"]
        project += [ROOT / "training" / name for name in ("setup.py", "package.xml")]
        self.steps = [
            Step("venv", "virtual environment", [], self.make_venv),
            Step("torch", "PyTorch", [self.pin("torch"), self.pin("setuptools")], self.torch),
            Step("packages", "Python packages", [*requirements, distribution()], self.packages),
            Step("reference", "reference SAM 2", [self.pin("sam2")], self.reference),
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
            self.progress.begin(step) if not self.fresh(step) else self.skip()
            if self.fresh(step):
                continue
            changed = True
            READY.unlink(missing_ok=True)
            stamp = self.stamp(step)
            stamp.unlink(missing_ok=True)
            step.run()
            write_whole(stamp, self.key(step))
            self.progress.end()
        self.finish(changed)
        print(f"ready in {time.monotonic() - started:.1f} s: `source env.sh`, then `sam2s doctor`")

    def skip(self) -> None:
        """Count a step that has nothing to do."""
        self.progress.number += 1

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
        self.pip(*self.constraints(), "--no-build-isolation", *ros, *editable)
        if not distribution():
            mend_cmake_paths()
        project = next(step for step in self.steps if step.name == "project")
        write_whole(self.stamp(project), self.key(project))

    def reference(self) -> None:
        """Install the reference package without what it asks for: that includes torchvision."""
        options = ["--no-deps", "--no-build-isolation"]
        self.pip(*options, self.pin("sam2"), SAM2_BUILD_CUDA="0")

    def project(self) -> None:
        """Install this project again after its metadata, configuration or launch files changed."""
        editable = ["-e", str(ROOT), "-e", str(ROOT / "training")]
        self.pip("--no-deps", "--no-build-isolation", *editable)

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
        self.progress.begin(Step("check", "check and env.sh", [], lambda: None))
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

    pip writes RECORD last; a dist-info folder without it is a package that is not all there.
    """
    for site in VENV.glob("lib/python*/site-packages"):
        for info in site.glob("*.dist-info"):
            if not (info / "RECORD").is_file():
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


@contextlib.contextmanager
def alone() -> Iterator[int]:
    """Hold the lock of this checkout's set-up; wait for another set-up, or what it left running."""
    ROS.mkdir(exist_ok=True)
    with (ROS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this checkout is at work; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def terminated(*_: object) -> None:
    """Treat SIGTERM as Ctrl-C, so that children are ended too."""
    raise KeyboardInterrupt


def main() -> int:
    """Set up the checkout."""
    parser = argparse.ArgumentParser(description="Make this checkout ready to run.")
    parser.parse_args()
    signal.signal(signal.SIGTERM, terminated)
    try:
        with alone() as lock:
            Setup(lock).run()
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nset-up: interrupted; `make setup` goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
