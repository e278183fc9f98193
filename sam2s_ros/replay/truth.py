"""Ground truth of a bag: a topic of label maps, or a folder of masks with stamps."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.protocol import mask_box
from sam2s_model.metrics import region_similarity
from sam2s_model.prompt import Prompt
from sam2s_model.video import MASK_SUFFIX, read_mask
from sam2s_msgs.msg import TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.bags.reader import Bag, Message, decode, header_stamp, seconds
from sam2s_ros.conversions import image_to_labels
from sam2s_ros.replay.errors import TruthError

Ids = NDArray[np.int32]

LABEL_KIND = "sensor_msgs/msg/Image"
OBJECTS_KIND = "sam2s_msgs/msg/TrackedObjects"
OWN_NAME = "ground_truth/label_map"  # where the simulated endoscope publishes its truth
NO_TRUTH = "none"  # asked for instead of a topic: do not score
STAMPS_FILE = "stamps.csv"
KEPT = 100  # label maps held while their images have not come yet
LATE_NS = 1_000_000_000  # a label map is recorded at most so long after its image
SAME_MASK = 0.3  # overlap from which a target that was prompted beside everything is identified


class Truth(Protocol):
    """Annotations by stamp."""

    problems: list[str]

    @property
    def classes(self) -> Mapping[int, str]:
        """Class names of the instances, where they are known."""

    def at(self, stamp_ns: int, recorded_ns: int) -> Ids | None:
        """Instance ids (H, W) of the image with this stamp; None where it is not annotated."""

    def finish(self) -> None:
        """Note what was left over when all images have been read."""

    def describe(self) -> dict[str, object]:
        """What and where it is, as plain JSON values."""


class TopicTruth:
    """A topic of mono8 label maps, read along with the images."""

    def __init__(self, bag: Bag, topic: str, classes: Path | None = None) -> None:
        self._topic = bag.require(topic, [LABEL_KIND]).name
        self._messages = bag.messages(self._topic)
        self._kept: dict[int, bytes] = {}
        self._read_to = -1
        self.problems: list[str] = []
        self.classes = read_classes(classes) if classes else _classes_beside(bag, topic)

    def at(self, stamp_ns: int, recorded_ns: int) -> Ids | None:
        """Read on until the image's label map has come, or cannot come any more."""
        while stamp_ns not in self._kept and self._read_to <= recorded_ns + LATE_NS:
            message = next(self._messages, None)
            if message is None:
                break
            self._read_to = message.time_ns
            self._kept[header_stamp(message.data)] = message.data
            if len(self._kept) > KEPT:
                self._kept.pop(next(iter(self._kept)))
        data = self._kept.pop(stamp_ns, None)
        if data is None:
            return None
        try:
            message = Message(self._topic, LABEL_KIND, recorded_ns, data)
            return image_to_labels(decode(message, Image)).astype(np.int32)
        except Sam2sError as error:
            self.problems.append(f"{self._topic}: {error}; the frame was not scored")
            return None

    def finish(self) -> None:
        """A topic may well hold more than was asked for."""

    def describe(self) -> dict[str, object]:
        """Name the topic."""
        return {"topic": self._topic, "classes": {str(k): v for k, v in self.classes.items()}}


class FolderTruth:
    """A folder of masks named by stamp, or with a table of stamps beside them."""

    def __init__(self, folder: Path, classes: Path | None = None) -> None:
        self._folder = folder
        self._files = dict(_stamped(folder))
        if not self._files:
            raise TruthError(
                f"{folder} holds no masks by stamp: name them SECONDS.NANOSECONDS.png such as "
                f"1700000000.040000000.png, or write {STAMPS_FILE} with lines FILE,STAMP"
            )
        self._unused = set(self._files)
        self.problems: list[str] = []
        self.classes = read_classes(classes) if classes else {}

    def at(self, stamp_ns: int, recorded_ns: int) -> Ids | None:
        """Read the mask of this stamp, if there is one."""
        path = self._files.get(stamp_ns)
        if path is None:
            return None
        self._unused.discard(stamp_ns)
        try:
            return read_mask(path)
        except Sam2sError as error:
            self.problems.append(f"{error}; the frame was not scored")
            return None

    def finish(self) -> None:
        """Name masks whose stamp no image had."""
        if self._unused:
            some = ", ".join(seconds(stamp) for stamp in sorted(self._unused)[:3])
            self.problems.append(
                f"{self._folder}: {len(self._unused)} mask(s) have a stamp that no image has, "
                f"such as {some}"
            )

    def describe(self) -> dict[str, object]:
        """Name the folder."""
        return {
            "folder": str(self._folder),
            "classes": {str(k): v for k, v in self.classes.items()},
        }


def truth_topic(bag: Bag) -> str | None:
    """Find the simulated endoscope's truth, if the bag has it once."""
    found = [topic.name for topic in bag.of_kind(LABEL_KIND) if topic.name.endswith(OWN_NAME)]
    return found[0] if len(found) == 1 else None


def read_classes(path: Path) -> dict[int, str]:
    """Read names of the instances, {"1": "grasper"}."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {int(key): str(value) for key, value in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise TruthError(f'{path}: {error}; expected JSON, {{"1": "grasper"}}') from error


def prompted_instance(prompt: Prompt, truth: Ids) -> int | None:
    """Tell which instance of the truth a prompt means; None if it marks none."""
    if prompt.mask is not None:
        mask = np.asarray(prompt.mask)
        return best_instance(mask, truth) if mask.shape == truth.shape else None
    if prompt.points is not None:
        on = np.asarray(prompt.points)[np.asarray(prompt.labels) == 1].astype(int)
        inside = (on >= 0).all(1) & (on[:, 0] < truth.shape[1]) & (on[:, 1] < truth.shape[0])
        hits = truth[on[inside, 1], on[inside, 0]]
        hits = hits[hits > 0]
        if hits.size:
            return int(np.bincount(hits).argmax())
    if prompt.box is not None:
        box = np.asarray(prompt.box, np.float64)
        rated = [
            (_box_overlap(box, np.array(mask_box(truth == identity), np.float64)), int(identity))
            for identity in np.unique(truth)
            if identity
        ]
        overlap, identity = max(rated, default=(0.0, 0))
        return identity if overlap >= SAME_MASK else None
    return None


def best_instance(mask: NDArray[np.bool_], truth: Ids) -> int | None:
    """Tell which instance a mask is; None if it is none."""
    found = np.unique(truth[mask])
    rated = [(region_similarity(mask, truth == k), int(k)) for k in found if k]
    overlap, identity = max(rated, default=(0.0, 0))
    return identity if overlap >= SAME_MASK else None


def _box_overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared
    return float(shared / union)


def _classes_beside(bag: Bag, topic: str) -> dict[int, str]:
    """Take class names from the objects that are published beside a label map."""
    objects = f"{topic.rpartition('/')[0]}/objects"
    if objects not in bag.topics or bag.topics[objects].kind != OBJECTS_KIND:
        return {}
    for message in bag.messages(objects):
        said = decode(message, TrackedObjects)
        return {o.label_value: o.class_name for o in said.objects if o.class_name}
    return {}


def _stamped(folder: Path) -> Iterator[tuple[int, Path]]:
    if not folder.is_dir():
        raise TruthError(f"{folder}: there is no such folder of masks")
    table = folder / STAMPS_FILE
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                stamp = _stamp(row[1].strip()) if len(row) == 2 else None
                if stamp is not None:
                    yield stamp, folder / row[0].strip()
                elif number > 1:  # the first line may be a heading
                    raise TruthError(f"{table}, line {number}: expected FILE,STAMP, not {row}")
        return
    for path in sorted(folder.glob(f"*{MASK_SUFFIX}")):
        stamp = _stamp(path.stem)
        if stamp is not None:
            yield stamp, path


def _stamp(text: str) -> int | None:
    """Read seconds with nanoseconds, or nanoseconds alone."""
    if match := re.fullmatch(r"(\d+)[._](\d{9})", text):
        return int(match[1]) * 1_000_000_000 + int(match[2])
    return int(text) if re.fullmatch(r"\d{10,}", text) else None
