"""The node's outputs: results and events at once, pictures beside the worker and only if wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    FrameTiming,
    InstrumentClasses,
    Prompt,
    TrackedObjects,
    TrackEvent,
)
from sam2s_ros.live import Counts, Outcome
from sam2s_ros.markers import markers_message
from sam2s_ros.messages import (
    classes_message,
    detections_message,
    event_message,
    label_info_message,
    label_map_message,
    objects_message,
    overlay_compressed,
    overlay_message,
    overlay_picture,
    prompt_message,
    vision_messages,
)
from sam2s_ros.session import SessionEvent

# All are reliable, so that they reach both kinds of subscribers; a missed one misleads.
NEWEST = QoSProfile(depth=1)  # pictures: an old one is of no use
RESULTS = QoSProfile(depth=10)
RARE = QoSProfile(depth=200)  # events and prompts: each one counts
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Publishers:
    """Everything that the tracker node publishes beside diagnostics.

    Args:
        node: whose topics they are.
        quality: of the compressed overlay's jpeg, 1..100; asked for with each picture.
        trouble: is told when a picture could not be made.
    """

    def __init__(
        self, node: Node, quality: Callable[[], int], trouble: Callable[[str], None]
    ) -> None:
        self._node, self._quality = node, quality
        make: Any = node.create_publisher
        self._objects = make(TrackedObjects, "~/objects", RESULTS)
        self._classes = make(InstrumentClasses, "~/classes", RESULTS)
        self._label_map = make(Image, "~/label_map", NEWEST)
        self._events = make(TrackEvent, "~/events", RARE)
        self._prompts = make(Prompt, "~/prompts", RARE)
        self._overlay = make(Image, "~/overlay", NEWEST)
        self._overlay_jpeg = make(CompressedImage, "~/overlay/compressed", NEWEST)
        self._markers = make(MarkerArray, "~/markers", NEWEST)
        self._detections: Any = None
        self._label_info: Any = None
        if vision_messages():
            from vision_msgs.msg import Detection2DArray, LabelInfo

            self._detections = make(Detection2DArray, "~/detections", RESULTS)
            self._label_info = make(LabelInfo, "~/label_info", LATCHED)
        self._known: tuple[tuple[int, str], ...] | None = None  # what label_info said last
        self._painter = Painter(self._paint, trouble)

    def publish(self, outcome: Outcome, counts: Counts) -> None:
        """Publish an image's results; called from the worker's thread."""
        result = outcome.result
        if _wanted(self._objects):
            self._publish_objects(outcome, counts)  # first, for controllers wait for them
        if _wanted(self._label_map):
            self._label_map.publish(label_map_message(result))
        if _wanted(self._classes):
            self._classes.publish(classes_message(result))
        for accepted in result.accepted:
            self._prompts.publish(prompt_message(accepted))
        self.events(result.events)
        if self._detections is not None:
            self._vision(outcome)
        if any(map(_wanted, (self._overlay, self._overlay_jpeg, self._markers))):
            self._painter.put(outcome)

    def _publish_objects(self, outcome: Outcome, counts: Counts) -> None:
        begin = time.perf_counter()
        result = outcome.result
        objects = objects_message(result)
        now_ns = self._node.get_clock().now().nanoseconds
        objects.timing = FrameTiming(
            wait=outcome.wait,
            inference=outcome.inference,
            publish=result.timings.get("masks", 0.0) + (time.perf_counter() - begin) * 1e3,
            stamp_to_result=(now_ns - result.stamp_ns) / 1e6,
            frames_received=counts.received,
            frames_skipped=counts.skipped,
        )
        self._objects.publish(objects)

    def events(self, events: tuple[SessionEvent, ...]) -> None:
        """Publish what has happened."""
        for event in events:
            self._events.publish(event_message(event))

    def drop_pictures(self) -> None:
        """Paint nothing more of what has been published so far."""
        self._painter.clear()

    def close(self) -> None:
        """End the painter."""
        self._painter.close()

    def _vision(self, outcome: Outcome) -> None:
        if _wanted(self._detections):
            self._detections.publish(detections_message(outcome.result))
        known = tuple((entry.label_value, entry.name) for entry in outcome.result.objects)
        if known != self._known:
            self._known = known
            self._label_info.publish(label_info_message(outcome.result))

    def _paint(self, outcome: Outcome) -> None:
        result = outcome.result
        raw, jpeg = _wanted(self._overlay), _wanted(self._overlay_jpeg)
        if raw or jpeg:
            picture = overlay_picture(outcome.image, result)
            if raw:
                self._overlay.publish(overlay_message(picture, result))
            if jpeg:
                self._overlay_jpeg.publish(overlay_compressed(picture, result, self._quality()))
        if _wanted(self._markers):
            self._markers.publish(markers_message(result))


class Painter:
    """Paints the newest results in a thread of its own, so that tracking need not wait."""

    def __init__(self, paint: Callable[[Outcome], None], trouble: Callable[[str], None]) -> None:
        self._paint, self._trouble = paint, trouble
        self._condition = threading.Condition()
        self._next: Outcome | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="painter", daemon=True)
        self._thread.start()

    def put(self, outcome: Outcome) -> None:
        """Have results painted, instead of those that still wait."""
        with self._condition:
            self._next = outcome
            self._condition.notify()

    def clear(self) -> None:
        """Forget results that still wait."""
        with self._condition:
            self._next = None

    def close(self) -> None:
        """End soon."""
        with self._condition:
            self._ended = True
            self._condition.notify()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._next is not None or self._ended)
                if self._ended:
                    return
                outcome, self._next = self._next, None
            assert outcome is not None
            try:
                self._paint(outcome)
            except Exception as error:  # pictures are no reason to stop
                self._trouble(f"a picture could not be made: {error!r}")


def _wanted(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)
