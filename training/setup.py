"""The package sam2s_training, for colcon (ament_python) and for pip."""

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
    ],
    install_requires=["sam2s_ros", "setuptools"],
    zip_safe=False,
)
