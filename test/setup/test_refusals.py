"""What set-up says when something is missing: one sentence, exit code 2, nothing left behind."""

import stat
import subprocess
import sys

import pytest

from scripts.setup_env import machine


def refused(done, *parts):
    """Check for a refusal of one line that holds these parts."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("program", "what", "remedy"),
    [
        ("cc", "a C compiler is missing", "sudo apt install build-essential"),
        ("c++", "a C++ compiler is missing", "sudo apt install build-essential"),
        ("make", "make is missing", "sudo apt install build-essential"),
        ("cmake", "cmake is missing", "sudo apt install cmake"),
    ],
)
def test_missing_build_tool(checkout, program, what, remedy):
    refused(checkout.setup(PATH=checkout.programs(program)), what, remedy)
    assert not checkout.venv.exists()
    assert not (checkout.root / "env.sh").exists()


def test_old_cmake(checkout):
    folder = checkout.programs("cmake")
    fake = checkout.root / "bin-without-cmake" / "cmake"
    fake.write_text("#!/bin/sh\necho cmake version 3.16.3\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    refused(checkout.setup(PATH=folder), "cmake 3.20 or newer is needed")


def test_half_built_environment(checkout):
    """A .venv whose Python is gone, as after a system upgrade."""
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to("/nowhere/python3")
    refused(checkout.setup(), ".venv is half built", "make distclean", "make setup")


def test_environment_without_pip(checkout):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout.venv], check=True)
    refused(checkout.setup(), ".venv is half built", "make distclean")


def test_moved_checkout(checkout):
    subprocess.run([sys.executable, "-m", "venv", checkout.venv], check=True)
    record = '{"id": "1", "root": "/old/place", "distribution": "", "python": "3.11"}'
    (checkout.venv / ".sam2s-environment.json").write_text(record)
    refused(checkout.setup(), ".venv was made for /old/place and cannot be moved")


def test_environment_for_a_distribution_is_not_changed_behind_ones_back(checkout):
    subprocess.run([sys.executable, "-m", "venv", checkout.venv], check=True)
    record = f'{{"id": "1", "root": "{checkout.root}", "distribution": "jazzy", "python": "3"}}'
    (checkout.venv / ".sam2s-environment.json").write_text(record)
    done = checkout.setup()
    refused(done, ".venv is for ROS 2 jazzy", "source /opt/ros/jazzy/setup.bash", "make distclean")


def test_distribution_named_but_not_sourced(checkout):
    folder = checkout.programs()
    (checkout.root / "bin-without-" / "colcon").symlink_to("/bin/true")
    done = checkout.setup(PATH=folder, ROS_DISTRO="jazzy")
    refused(done, "no Python here imports its rclpy", "source /opt/ros/jazzy/setup.bash")


def test_distribution_without_colcon(checkout):
    done = checkout.setup(PATH=checkout.programs(), ROS_DISTRO="jazzy")
    refused(done, "colcon is missing", "python3-colcon-common-extensions")


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 14, 0)])
def test_wrong_python(version, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(machine.platform, "python_version", lambda: ".".join(map(str, version)))
    with pytest.raises(machine.SetupError, match=r"CPython 3\.10 to 3\.13 .*PYTHON=python3\.11"):
        machine.check_python()


def test_machine_without_wheels(monkeypatch):
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    with pytest.raises(machine.SetupError, match="no ROS 2 wheels for linux on aarch64"):
        machine.check_python()
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    machine.check_python()


def test_python_without_venv(monkeypatch):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(machine.SetupError, match=r"sudo apt install python3\.\d+-venv"):
        machine.check_python()


def test_make_names_a_missing_python(checkout):
    done = subprocess.run(
        ["make", "setup", "PYTHON=python9"],
        cwd=checkout.root,
        env=checkout.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "python9 is missing" in done.stderr.splitlines()[0]
