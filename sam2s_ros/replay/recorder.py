"""Writes a replay's results as the topics of a tracker node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import Image

from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    FrameTiming,
    InstrumentClasses,
    TrackedObjects,
    TrackEvent,
)
from sam2s_msgs.msg import Prompt as PromptMessage  # type: ignore[attr-defined]
from sam2s_ros import messages
from sam2s_ros.bags.writer import BagWriter, qos
from sam2s_ros.replay.settings import Outputs

if TYPE_CHECKING:
    from sam2s_ros.session import SessionEvent, SessionResult

# As the node publishes them.
TOPICS: dict[str, type[Any]] = {
    "objects": TrackedObjects,
    "label_map": Image,
    "classes": InstrumentClasses,
    "events": TrackEvent,
    "prompts": PromptMessage,
}


class Recorder:
    """Puts every frame's messages into a bag."""

    def __init__(self, bag: BagWriter, outputs: Outputs) -> None:
        self._bag = bag
        self._prefix = "/" + outputs.namespace.strip("/") + "/"
        self._by_stamp = outputs.times == "stamp"
        self._frames = 0
        self.counts: Counter[str] = Counter()
        for name, kind in TOPICS.items():
            bag.add_topic(self._prefix + name, kind, (qos(100 if name == "events" else 10),))
            self.counts[self._prefix + name] = 0
        self._vision = messages.vision_messages()
        self._known: tuple[tuple[int, str], ...] | None = None  # what label_info said last
        if self._vision:
            self._add_vision_topics()

    def write(
        self, result: SessionResult, recorded_ns: int, removed: Sequence[SessionEvent] = ()
    ) -> None:
        """Write one frame's messages, all at one time; removals came before it."""
        time_ns = result.stamp_ns if self._by_stamp else recorded_ns
        self._frames += 1
        # Durations are left at zero: they differ from run to run, and the bag must not.
        timing = FrameTiming(frames_received=self._frames)
        for event in (*removed, *result.events):
            self._put("events", messages.event_message(event), time_ns)
        for prompt in result.accepted:
            self._put("prompts", messages.prompt_message(prompt), time_ns)
        self._put("objects", messages.objects_message(result, timing), time_ns)
        self._put("label_map", messages.label_map_message(result), time_ns)
        self._put("classes", messages.classes_message(result), time_ns)
        if self._vision:
            self._put("detections", messages.detections_message(result), time_ns)
            self._put_label_info(result, time_ns)

    def _add_vision_topics(self) -> None:
        from vision_msgs.msg import Detection2DArray, LabelInfo

        self._bag.add_topic(self._prefix + "detections", Detection2DArray)
        self._bag.add_topic(self._prefix + "label_info", LabelInfo, (qos(1, latched=True),))

    def _put_label_info(self, result: SessionResult, time_ns: int) -> None:
        """Say what the label map's values stand for, when that changes."""
        known = tuple((entry.label_value, entry.name) for entry in result.objects)
        if known != self._known:
            self._known = known
            self._put("label_info", messages.label_info_message(result), time_ns)

    def _put(self, name: str, message: Any, time_ns: int) -> None:
        topic = self._prefix + name
        self._bag.write(topic, message, time_ns)
        self.counts[topic] += 1


@contextmanager
def recording(
    folder: Path, outputs: Outputs, custom: dict[str, str]
) -> Iterator[tuple[Recorder, BagWriter]]:
    """Open a bag in a folder, and write the tracker's topics into it."""
    with BagWriter(folder, outputs.storage, outputs.compression, custom) as bag:
        yield Recorder(bag, outputs), bag
