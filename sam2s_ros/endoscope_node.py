"""Node `endoscope`: the simulated endoscope as a camera, with its ground truth beside it."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import queue
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

import rclpy
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from sam2s_model.errors import Sam2sError
from sam2s_model.synth import Shot, SurgicalScene
from sam2s_msgs.msg import TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.conversions import OUTPUT_ENCODINGS, labels_to_image, rgb_to_image
from sam2s_ros.dds import use_profile
from sam2s_ros.ground_truth import nominal_camera, true_objects

RELIABILITIES = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}
KEPT_LOOP = 256 << 20  # bytes: a loop up to this size is rendered once and then kept
WARN_EVERY = 10.0  # seconds between warnings that the machine is too slow
STOP_SECONDS = 1.0  # for the frame that is being rendered when the node ends


class EndoscopeError(Sam2sError):
    """A parameter that the endoscope cannot work with, or a renderer that failed."""


class _Setting(NamedTuple):
    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False  # may change while the node runs


# Every parameter; config/endoscope.yaml shows the same list with the same defaults.
SETTINGS = (
    _Setting("seed", 7, "which operation is seen; the same seed gives the same video", 0, 2**31),
    _Setting("width", 640, "pixels", 32, 4096),
    _Setting("height", 512, "pixels", 32, 4096),
    _Setting("rate", 25.0, "frames per second, of the scene's time and of the topics", 0.1, 240.0),
    _Setting("instruments", "", "classes of the instruments, comma-separated; empty: by seed"),
    _Setting("frame_id", "endoscope", "in the header of every message"),
    _Setting("encoding", "rgb8", "of image_raw", choices=OUTPUT_ENCODINGS),
    _Setting(
        "reliability", "best_effort", "of images, labels and camera_info", None, None,
        tuple(RELIABILITIES),
    ),
    _Setting("loop", 0, "frames after which the video begins again; 0: never", 0, 10**9),
    _Setting("drop", 0.0, "share of frames left out on purpose", 0.0, 1.0, live=True),
    _Setting("ahead", 8, "frames rendered before the first is published, and kept ready", 1, 2000),
    _Setting("ahead_wait", 30.0, "seconds after which fewer frames ahead will do", 0.0, 3600.0),
    _Setting("workers", 1, "frames rendered at once, each on a processor core", 1, 64),
    _Setting("start_delay", 0.0, "seconds from the node's start to the first frame", 0.0, 3600.0),
    _Setting("wait_for_subscriber", False, "publish nothing until someone wants image_raw"),
)  # fmt: skip


class Frame(NamedTuple):
    """The messages of one frame; only their headers are still to be filled."""

    image: Image
    labels: Image
    objects: TrackedObjects


class RenderAhead(threading.Thread):
    """Renders frames, several at once, in order into a bounded queue; waits while it is full."""

    def __init__(
        self, scene: SurgicalScene, encoding: str, loop: int, ahead: int, workers: int
    ) -> None:
        super().__init__(name="renderer", daemon=True)
        self.scene, self.encoding, self.loop, self.workers = scene, encoding, loop, workers
        self.queue: queue.Queue[Frame] = queue.Queue(ahead)
        self.error: Exception | None = None
        self.full_once = threading.Event()
        self.frame_seconds = 0.0  # processor time of one frame, smoothed
        self._ended = threading.Event()
        self._kept: dict[int, Shot] = {}
        self._keep = 0 < loop * scene.width * scene.height * 4 <= KEPT_LOOP

    def run(self) -> None:
        """Render until stopped; an error is kept for the node to report."""
        import torch

        try:
            # One thread a frame: for pictures of this size more only wait for each other.
            torch.set_num_threads(1)
            with ThreadPoolExecutor(self.workers) as pool:
                self._feed(pool)
        except Exception as error:  # whatever it is, the node must say it and end
            self.error = error

    def stop(self) -> None:
        """End soon; do not wait for it."""
        self._ended.set()

    def _feed(self, pool: ThreadPoolExecutor) -> None:
        coming: deque[Future[Frame]] = deque()
        numbers = itertools.cycle(range(self.loop)) if self.loop else itertools.count()
        while not self._ended.is_set():
            while len(coming) < self.workers:
                coming.append(pool.submit(self._frame, next(numbers)))
            self._put(coming.popleft().result())

    def _frame(self, number: int) -> Frame:
        begin = time.thread_time()
        shot = self._kept[number] if number in self._kept else self.scene.render(number)
        if self._keep:
            self._kept[number] = shot
        frame = Frame(
            rgb_to_image(shot.image, encoding=self.encoding),
            labels_to_image(shot.masks),
            true_objects(shot.masks, shot.classes),
        )
        if number:  # the first one makes the tissue, which is no measure of the others
            spent = time.thread_time() - begin
            weight = 0.1 if self.frame_seconds else 1.0
            self.frame_seconds += (spent - self.frame_seconds) * weight
        return frame

    def _put(self, frame: Frame) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self.queue.put(frame, timeout=0.1)
                break
        if self.queue.full():
            self.full_once.set()


class EndoscopeNode(Node):
    """Publishes image_raw, camera_info and, with the same stamp, ground_truth/{label_map,objects}.

    The objects' frame_index counts the published frames, so that a consumer knows what it missed.
    """

    def __init__(self) -> None:
        super().__init__("endoscope")
        values = self._declare()
        self._drop: float = values["drop"]
        self._frame_id: str = values["frame_id"]
        self._wait: bool = values["wait_for_subscriber"]
        self._rate: float = values["rate"]
        self.add_on_set_parameters_callback(self._on_change)

        instruments = [name.strip() for name in values["instruments"].split(",") if name.strip()]
        scene = SurgicalScene(
            values["seed"], values["width"], values["height"], fps=self._rate,
            instruments=instruments or None,
        )  # fmt: skip
        self._camera = nominal_camera(values["width"], values["height"])
        live = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5,
            reliability=RELIABILITIES[values["reliability"]],
        )  # fmt: skip
        sure = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50)
        self._images = self.create_publisher(Image, "image_raw", live)
        self._cameras = self.create_publisher(CameraInfo, "camera_info", live)
        self._labels = self.create_publisher(Image, "ground_truth/label_map", live)
        self._objects = self.create_publisher(TrackedObjects, "ground_truth/objects", sure)

        self.published = self.dropped = self.late = 0
        self._random = random.Random(values["seed"])
        self._not_before = time.monotonic() + values["start_delay"]
        self._ahead_until = time.monotonic() + values["ahead_wait"]
        self.renderer = RenderAhead(
            scene, values["encoding"], values["loop"], values["ahead"], values["workers"]
        )
        self.renderer.start()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / self._rate, self._tick, clock=steady)
        self.get_logger().info(
            f"scene {scene.seed}, {scene.width}×{scene.height} at {self._rate:g} Hz: "
            + ", ".join(f"{identity} {name}" for identity, name in scene.classes.items())
        )

    def _declare(self) -> dict[str, Any]:
        """Declare every parameter and return the values, or say which one cannot be."""
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            try:
                value = self.declare_parameter(
                    setting.name, setting.default, _descriptor(setting)
                ).value
            except ParameterException as error:
                hint = " (write 10.0, not 10)" if isinstance(setting.default, float) else ""
                raise EndoscopeError(
                    f"the parameter '{setting.name}' was refused: {_expected(setting)}{hint} "
                    f"[{error}]"
                ) from error
            if setting.choices and value not in setting.choices:
                raise EndoscopeError(
                    f"the parameter '{setting.name}' is '{value}'; {_expected(setting)}"
                )
            values[setting.name] = value
        return values

    def _on_change(self, parameters: Sequence[Any]) -> SetParametersResult:
        """Take over `drop`; ranges and read-only parameters are already checked."""
        for parameter in parameters:
            if parameter.name == "drop":
                self._drop = parameter.value
        return SetParametersResult(successful=True)

    def _tick(self) -> None:
        """Publish the next frame; none is made up for later if it is not ready."""
        if self.renderer.error is not None:
            raise EndoscopeError(f"the renderer failed: {self.renderer.error}")
        if not self.published + self.dropped and not self._may_begin():
            return
        try:
            frame = self.renderer.queue.get_nowait()
        except queue.Empty:
            self.late += 1
            self.get_logger().warning(
                f"too slow for {self._rate:g} Hz: a frame takes "
                f"{1000 * self.renderer.frame_seconds:.0f} ms of a core; lower rate or size, or "
                "raise workers where cores are free",
                throttle_duration_sec=WARN_EVERY,
            )
            return
        if self._random.random() < self._drop:
            self.dropped += 1
        else:
            self._publish(frame)

    def _may_begin(self) -> bool:
        now = time.monotonic()
        ahead = self.renderer.full_once.is_set() or now >= self._ahead_until
        if now < self._not_before or not ahead or self.renderer.queue.empty():
            return False
        return not self._wait or self._images.get_subscription_count() > 0

    def _publish(self, frame: Frame) -> None:
        stamp = self.get_clock().now().to_msg()
        for message in (*frame, self._camera):
            message.header.stamp = stamp
            message.header.frame_id = self._frame_id
        frame.objects.frame_index = self.published
        self.published += 1
        self._images.publish(frame.image)
        self._cameras.publish(self._camera)
        self._labels.publish(frame.labels)
        self._objects.publish(frame.objects)


def _descriptor(setting: _Setting) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=setting.description,
        read_only=not setting.live,
        additional_constraints=_expected(setting) if setting.choices else "",
    )
    if setting.low is not None and setting.high is not None:
        if isinstance(setting.default, int):
            bounds = IntegerRange(from_value=int(setting.low), to_value=int(setting.high), step=1)
            descriptor.integer_range = [bounds]
        else:
            limits = FloatingPointRange(from_value=setting.low, to_value=setting.high)
            descriptor.floating_point_range = [limits]
    return descriptor


def _expected(setting: _Setting) -> str:
    if setting.choices:
        return f"it must be one of {', '.join(setting.choices)}"
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    wanted = f"it must be {kind[type(setting.default)]}"
    if setting.low is not None:
        wanted += f" in {setting.low:g}…{setting.high:g}"
    return wanted


def run(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; 2 if a parameter is wrong, 1 if rendering failed."""
    use_profile()
    try:
        rclpy.init(args=args)
    except Exception as error:  # rclpy's own errors here are private classes
        print(f"endoscope: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    node: EndoscopeNode | None = None
    code = 0
    try:
        node = EndoscopeNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Sam2sError as error:
        print(f"endoscope: {error}", file=sys.stderr)
        code = 2 if node is None else 1
    if node is not None:
        _end(node)
    rclpy.try_shutdown()
    return code


def main() -> NoReturn:
    """Run the node as a process of its own and leave at once when it has ended.

    Python would first wait for the frames that are being rendered, and then take a second or more
    to unload torch and DDS, while whoever sent the signal waits.
    """
    code = run()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end(node: EndoscopeNode) -> None:
    """Stop rendering and say what was published."""
    node.renderer.stop()
    node.renderer.join(STOP_SECONDS)
    print(
        f"endoscope: published {node.published} frames, dropped {node.dropped} on purpose, "
        f"{node.late} times no frame was ready",
        flush=True,
    )
    node.destroy_node()


if __name__ == "__main__":
    main()
