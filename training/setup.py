"""The package sam2s_training, for colcon (ament_python) and for pip."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "sam2s_training"

setup(
    name=NAME,
    version="0.1.0",
    description="Training and evaluation of the sam2s tracker.",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[f"{NAME}*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/recipes", sorted(map(str, Path("recipes").glob("*.yaml")))),
    ],
    # Why each of these is needed: docs/dependencies.md.
    install_requires=[
        "matplotlib>=3.7",
        "numpy>=1.24",
        "opencv-python-headless>=4.8",
        "pillow>=9.4",
        "PyYAML>=6.0",
        "sam2s_ros",
        "setuptools",
        "tensorboard>=2.14",
        "torch>=2.4",
        "tqdm>=4.60",
    ],
    zip_safe=False,
)
