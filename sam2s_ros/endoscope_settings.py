"""The endoscope node's parameters; config/endoscope.yaml shows the same list with its defaults."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from sam2s_ros.compressed import JPEG_QUALITY
from sam2s_ros.conversions import OUTPUT_ENCODINGS
from sam2s_ros.endoscope_sources import SIDES
from sam2s_ros.settings import RELIABILITIES, Setting, declare_all

TRANSPORTS = ("raw", "compressed", "both")


SETTINGS = (
    Setting("source", "", "a video file or a folder of pictures; empty: the simulator"),
    Setting("masks", "", "a folder of instance masks for `source`, by frame number or file name"),
    Setting("classes", "", 'JSON file {"1": "grasper"} that names the instances of `masks`'),
    Setting("seed", 7, "which operation is simulated; the same seed, the same video", 0, 2**31),
    Setting("width", 640, "pixels of the simulator; files keep their size", 32, 4096),
    Setting("height", 512, "pixels of the simulator; files keep their size", 32, 4096),
    Setting("instruments", "", "classes of the instruments, comma-separated; empty: by seed"),
    Setting("side", "mono", "which eye of a stereo endoscope this one is", choices=SIDES),
    Setting("disparity", 24, "pixels between what the two eyes see", 0, 512),
    Setting(
        "rate", 25.0, "frames per second, of the scene's time and of the topics; 0: a video's own",
        0.0, 240.0,
    ),
    Setting("frame_id", "endoscope", "in the header of every message"),
    Setting("encoding", "rgb8", "of image_raw", choices=OUTPUT_ENCODINGS),
    Setting(
        "transport", "raw", "publish image_raw, image_raw/compressed (jpeg), or both",
        choices=TRANSPORTS,
    ),
    Setting("jpeg_quality", JPEG_QUALITY, "of image_raw/compressed", 1, 100),
    Setting(
        "reliability", "best_effort", "of images, labels and camera_info", None, None,
        tuple(RELIABILITIES),
    ),
    Setting(
        "loop", 0, "frames after which the video begins again; 0: never, -1: at a file's end",
        -1, 10**9,
    ),
    Setting("drop", 0.0, "share of frames left out on purpose", 0.0, 1.0, live=True),
    Setting(
        "prerender", 0,
        "frames made before the first is published, then played in a loop; 0: made while playing",
        0, 100_000,
    ),
    Setting("bounce", False, "play what is prerendered forwards and backwards in turn"),
    Setting("ahead", 8, "frames made before the first is published, and kept ready", 1, 2000),
    Setting("ahead_wait", 30.0, "seconds after which fewer frames ahead will do", 0.0, 3600.0),
    Setting("workers", 1, "frames made at once, each on a processor core", 1, 64),
    Setting("start_delay", 0.0, "seconds from the node's start to the first frame", 0.0, 3600.0),
    Setting("wait_for_subscriber", False, "publish nothing until someone wants the images"),
)  # fmt: skip


def declare(node: Node) -> dict[str, Any]:
    """Declare every parameter and return the values, or say which one cannot be."""
    return declare_all(node, SETTINGS)
