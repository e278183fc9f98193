"""The bench's camera: publishes prerendered frames at an exact rate, after marking the targets.

Run as `python -m sam2s_ros.bench.source`. The first frame stands still until the targets are
marked on it; then the clip plays to and fro, and what is published is written down.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from tqdm import tqdm

from sam2s_model.errors import Sam2sError
from sam2s_model.synth import SurgicalScene
from sam2s_ros.client import RosClient
from sam2s_ros.conversions import rgb_to_image
from sam2s_ros.demo.stream import choose_targets
from sam2s_ros.tracker_client import TrackerClient
from sam2s_ros.turns import take_short_turns

SEED = 8  # of a scene whose first frame shows two instruments
RENDERED = (640, 512)  # pixels; other sizes are scaled from it, because rendering takes long
CLIP = 24  # frames; played to and fro
MARK_SECONDS = 60.0  # for the tracker to take its prompts
LINGER_SECONDS = 1.0  # after the last frame, so that its result can arrive


class SourceError(Sam2sError):
    """The camera of a bench could not do its part."""


def render(width: int, height: int, encoding: str, targets: int) -> tuple[list[Image], list[Any]]:
    """Render the clip as messages, and choose targets on its first frame, with boxes."""
    scene = SurgicalScene(SEED, *RENDERED)
    messages = []
    first: NDArray[np.uint8] | None = None
    for number in tqdm(range(CLIP), desc=f"{width}x{height}: rendering", leave=False):
        shot = scene.render(number)
        if first is None:
            first = np.asarray(
                cv2.resize(shot.masks, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        picture = np.asarray(cv2.resize(shot.image, (width, height)), np.uint8)
        messages.append(rgb_to_image(picture, encoding=encoding))
    assert first is not None
    chosen = choose_targets(first, scene.classes, targets)
    if len(chosen) < targets:
        raise SourceError(f"the first frame shows {len(chosen)} instruments; ask for that many")
    return messages, chosen


class Camera(threading.Thread):
    """Publishes at a rate until stopped; the stamp is the time just before publishing."""

    def __init__(self, ros: RosClient, topic: str, rate: float, messages: list[Image]) -> None:
        super().__init__(name="camera", daemon=True)
        # To and fro, so that nothing jumps where the clip begins again.
        self._messages = [*messages, *messages[-2:0:-1]]
        self._rate = rate
        live = QoSProfile(depth=5, reliability=qos_profile_sensor_data.reliability)
        self.publisher: Any = ros.node.create_publisher(Image, topic, live)
        self.moving = threading.Event()
        self.stamps: list[int] = []  # nanoseconds, of frames since `record`
        self._recording = self._ended = False

    def run(self) -> None:
        """Publish frame after frame on an absolute schedule."""
        number, due = 0, time.monotonic()
        while not self._ended:
            message = self._messages[number % len(self._messages)]
            stamp = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            message.header.frame_id = "bench"
            if self._recording:
                self.stamps.append(stamp)
            self.publisher.publish(message)
            number += self.moving.is_set()
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))

    def record(self, on: bool) -> None:
        """Begin or end writing down what is published."""
        self._recording = on

    def stop(self) -> None:
        """Publish nothing more."""
        self._ended = True
        self.join()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Play the part of the camera; returns the stamps and the names of the targets."""
    messages, targets = render(args.width, args.height, args.encoding, args.targets)
    with RosClient("bench_camera") as ros:
        tracker = TrackerClient(ros, args.tracker, MARK_SECONDS)
        camera = Camera(ros, args.topic, args.rate, messages)
        if not ros.spin_until(lambda: camera.publisher.get_subscription_count() > 0, MARK_SECONDS):
            raise SourceError(f"nobody subscribed to {args.topic} within {MARK_SECONDS:g} s")
        camera.start()
        try:
            for target in targets:
                tracker.set_target(target.name, box=target.prompt.box)
            camera.moving.set()
            _wait(args.warmup, f"{args.title}: warming up")  # memories fill
            camera.record(True)
            _wait(args.seconds, f"{args.title}: measuring")
            camera.record(False)
            time.sleep(LINGER_SECONDS)
        finally:
            camera.stop()
    return {"stamps": camera.stamps, "targets": [target.name for target in targets]}


def _wait(seconds: float, title: str) -> None:
    """Sleep, with a bar that is drawn once a second."""
    end = time.monotonic() + seconds
    with tqdm(total=round(seconds), desc=title, unit="s", leave=False) as bar:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            bar.update(min(1, bar.total - bar.n))


def main() -> int:
    """Run as a process; 2 with a sentence if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m sam2s_ros.bench.source", description=__doc__)
    for name, kind in (("width", int), ("height", int), ("targets", int), ("rate", float),
                       ("seconds", float), ("warmup", float), ("encoding", str), ("topic", str),
                       ("tracker", str), ("title", str), ("out", Path)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, required=True)
    args = parser.parse_args()
    take_short_turns()
    try:
        args.out.write_text(json.dumps(run(args)))
    except Sam2sError as error:
        print(f"bench camera: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
