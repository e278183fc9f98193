"""The simulated endoscope over DDS: what it publishes, how fast, how it refuses and ends."""

from __future__ import annotations

import itertools
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from sam2s_model.synth import SurgicalScene
from sam2s_msgs.msg import TrackedObject, TrackedObjects
from sam2s_ros import endoscope_node
from sam2s_ros.conversions import image_to_labels, image_to_rgb, rle_to_mask
from sam2s_ros.endoscope_settings import SETTINGS

pytestmark = pytest.mark.ros

MODULE = "sam2s_ros.endoscope_node"
SMALL = {"width": 160, "height": 128}


def arguments(**parameters: object) -> list[str]:
    named = {**SMALL, **parameters}
    options = [["-p", f"{name}:={str(value).lower()}"] for name, value in named.items()]
    return ["--ros-args", *itertools.chain(*options)]


class Viewer(Node):
    """Keeps all that the endoscope publishes, by stamp."""

    def __init__(self, context, qos=qos_profile_sensor_data) -> None:
        super().__init__("viewer", context=context)
        self.images: dict[tuple[int, int], Image] = {}
        self.labels: dict[tuple[int, int], Image] = {}
        self.objects: dict[tuple[int, int], TrackedObjects] = {}
        self.cameras: dict[tuple[int, int], CameraInfo] = {}
        # The image last: the endoscope waits for its subscriber.
        for kind, topic, kept, profile in (
            (TrackedObjects, "ground_truth/objects", self.objects, QoSProfile(depth=50)),
            (Image, "ground_truth/label_map", self.labels, qos),
            (CameraInfo, "camera_info", self.cameras, qos),
            (Image, "image_raw", self.images, qos),
        ):
            self.create_subscription(kind, topic, self._keeper(kept), profile)

    @staticmethod
    def _keeper(kept):
        def keep(message) -> None:
            stamp = message.header.stamp
            kept[stamp.sec, stamp.nanosec] = message

        return keep

    def complete(self) -> list[tuple[int, int]]:
        """Stamps that all four topics have."""
        kept = (self.images, self.labels, self.objects, self.cameras)
        return sorted(set.intersection(*(set(part) for part in kept)))

    def call(self, service, name: str, request, spin_until):
        """Call one of the endoscope's parameter services."""
        client = self.create_client(service, f"/endoscope/{name}")
        assert client.wait_for_service(20.0)
        answer = client.call_async(request)
        spin_until(self, answer.done, 20.0)
        return answer.result()


@pytest.fixture
def viewer(ros_context):
    node = Viewer(ros_context)
    yield node
    node.destroy_node()


def test_image_and_truth_are_the_scene_with_one_stamp(ros_process, viewer, spin_until):
    ros_process(MODULE, *arguments(
        seed=5, rate=10.0, encoding="bgr8", reliability="reliable", frame_id="scope_left",
        wait_for_subscriber=True,
    ))  # fmt: skip
    spin_until(viewer, lambda: len(viewer.complete()) >= 5, 60.0)
    scene = SurgicalScene(5, 160, 128, fps=10.0)
    for stamp in viewer.complete()[:5]:
        messages = [kept[stamp] for kept in (viewer.images, viewer.labels, viewer.cameras)]
        objects = viewer.objects[stamp]
        assert {m.header.frame_id for m in (*messages, objects)} == {"scope_left"}
        assert messages[0].encoding == "bgr8"
        assert (messages[2].width, messages[2].height) == (160, 128)
        # Nothing is dropped, so the count of published frames is the scene's frame number.
        shot = scene.render(objects.frame_index)
        assert np.array_equal(image_to_rgb(messages[0]), shot.image)
        assert np.array_equal(image_to_labels(messages[1]), shot.masks)
        check_objects(objects, shot)


def check_objects(objects: TrackedObjects, shot) -> None:
    assert {o.label_value: o.class_name for o in objects.objects} == shot.classes
    for entry in objects.objects:
        truth = shot.masks == entry.label_value
        assert np.array_equal(rle_to_mask(entry.mask), truth)
        assert entry.area == truth.sum()
        if not entry.area:
            assert entry.state == TrackedObject.STATE_OCCLUDED
            assert np.isnan(entry.centroid.x)
            continue
        ys, xs = np.nonzero(truth)
        assert entry.state == TrackedObject.STATE_TRACKING
        box = (entry.box.x0, entry.box.y0, entry.box.x1, entry.box.y1)
        assert box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert entry.centroid.x == pytest.approx(xs.mean() + 0.5, rel=1e-5)
        assert entry.centroid.y == pytest.approx(ys.mean() + 0.5, rel=1e-5)


@pytest.mark.serial
def test_rate_is_kept_and_the_loop_repeats(ros_process, viewer, spin_until):
    """A short loop is rendered once, so that a slow machine can keep the rate too."""
    ros_process(MODULE, *arguments(rate=20.0, loop=4, ahead=20, wait_for_subscriber=True))
    spin_until(viewer, lambda: len(viewer.images) >= 1, 60.0)
    spin_until(viewer, lambda: len(viewer.images) >= 61, 10.0)
    stamps = [seconds + nanoseconds * 1e-9 for seconds, nanoseconds in sorted(viewer.images)]
    assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) == pytest.approx(20.0, rel=0.05)
    check_grid(viewer.images, 20.0)
    pictures = [bytes(viewer.images[stamp].data) for stamp in sorted(viewer.images)]
    assert len(set(pictures)) == 4
    assert all(pictures[i] == pictures[i + 4] for i in range(len(pictures) - 4))


def check_grid(stamps, rate: float) -> None:
    """Stamps rise by whole intervals, but where the grid moved back because it began late."""
    times = np.array([seconds * 10**9 + nanoseconds for seconds, nanoseconds in sorted(stamps)])
    steps = np.diff(times) * rate / 1e9
    assert steps.min() > 0
    assert (np.abs(steps - steps.round()) < 1e-4).mean() > 0.8
    # All in all it can move by no more than the first tick's lateness, which is below an interval.
    span = (times[-1] - times[0]) * rate / 1e9
    assert steps.round().sum() - span < 1


def test_drop_leaves_frames_out_and_can_change(ros_process, viewer, spin_until):
    process = ros_process(MODULE, *arguments(rate=40.0, loop=7, ahead=7, drop=0.5))
    spin_until(viewer, lambda: len(viewer.objects) >= 60, 60.0)
    # What is dropped is not counted as published.
    indices = sorted(message.frame_index for message in viewer.objects.values())
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    check_grid(viewer.objects, 40.0)

    def change(name: str, value: ParameterValue):
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        return viewer.call(SetParameters, "set_parameters", request, spin_until).results[0]

    all_of_it = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1.0)
    too_much = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1.5)
    number = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=3)
    assert "out of range" in change("drop", too_much).reason
    assert "read-only" in change("seed", number).reason
    assert change("drop", all_of_it).successful
    before = len(viewer.objects)
    until = time.monotonic() + 1.0
    spin_until(viewer, lambda: time.monotonic() > until, 5.0)
    assert len(viewer.objects) <= before + 2
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    counted = re.search(r"published (\d+) frames, dropped (\d+) on purpose", process.output())
    assert counted is not None
    published, dropped = map(int, counted.groups())
    assert published >= 60
    assert dropped >= 0.25 * published


def test_every_parameter_is_described_and_shown_in_the_file(
    ros_process, viewer, spin_until, ros_env
):
    ros_process(MODULE, *arguments(rate=1.0))
    names = [setting.name for setting in SETTINGS]
    request = DescribeParameters.Request(names=names)
    answer = viewer.call(DescribeParameters, "describe_parameters", request, spin_until)
    described = {d.name: d for d in answer.descriptors}
    assert all(described[name].description for name in names)
    assert {name for name in names if not described[name].read_only} == {"drop"}
    bounds = described["width"].integer_range[0]
    assert (bounds.from_value, bounds.to_value) == (32, 4096)
    path = Path(__file__).resolve().parents[2] / "config" / "endoscope.yaml"
    shown = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    assert shown == {setting.name: setting.default for setting in SETTINGS}


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"width": 5}, r"'width' was refused: it must be a whole number in 32…4096"),
        (
            {"rate": 10},
            r"'rate' was refused: .* number in 0…240 \(write 10.0, not 10\)",
        ),
        ({"encoding": "mono8"}, r"'encoding' is 'mono8'; it must be one of rgb8, bgr8"),
        ({"reliability": "maybe"}, r"'reliability' is 'maybe'; it must be one of best_effort, "),
        ({"instruments": "hook, spoon"}, r"no instrument 'spoon'; there are grasper"),
        ({"transport": "avif"}, r"'transport' is 'avif'; it must be one of raw, compressed, both"),
        ({"side": "up"}, r"'side' is 'up'; it must be one of mono, left, right"),
        ({"rate": 0.0}, r"`rate` is 0; the simulator has no rate of its own"),
        ({"loop": -1}, r"`loop` is -1, but the simulator has no end"),
        ({"bounce": True}, r"`bounce` plays what is prerendered; set `prerender` too"),
        ({"prerender": 4, "loop": 5}, r"`prerender` is 4 .* but `loop` is 5; leave `loop` at 0"),
        (
            {"prerender": 100_000, "width": 4096, "height": 4096},
            r"100000 prerendered frames of 4096×4096 take 6\d{3}\.\d GB, .* at most \d+ will do",
        ),
        ({"masks": "here"}, r"`masks` and `classes` belong to a `source`"),
        ({"source": "/nowhere.mp4"}, r"'/nowhere\.mp4' does not exist; give a video file"),
        ({"source": "/etc/hostname"}, r"'/etc/hostname' is no folder and no video"),
    ],
)
def test_bad_parameters_are_refused_with_a_sentence(
    parameters, sentence, ros_env, monkeypatch, capfd
):
    for name, value in ros_env.items():
        monkeypatch.setenv(name, value)
    assert endoscope_node.run(arguments(**parameters)) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("endoscope: ")]
    assert len(said) == 1
    assert re.search(sentence, said[0])


def test_refusal_is_the_exit_code_of_the_process(ros_process):
    process = ros_process(MODULE, "--ros-args", "-p", "loop:=-2")
    assert process.wait(60.0) == 2
    assert "'loop' was refused: it must be a whole number" in process.output()
    assert "Traceback" not in process.output()


@pytest.mark.serial
def test_sigterm_while_the_scene_is_made_ends_it_within_two_seconds(ros_process):
    process = ros_process(MODULE, *arguments(width=640, height=512))
    process.wait_for("scene 7", 60.0)
    process.signal(signal.SIGTERM)
    assert process.wait(2.0) == 0
    assert "published 0 frames" in process.output()
    assert "Traceback" not in process.output()


@pytest.mark.serial
def test_a_slow_machine_is_told_once_and_sigint_ends_it(ros_process, viewer, spin_until):
    process = ros_process(MODULE, *arguments(width=320, height=256, rate=240.0, ahead=4))
    process.wait_for("too slow for 240 Hz: a frame takes", 60.0)
    until = time.monotonic() + 3.0
    spin_until(viewer, lambda: time.monotonic() > until, 5.0)
    assert process.output().count("too slow") == 1
    # No frame was late: each is stamped when it is sent, and none waited in a growing queue.
    assert 1 <= len(viewer.images) < 240 * 3
    process.signal(signal.SIGINT)
    assert process.wait(2.0) == 0
    assert re.search(r"[1-9]\d* times no frame was ready", process.output())
    assert "Traceback" not in process.output()
