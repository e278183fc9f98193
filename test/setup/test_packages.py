"""The three ROS packages: what their metadata say, and what a colcon build installs."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "sam2s_ros": ROOT,
    "sam2s_msgs": ROOT / "sam2s_msgs",
    "sam2s_training": ROOT / "training",
}
BUILD_TYPES = {
    "sam2s_ros": "ament_python",
    "sam2s_msgs": "ament_cmake",
    "sam2s_training": "ament_python",
}


def manifest(name):
    return ElementTree.parse(PACKAGES[name] / "package.xml").getroot()


@pytest.mark.parametrize("name", PACKAGES)
def test_manifest(name):
    root = manifest(name)
    assert root.get("format") == "3"
    assert root.findtext("name") == name
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == BUILD_TYPES[name]


def test_versions_agree():
    versions = {manifest(name).findtext("version") for name in PACKAGES}
    for path in (ROOT / "setup.py", ROOT / "training" / "setup.py"):
        versions.add(re.search(r'version="([\d.]+)"', path.read_text())[1])
    for package in ("sam2s_ros", "training/sam2s_training"):
        text = (ROOT / package / "__init__.py").read_text()
        versions.add(re.search(r'__version__ = "([\d.]+)"', text)[1])
    assert len(versions) == 1


def test_every_requirement_is_pinned_and_explained():
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    setup = (ROOT / "setup.py").read_text()
    required = re.findall(
        r'"([A-Za-z][\w-]*)(?:>=[\d.]+)?"[,\]]', setup[setup.index("install_r") :]
    )
    required = [
        name for name in required if name not in ("reference", "dev", "plots", "clip", "minilm")
    ]
    assert len(required) > 15
    for name in required:
        assert re.sub("_", "-", name).lower() in pins, f"{name} is not in constraints.txt"
        assert name in explained, f"{name} is not in docs/dependencies.md"
    for line in (ROOT / "requirements-ros.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert line.split("<")[0].replace("_", "-") in pins, f"{line} is not in constraints.txt"


def executables():
    """Every program that this project's packages declare."""
    ours = ("sam2s_ros.", "sam2s_model.", "sam2s_training.")
    scripts = entry_points(group="console_scripts")
    return [entry for entry in scripts if entry.value.startswith(ours)]


@pytest.mark.ros
def test_every_executable_and_command_loads():
    ours = [*entry_points(group="sam2s.commands"), *executables()]
    assert {entry.name for entry in ours} >= {"sam2s", "doctor"}
    for entry in ours:
        loaded = entry.load()
        assert callable(loaded) or callable(loaded.run)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Both Python packages, built and installed by colcon as in a ROS 2 workspace."""
    base = tmp_path_factory.mktemp("workspace")
    source = base / "src"
    # A copy: colcon and setuptools write *.egg-info beside setup.py.
    ignore = shutil.ignore_patterns(
        ".*", "build", "install", "log", "out", "__pycache__", "*.egg-info"
    )
    shutil.copytree(ROOT, source, ignore=ignore)
    command = ["colcon", "--log-base", base / "log", "build", "--base-paths", source]
    command += [source / "sam2s_msgs", source / "training", "--build-base", base / "build"]
    command += ["--install-base", base / "install", "--packages-skip", "sam2s_msgs"]
    done = subprocess.run(command, cwd=base, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return base / "install"


@pytest.mark.ros
def test_colcon_installs_what_belongs_there(workspace):
    ros = workspace / "sam2s_ros"
    share = ros / "share" / "sam2s_ros"
    assert (ros / "share/ament_index/resource_index/packages/sam2s_ros").is_file()
    assert (share / "package.xml").is_file()
    for folder, pattern in (("config", "*.*"), ("launch", "*.launch.py")):
        installed = {path.name for path in (share / folder).glob("*")}
        assert installed == {path.name for path in (ROOT / folder).glob(pattern)}
    assert os.access(ros / "bin" / "sam2s", os.X_OK)
    for entry in executables():
        package = entry.dist.name if entry.dist else ""
        program = workspace / package / "lib" / package / entry.name
        assert os.access(program, os.X_OK), f"{program} is not there for `ros2 run`"
    site = next(ros.glob("**/*-packages"))
    top = {path.name for path in site.iterdir() if path.suffix != ".egg-info"}
    assert top == {"sam2s_model", "sam2s_ros"}, "neither tests nor scripts nor training"
    for kind in ("*.py", "*.npz", "*.safetensors", "*.json", "py.typed"):
        for path in (ROOT / "sam2s_model").rglob(kind):
            assert (site / path.relative_to(ROOT)).is_file(), f"{path} is not installed"
    training = workspace / "sam2s_training"
    assert (training / "share/ament_index/resource_index/packages/sam2s_training").is_file()
    assert next(training.glob("**/*-packages/sam2s_training/__init__.py")).is_file()


@pytest.mark.ros
def test_installed_workspace_runs(workspace):
    """`sam2s` is on the PATH and finds its commands and its shared files in the workspace."""
    code = "import sam2s_ros.dds as d, sam2s_training as t; print(d.profile_path(), t.__file__)"
    script = f"source {workspace}/setup.bash; command -v sam2s; sam2s doctor --help | head -1;"
    script += f" python -c '{code}'"
    done = subprocess.run(
        ["bash", "-c", script], cwd=workspace, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    command, usage, files = done.stdout.splitlines()
    assert command == f"{workspace}/sam2s_ros/bin/sam2s"
    assert usage.startswith("usage: sam2s doctor")
    profile, training = files.split()
    assert profile == f"{workspace}/sam2s_ros/share/sam2s_ros/config/fastdds.xml"
    assert training.startswith(f"{workspace}/sam2s_training/")
