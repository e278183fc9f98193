"""Node `endoscope`: the simulator, a video file or a folder of pictures as a camera, with truth."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sam2s_model.errors import Sam2sError
from sam2s_msgs.msg import TrackedObjects  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.dds import use_profile
from sam2s_ros.endoscope_frames import Frame, FramesAhead, Packer, Schedule
from sam2s_ros.endoscope_settings import declare
from sam2s_ros.endoscope_sources import (
    EndoscopeError,
    SimulatedSource,
    Source,
    VideoSource,
    open_files,
)
from sam2s_ros.ground_truth import nominal_camera
from sam2s_ros.headers import NANO, time_message
from sam2s_ros.image_plane import ImagePlane
from sam2s_ros.leaving import leave
from sam2s_ros.settings import RELIABILITIES

WARN_EVERY = 10.0  # seconds between warnings that the machine is too slow
SAY_EVERY = 5.0  # seconds between reports of how far prerendering is
STOP_SECONDS = 1.0  # for the frame that is being rendered when the node ends
LINGER_SECONDS = 0.5  # from a file's last frame to the node's end, so that it can leave
SPARE_MEMORY = 0.8  # of the free memory may be taken by prerendered frames


class EndoscopeNode(Node):
    """Publishes image_raw, camera_info and, with the same stamp, ground_truth/{label_map,objects}.

    The objects' frame_index counts the published frames, so that a consumer knows what it missed.
    Stamps lie on a grid of the nominal rate, as those of a camera with a steady clock; a tick on
    which no frame was ready, or one was dropped, leaves a gap. `finished` is done when a file has
    ended.
    """

    def __init__(self) -> None:
        super().__init__("endoscope")
        values = declare(self)
        self._drop: float = values["drop"]
        self._frame_id: str = values["frame_id"]
        self._wait: bool = values["wait_for_subscriber"]
        self.add_on_set_parameters_callback(self._on_change)

        source = _source(values)
        self._rate = _rate(values, source)
        schedule = _schedule(values, source)
        packer = Packer(
            values["encoding"],
            raw=values["transport"] in ("raw", "both"),
            compressed=values["transport"] in ("compressed", "both"),
            quality=values["jpeg_quality"],
        )
        # Seen from the left eye's place, the right one's picture lies to the left.
        apart = values["disparity"] if values["side"] == "right" else 0
        self._shift = -apart * ImagePlane().distance
        self._camera = CameraInfo()
        self._advertise(values, packer)

        self.finished: Future[None] = Future()
        self.published = self.dropped = self.late = 0
        self._random = random.Random(values["seed"])
        begin = time.monotonic()
        self._not_before = begin + values["start_delay"]
        self._ahead_until = begin + values["ahead_wait"]
        self._last_published = begin
        self._grid: _Grid | None = None
        self.frames = FramesAhead(
            source, packer, schedule, ahead=values["ahead"], workers=values["workers"],
            prerender=values["prerender"] > 0,
        )  # fmt: skip
        self.frames.start()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / self._rate, self._tick, clock=self._steady)
        self._prerender = schedule.length if values["prerender"] else None
        if self._prerender:
            self._progress = self.create_timer(SAY_EVERY, self._say_progress, clock=self._steady)
        height, width = source.size
        self.get_logger().info(f"{source}, {width}×{height} at {self._rate:g} Hz")

    def _advertise(self, values: dict[str, Any], packer: Packer) -> None:
        live = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5,
            reliability=RELIABILITIES[values["reliability"]],
        )  # fmt: skip
        sure = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50)
        self._images: list[Any] = []
        self._topics: dict[str, Any] = {}
        if packer.raw:
            self._topics["image"] = self.create_publisher(Image, "image_raw", live)
        if packer.compressed:
            self._topics["compressed"] = self.create_publisher(
                CompressedImage, "image_raw/compressed", live
            )
        self._images.extend(self._topics.values())
        self._topics["labels"] = self.create_publisher(Image, "ground_truth/label_map", live)
        self._topics["objects"] = self.create_publisher(
            TrackedObjects, "ground_truth/objects", sure
        )
        self._cameras = self.create_publisher(CameraInfo, "camera_info", live)

    def _on_change(self, parameters: Sequence[Any]) -> SetParametersResult:
        """Take over `drop`; ranges and read-only parameters are already checked."""
        for parameter in parameters:
            if parameter.name == "drop":
                self._drop = parameter.value
        return SetParametersResult(successful=True)

    def _say_progress(self) -> None:
        if self.frames.ready.is_set():
            self._progress.cancel()
            return
        self.get_logger().info(f"prerendered {self.frames.made} of {self._prerender} frames")

    def _tick(self) -> None:
        """Publish the next frame; none is made up for later if it is not ready."""
        if self.frames.error is not None:
            raise EndoscopeError(f"no more frames: {self.frames.error}")
        if self._grid is None:
            if not self._may_begin():
                return
            self._grid = _Grid(self._rate, self.get_clock().now().nanoseconds)
        stamp_ns = self._stamp(self._grid)
        frame = self.frames.take()
        if frame is None:
            self._no_frame()
        elif self._random.random() < self._drop:
            self.dropped += 1
        else:
            self._publish(frame, stamp_ns)

    def _stamp(self, grid: _Grid) -> int:
        """The stamp of this tick; simulated time has no steady grid to be put on."""
        if self.get_parameter("use_sim_time").value:
            return grid.after(self.get_clock().now().nanoseconds)
        return grid.next()

    def _no_frame(self) -> None:
        if self.frames.exhausted:
            if time.monotonic() - self._last_published > LINGER_SECONDS:
                self.finished.set_result(None)
            return
        self.late += 1
        self.get_logger().warning(
            f"too slow for {self._rate:g} Hz: a frame takes "
            f"{1000 * self.frames.frame_seconds:.0f} ms of a core; lower rate or size, raise "
            "workers where cores are free, or set prerender",
            throttle_duration_sec=WARN_EVERY,
        )

    def _may_begin(self) -> bool:
        now = time.monotonic()
        ahead = self.frames.ready.is_set() or now >= self._ahead_until
        if now < self._not_before or not ahead:
            return False
        if not self.frames.waiting and not self.frames.exhausted:
            return False
        return not self._wait or any(topic.get_subscription_count() for topic in self._images)

    def _publish(self, frame: Frame, stamp_ns: int) -> None:
        stamp = time_message(stamp_ns)
        for message in (*frame.messages(), self._fitting_camera(frame.size)):
            message.header.stamp = stamp
            message.header.frame_id = self._frame_id
        if frame.objects is not None:
            frame.objects.frame_index = self.published
        self.published += 1
        self._last_published = time.monotonic()
        for name, topic in self._topics.items():
            message = getattr(frame, name)
            # Publishing to nobody would still copy and serialise the whole picture.
            if message is not None and topic.get_subscription_count():
                topic.publish(message)
        self._cameras.publish(self._camera)

    def _fitting_camera(self, size: tuple[int, int]) -> CameraInfo:
        """Keep the camera's description up to the size of the pictures."""
        height, width = size
        if (self._camera.height, self._camera.width) != size:
            self._camera = nominal_camera(width, height)
            self._camera.p[3] = self._shift
        return self._camera


class _Grid:
    """Stamps at a nominal rate, in nanoseconds; the first tick begins it."""

    def __init__(self, rate: float, now_ns: int) -> None:
        self._rate = rate
        self._begin_ns = self._last_ns = now_ns
        self._begin = time.monotonic()
        self._count = -1

    def next(self) -> int:
        """The stamp of the tick that is now: one further, or more if ticks were missed."""
        elapsed = time.monotonic() - self._begin
        self._count = max(self._count + 1, math.floor(elapsed * self._rate))
        early = self._count / self._rate - elapsed
        if early > 0:  # the first tick came late; a stamp must not lie in the future
            self._begin -= early
            self._begin_ns -= math.ceil(early * NANO)
        self._last_ns = max(
            self._last_ns + 1, self._begin_ns + round(self._count * NANO / self._rate)
        )
        return self._last_ns

    def after(self, now_ns: int) -> int:
        """Now, or just after the stamp before it."""
        self._last_ns = max(self._last_ns + 1, now_ns)
        return self._last_ns


def _source(values: dict[str, Any]) -> Source:
    """Open what is to be shown."""
    if values["source"]:
        return open_files(Path(values["source"]), values["masks"], values["classes"])
    if values["masks"] or values["classes"]:
        raise EndoscopeError(
            "`masks` and `classes` belong to a `source`; the simulator has its own truth"
        )
    if not values["rate"]:
        raise EndoscopeError("`rate` is 0; the simulator has no rate of its own, give one")
    instruments = [name.strip() for name in values["instruments"].split(",") if name.strip()]
    return SimulatedSource(
        values["seed"], values["width"], values["height"], values["rate"], instruments or None,
        values["side"], values["disparity"],
    )  # fmt: skip


def _rate(values: dict[str, Any], source: Source) -> float:
    """Frames per second."""
    if values["rate"]:
        return float(values["rate"])
    if isinstance(source, VideoSource) and source.fps:
        return source.fps
    raise EndoscopeError(f"`rate` is 0, and {source} has no rate of its own; give one")


def _schedule(values: dict[str, Any], source: Source) -> Schedule:
    """Decide which frames are shown in which order, and whether they fit into memory."""
    loop, prerender, bounce = values["loop"], values["prerender"], values["bounce"]
    if bounce and not prerender:
        raise EndoscopeError("`bounce` plays what is prerendered; set `prerender` too")
    if not prerender:
        if loop < 0 and source.length is None:
            raise EndoscopeError("`loop` is -1, but the simulator has no end; give a number")
        lengths = [n for n in (loop if loop > 0 else None, source.length) if n is not None]
        return Schedule(min(lengths, default=None), repeat=loop != 0)
    if loop not in (0, -1, prerender):
        raise EndoscopeError(
            f"`prerender` is {prerender} and is played in a loop, but `loop` is {loop}; leave "
            "`loop` at 0"
        )
    length = prerender if source.length is None else min(prerender, source.length)
    height, width = source.size
    needed = length * height * width * 4  # the picture and its label map
    free = psutil.virtual_memory().available
    if needed > SPARE_MEMORY * free:
        raise EndoscopeError(
            f"{length} prerendered frames of {width}×{height} take {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; at most {int(length * SPARE_MEMORY * free / needed)} "
            "will do"
        )
    return Schedule(length, repeat=True, bounce=bounce)


def run(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a file's end; 2 if a parameter is wrong, 1 on failure.

    A file that cannot be read is a wrong parameter if it shows at once.
    """
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
        rclpy.spin_until_future_complete(node, node.finished)
        if node.finished.done():
            print("endoscope: the source has ended; set `loop` to play it again", flush=True)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Sam2sError as error:
        print(f"endoscope: {error}", file=sys.stderr)
        code = 2 if node is None else 1
    except RuntimeError:
        if rclpy.ok():  # otherwise a signal has closed the middleware in the middle of a tick
            raise
    if node is not None:
        _end(node)
    rclpy.try_shutdown()
    return code


def main() -> NoReturn:
    """Run the node as a process of its own."""
    leave(run())


def _end(node: EndoscopeNode) -> None:
    """Stop rendering and say what was published."""
    node.frames.stop()
    node.frames.join(STOP_SECONDS)
    print(
        f"endoscope: published {node.published} frames, dropped {node.dropped} on purpose, "
        f"{node.late} times no frame was ready",
        flush=True,
    )
    node.destroy_node()


if __name__ == "__main__":
    main()
