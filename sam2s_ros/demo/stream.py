"""Receives the endoscope's topics and keeps each frame with its truth."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from sam2s_model.classes import INSTRUMENTS
from sam2s_model.prompt import Prompt
from sam2s_msgs.msg import TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.conversions import image_to_labels, image_to_rgb
from sam2s_ros.demo.camera import NAMESPACE

MIN_AREA = 0.006  # of the picture: a smaller target is no fair first prompt
DEPTH = 10  # images that may wait while this process is busy
NOT_TARGETS = ("suturing needle", "thread")  # a box around them is mostly tissue


@dataclass(frozen=True)
class Frame:
    """One frame as received."""

    stamp: int  # nanoseconds
    image: NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class Target:
    """An instrument to track, and how it is pointed out."""

    name: str
    identity: int  # its value in the truth's label map
    class_name: str
    prompt: Prompt


class Stream(Node):
    """Subscribes to image and truth, and keeps them by stamp."""

    def __init__(self) -> None:
        super().__init__("demo", namespace=NAMESPACE)
        self.frames: dict[int, Frame] = {}
        self.labels: dict[int, NDArray[np.uint8]] = {}
        self.indices: dict[int, int] = {}  # stamp to the frame's number at the endoscope
        self.classes: dict[int, str] = {}
        self.last_arrival = time.monotonic()
        live = QoSProfile(depth=DEPTH, reliability=qos_profile_sensor_data.reliability)
        self.create_subscription(
            TrackedObjects, "ground_truth/objects", self._on_objects, QoSProfile(depth=50)
        )
        self.create_subscription(Image, "ground_truth/label_map", self._on_labels, live)

    def listen(self) -> None:
        """Receive images too; the endoscope begins when somebody does."""
        self.last_arrival = time.monotonic()
        live = QoSProfile(depth=DEPTH, reliability=qos_profile_sensor_data.reliability)
        self.create_subscription(Image, "image_raw", self._on_image, live)

    @property
    def published(self) -> int:
        """Frames that the endoscope has published since this began to listen, by its count."""
        if not self.frames:
            return 0
        first = min(self.frames)
        indices = [index for stamp, index in self.indices.items() if stamp >= first]
        return max(indices) - min(indices) + 1 if indices else 0

    def _on_image(self, message: Image) -> None:
        frame = Frame(_nanoseconds(message), image_to_rgb(message))
        self.last_arrival = time.monotonic()
        self.frames[frame.stamp] = frame

    def _on_labels(self, message: Image) -> None:
        self.labels[_nanoseconds(message)] = image_to_labels(message)

    def _on_objects(self, message: TrackedObjects) -> None:
        self.indices[_nanoseconds(message)] = message.frame_index
        self.classes = {entry.label_value: entry.class_name for entry in message.objects}


def choose_targets(labels: NDArray[np.uint8], classes: dict[int, str], count: int) -> list[Target]:
    """Pick the largest instruments in view, with their boxes as prompts; fewer if fewer are."""
    areas = np.bincount(labels.reshape(-1), minlength=256)
    seen = [
        identity
        for identity, name in classes.items()
        if name in INSTRUMENTS and name not in NOT_TARGETS
        and areas[identity] >= MIN_AREA * labels.size
    ]  # fmt: skip
    seen.sort(key=lambda identity: -int(areas[identity]))
    return [_target(labels == identity, identity, classes[identity]) for identity in seen[:count]]


def _target(mask: NDArray[np.bool_], identity: int, class_name: str) -> Target:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    return Target(f"{class_name} {identity}", identity, class_name, Prompt(box=box))


def _nanoseconds(message: Image | TrackedObjects) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
