"""The endoscope over DDS: prerendered loops, jpeg, the right eye, and files with their truth."""

from __future__ import annotations

import array
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sam2s_model.synth import SurgicalScene
from sam2s_model.video import write_mask, write_video
from sam2s_msgs.msg import TrackedObjects
from sam2s_ros import endoscope_node
from sam2s_ros.conversions import image_to_labels, image_to_rgb
from sam2s_ros.endoscope_node import EndoscopeNode
from sam2s_ros.endoscope_sources import SimulatedSource
from sam2s_ros.ground_truth import nominal_camera
from sam2s_ros.image_plane import ImagePlane

pytestmark = pytest.mark.ros

MODULE = "sam2s_ros.endoscope_node"
HEIGHT, WIDTH = 64, 96


def arguments(**parameters: object) -> list[str]:
    options = [part for k, v in parameters.items() for part in ("-p", f"{k}:={str(v).lower()}")]
    return ["--ros-args", *options]


class Viewer(Node):
    """Keeps all that the endoscope publishes, in the order in which it arrives."""

    def __init__(self, context) -> None:
        super().__init__("viewer", context=context)
        self.kept: dict[str, list] = {}
        sure = QoSProfile(depth=50)
        for name, kind, topic, profile in (
            ("objects", TrackedObjects, "ground_truth/objects", sure),
            ("labels", Image, "ground_truth/label_map", sure),
            ("camera", CameraInfo, "camera_info", sure),
            ("jpeg", CompressedImage, "image_raw/compressed", sure),
            ("image", Image, "image_raw", sure),
        ):
            self.kept[name] = []
            self.create_subscription(kind, topic, self.kept[name].append, profile)


@pytest.fixture
def viewer(ros_context):
    node = Viewer(ros_context)
    yield node
    node.destroy_node()


def stamps(messages) -> list[int]:
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def picture(number: int) -> np.ndarray:
    """A smooth picture whose green says which one it is."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[:, :, 1] = 30 + 20 * number
    return image


def number_of(message) -> int:
    return round((float(image_to_rgb(message)[:, :, 1].mean()) - 30) / 20)


def test_prerendered_frames_play_to_and_fro_in_both_transports(ros_process, viewer, spin_until):
    process = ros_process(MODULE, *arguments(
        seed=5, width=128, height=96, rate=20.0, prerender=4, bounce=True, workers=2,
        transport="both", jpeg_quality=95, reliability="reliable", side="right", disparity=16,
    ))  # fmt: skip
    kept = viewer.kept
    spin_until(viewer, lambda: min(map(len, kept.values())) >= 14, 90.0)
    source = SimulatedSource(5, 128, 96, 20.0, side="right", disparity=16)
    known = [source.frame(n) for n in range(4)]
    shown = []
    jpegs = dict(zip(stamps(kept["jpeg"]), kept["jpeg"], strict=True))
    labels = dict(zip(stamps(kept["labels"]), kept["labels"], strict=True))
    for stamp, image in zip(stamps(kept["image"])[:14], kept["image"], strict=False):
        rgb = image_to_rgb(image)
        matching = [n for n, frame in enumerate(known) if np.array_equal(frame.image, rgb)]
        assert len(matching) == 1
        shown.append(matching[0])
        if stamp in jpegs:
            assert jpegs[stamp].format == "rgb8; jpeg compressed bgr8"
            assert np.abs(image_to_rgb(jpegs[stamp]).astype(int) - rgb).mean() < 6
        if stamp in labels:
            assert np.array_equal(image_to_labels(labels[stamp]), known[matching[0]].ids)
    order = [0, 1, 2, 3, 2, 1] * 4
    begin = next(k for k in range(6) if order[k : k + 2] == shown[:2])
    assert shown == order[begin : begin + len(shown)]
    assert len(set(stamps(kept["image"])) & set(jpegs) & set(labels)) >= 10
    # The right eye's projection is shifted by the disparity at the plane's distance.
    camera = kept["camera"][0]
    plain = nominal_camera(128, 96)
    assert list(camera.k) == list(plain.k)
    assert camera.p[3] == pytest.approx(-16 * ImagePlane().distance)
    assert camera.p[0] == plain.p[0]
    assert "no frame was ready" not in process.output()


def test_only_jpeg_is_published_if_asked(ros_process, viewer, spin_until):
    ros_process(MODULE, *arguments(
        seed=5, width=128, height=96, rate=20.0, prerender=2, transport="compressed",
        reliability="reliable", wait_for_subscriber=True,
    ))  # fmt: skip
    spin_until(viewer, lambda: len(viewer.kept["jpeg"]) >= 3, 60.0)
    shot = SurgicalScene(5, 128, 96, fps=20.0).render(0)
    assert np.abs(image_to_rgb(viewer.kept["jpeg"][0]).astype(int) - shot.image).mean() < 6
    assert viewer.kept["image"] == []
    assert viewer.count_publishers("image_raw") == 0


def test_a_video_plays_at_its_own_rate_and_ends_the_node(ros_process, viewer, spin_until, tmp_path):
    video, masks = tmp_path / "clip.mp4", tmp_path / "masks"
    write_video(video, [picture(n) for n in range(8)], fps=12.5)
    masks.mkdir()
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    ids[10:20, 30:50] = 3
    write_mask(masks / "00002.png", ids)
    (tmp_path / "classes.json").write_text('{"3": "grasper"}')
    process = ros_process(MODULE, *arguments(
        source=video, masks=masks, classes=tmp_path / "classes.json", rate=0.0, ahead=3,
        reliability="reliable", frame_id="scope", wait_for_subscriber=True,
    ))  # fmt: skip
    kept = viewer.kept
    spin_until(viewer, lambda: len(kept["image"]) == 8, 60.0)
    assert process.wait() == 0
    assert "the source has ended; set `loop` to play it again" in process.output()
    assert "published 8 frames" in process.output()
    assert [number_of(image) for image in kept["image"]] == list(range(8))
    assert {image.header.frame_id for image in kept["image"]} == {"scope"}
    intervals = np.diff(stamps(kept["image"])) / 1e9
    assert np.median(intervals) == pytest.approx(0.08, abs=1e-4)
    assert (kept["camera"][0].height, kept["camera"][0].width) == (HEIGHT, WIDTH)
    # Truth is published for the one frame that has a mask.
    assert stamps(kept["labels"]) == stamps(kept["objects"]) == [stamps(kept["image"])[2]]
    assert np.array_equal(image_to_labels(kept["labels"][0]), ids)
    (entry,) = kept["objects"][0].objects
    assert (entry.label_value, entry.class_name, entry.area) == (3, "grasper", 200)


def folder_of_pictures(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(count):
        cv2.imwrite(str(path / f"{number:03d}.png"), picture(number)[:, :, ::-1])
    return path


def test_a_folder_begins_again_at_its_end_and_may_change_size(
    ros_process, viewer, spin_until, tmp_path
):
    folder = folder_of_pictures(tmp_path / "pictures", 3)
    cv2.imwrite(str(folder / "001.png"), picture(1)[:32, :64, ::-1])
    ros_process(MODULE, *arguments(
        source=folder, rate=20.0, loop=-1, reliability="reliable", encoding="bgr8",
    ))  # fmt: skip
    kept = viewer.kept
    spin_until(viewer, lambda: min(len(kept["image"]), len(kept["camera"])) >= 10, 60.0)
    shown = [number_of(image) for image in kept["image"]]
    assert shown == [(shown[0] + k) % 3 for k in range(len(shown))]
    sizes = {True: (32, 64), False: (HEIGHT, WIDTH)}
    cameras = dict(zip(stamps(kept["camera"]), kept["camera"], strict=True))
    for stamp, number, image in zip(stamps(kept["image"]), shown, kept["image"], strict=True):
        assert (image.height, image.width) == sizes[number == 1]
        if stamp in cameras:
            assert (cameras[stamp].height, cameras[stamp].width) == sizes[number == 1]
    assert kept["labels"] == kept["objects"] == []


def test_files_are_shown_without_torch(ros_env):
    """It takes seconds to import, and memory that a camera does not need."""
    code = "import sam2s_ros.endoscope_node, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=ros_env, check=True, timeout=60)


def test_a_damaged_picture_ends_the_node_and_is_named(ros_process, tmp_path):
    folder = folder_of_pictures(tmp_path / "pictures", 3)
    (folder / "002.png").write_bytes(array.array("B", [7] * 99).tobytes())
    process = ros_process(MODULE, *arguments(source=folder, rate=20.0))
    assert process.wait(60.0) == 1
    assert "no more frames: " in process.output()
    assert "002.png (frame 2): no readable picture" in process.output()
    assert "Traceback" not in process.output()


def test_a_signal_in_the_middle_of_a_tick_ends_it_cleanly(ros_env, monkeypatch, capfd):
    """A signal closes the middleware under whatever the node is doing, here publishing."""
    for name, value in ros_env.items():
        monkeypatch.setenv(name, value)
    publish = EndoscopeNode._publish

    def interrupted(node, frame, stamp_ns) -> None:
        rclpy.shutdown()
        publish(node, frame, stamp_ns)

    monkeypatch.setattr(EndoscopeNode, "_publish", interrupted)
    assert endoscope_node.run(arguments(width=64, height=48, rate=50.0, prerender=1)) == 0
    said = capfd.readouterr()
    assert "endoscope: published 1 frames" in said.out
    assert "Traceback" not in said.err
