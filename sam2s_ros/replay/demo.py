"""Makes a bag of the simulated endoscope, with its truth and a prompts file that fits."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from std_msgs.msg import Header
from tqdm import tqdm

from sam2s_model.classes import INSTRUMENTS
from sam2s_model.evaluation.protocol import first_prompt
from sam2s_model.synth import Shot, SurgicalScene
from sam2s_ros.bags.writer import BagWriter, Compression, Storage, qos
from sam2s_ros.compressed import rgb_to_compressed
from sam2s_ros.conversions import labels_to_image, rgb_to_image
from sam2s_ros.ground_truth import nominal_camera, true_objects
from sam2s_ros.replay.errors import ReplayError

PROMPTS_FILE = "prompts.yaml"
IMAGE, COMPRESSED = "/endoscope/image_raw", "/endoscope/image_raw/compressed"
CAMERA = "/endoscope/camera_info"
LABELS, OBJECTS = "/endoscope/ground_truth/label_map", "/endoscope/ground_truth/objects"
BEGIN_NS = 1_700_000_000_000_000_000  # of the first image: a fixed one, so that bags are the same
ENOUGH = 0.004  # share of the picture from which an instrument can be clicked on
SETTLED = 5  # frames in a row that it must have that size


@dataclass(frozen=True)
class DemoSettings:
    """What is recorded."""

    seconds: float = 60.0
    seed: int = 7
    width: int = 640  # pixels
    height: int = 512  # pixels
    rate: float = 25.0  # frames a second
    raw: bool = False  # images as they are, instead of jpeg: ten times the size
    storage: Storage = "sqlite3"
    # Label maps shrink to a hundredth, and `ros2 bag play` undoes it on the fly.
    compression: Compression = "message"


def record_demo(path: Path, settings: DemoSettings, show_progress: bool = True) -> dict[str, Any]:
    """Write the bag; returns what is in it. The same settings give the same bytes."""
    frames = round(settings.seconds * settings.rate)
    if frames < 1:
        raise ReplayError(f"{settings.seconds:g} s at {settings.rate:g} Hz are no frame")
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = SurgicalScene(settings.seed, settings.width, settings.height, fps=settings.rate)
    camera = nominal_camera(settings.width, settings.height)
    image_topic = IMAGE if settings.raw else COMPRESSED
    prompts = _Prompts(scene.classes)
    with BagWriter(path, settings.storage, settings.compression) as bag:
        shots = tqdm(
            _shots(scene, frames), total=frames, unit="frame", disable=not show_progress,
            desc="rendering",
        )  # fmt: skip
        for number, shot in enumerate(shots):
            stamp_ns = BEGIN_NS + round(number * 1e9 / settings.rate)
            header = Header(frame_id="endoscope")
            header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            camera.header = header
            objects = true_objects(shot.masks, shot.classes)
            objects.header, objects.frame_index = header, number
            encode = rgb_to_image if settings.raw else rgb_to_compressed
            if not number:
                sensor = (qos(5, reliable=False),)
                bag.add_topic(image_topic, type(encode(shot.image, header)), sensor)
                bag.add_topic(CAMERA, type(camera), sensor)
            bag.write(image_topic, encode(shot.image, header), stamp_ns)
            bag.write(CAMERA, camera, stamp_ns)
            bag.write(LABELS, labels_to_image(shot.masks, header), stamp_ns)
            bag.write(OBJECTS, objects, stamp_ns)
            prompts.see(number, shot)
        bag.add_file(PROMPTS_FILE, prompts.text())
    return {
        "frames": frames, "image": image_topic, "labels": LABELS, "targets": len(prompts.entries)
    }  # fmt: skip


def _shots(scene: SurgicalScene, frames: int) -> Iterator[Shot]:
    """Render in order, several frames at once."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one a frame: for pictures of this size more wait for each other
    coming: deque[Future[Shot]] = deque()
    workers = max(1, os.cpu_count() or 1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            numbers = iter(range(frames))
            for number in numbers:
                coming.append(pool.submit(scene.render, number))
                if len(coming) > workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
    finally:
        torch.set_num_threads(threads)


class _Prompts:
    """One click on each instrument, once it has been in good view for a moment."""

    def __init__(self, classes: dict[int, str]) -> None:
        self._waiting = {k: name for k, name in classes.items() if name in INSTRUMENTS}
        self._seen = dict.fromkeys(self._waiting, 0)
        self.entries: list[str] = []

    def see(self, number: int, shot: Shot) -> None:
        for identity, name in list(self._waiting.items()):
            mask = shot.masks == identity
            enough = np.count_nonzero(mask) >= ENOUGH * mask.size
            self._seen[identity] = self._seen[identity] + 1 if enough else 0
            # What is there from the start is prompted on the first frame.
            if enough and (number == 0 or self._seen[identity] >= SETTLED):
                prompt, _ = first_prompt("click1", mask)
                assert prompt.points is not None
                (x, y), *_ = np.asarray(prompt.points).tolist()
                target = f"{name.replace(' ', '-')}-{identity}"
                self.entries.append(
                    f"  - {{frame: {number}, name: {target}, points: [[{x:g}, {y:g}]], "
                    f"labels: [1], truth: {identity}}}"
                )
                del self._waiting[identity]

    def text(self) -> str:
        if not self.entries:
            raise ReplayError(
                "no instrument comes into view in this demonstration: record more seconds, or "
                "choose another --seed"
            )
        head = "# Made by `sam2s record-demo`; docs/replay.md describes this format.\nprompts:\n"
        return head + "\n".join(self.entries) + "\n"
