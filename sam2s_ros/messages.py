"""A session's results as ROS messages, and requests as prompts; the table of topics in docs/ros.md.

Every message carries the stamp and frame_id of the image it was computed from. Masks and label maps
are filled as whole arrays: two targets at 1280×1024 take about 2 ms, as
`pytest test/sam2s_ros/test_messages.py -k cost` prints.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sam2s_model.overlay import Colour, Drawing, colour_of, draw_targets, outline, tag
from sam2s_model.prompt import Prompt
from sam2s_model.result import TrackState
from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    Box2D,
    ClassScore,
    FrameTiming,
    InstrumentClass,
    InstrumentClasses,
    Point2D,
    TrackedObject,
    TrackedObjects,
    TrackEvent,
)
from sam2s_msgs.msg import Prompt as PromptMessage  # type: ignore[attr-defined]
from sam2s_msgs.srv import SetTarget  # type: ignore[attr-defined]
from sam2s_ros.compressed import JPEG_QUALITY, rgb_to_compressed
from sam2s_ros.conversions import labels_to_image, mask_to_rle, rgb_to_image, rle_to_mask
from sam2s_ros.label_map import Labels, Layer, draw_labels
from sam2s_ros.markers import caption_of, markers_message

if TYPE_CHECKING:
    from sam2s_ros.session import PromptRequest, SessionEvent, SessionObject, SessionResult

STATES = {
    TrackState.TRACKING: TrackedObject.STATE_TRACKING,
    TrackState.OCCLUDED: TrackedObject.STATE_OCCLUDED,
    TrackState.LOST: TrackedObject.STATE_LOST,
}
TOP_CLASSES = 5  # of each target's scores


# --- stamps -------------------------------------------------------------------------------


def time_message(stamp_ns: int) -> Time:
    """Split nanoseconds into a message."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def nanoseconds(time: Time) -> int:
    """Join a message's seconds and nanoseconds."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def header_message(stamp_ns: int, frame_id: str) -> Header:
    """Make the header of everything that was computed from one image."""
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)


def _header(result: SessionResult) -> Header:
    return header_message(result.stamp_ns, result.frame_id)


# --- results ------------------------------------------------------------------------------


def objects_message(result: SessionResult, timing: FrameTiming | None = None) -> TrackedObjects:
    """Describe every target of a frame, those out of sight too."""
    message = TrackedObjects(
        header=_header(result),
        frame_index=result.frame_index,
        height=result.height,
        width=result.width,
    )
    message.objects = [_object(entry) for entry in result.objects]
    if timing is not None:
        message.timing = timing
    return message


def _object(entry: SessionObject) -> TrackedObject:
    message = TrackedObject(
        name=entry.name,
        label_value=entry.label_value,
        state=STATES[entry.state],
        iou=entry.iou,
        presence=entry.presence,
        class_name=entry.class_name,
        class_confidence=entry.class_confidence,
        class_scores=_scores(entry),
        area=entry.area,
        mask=mask_to_rle(entry.mask),
    )
    if entry.box is not None:
        message.box = _box(entry.box)
    x, y = entry.centroid if entry.centroid is not None else (math.nan, math.nan)
    message.centroid = Point2D(x=x, y=y)
    return message


def _box(box: Sequence[float]) -> Box2D:
    x0, y0, x1, y1 = map(float, box)
    return Box2D(x0=x0, y0=y0, x1=x1, y1=y1)


def _scores(entry: SessionObject) -> list[ClassScore]:
    best = sorted(entry.class_scores.items(), key=lambda item: -item[1])[:TOP_CLASSES]
    return [ClassScore(name=name, score=float(score)) for name, score in best]


def classes_message(result: SessionResult) -> InstrumentClasses:
    """Say what every target is, without masks."""
    message = InstrumentClasses(header=_header(result))
    message.instruments = [
        InstrumentClass(
            target=entry.name,
            label_value=entry.label_value,
            class_name=entry.class_name,
            confidence=entry.class_confidence,
            scores=_scores(entry),
            state=STATES[entry.state],
        )
        for entry in result.objects
    ]
    return message


def label_map(result: SessionResult) -> Labels:
    """Draw the targets that are being tracked, uint8 (H, W).

    Those that are occluded or lost are left out, whatever mask they have: a label map says nothing
    of states, so all that it shows must be trustworthy.
    """
    layers = [
        Layer(
            entry.label_value,
            entry.mask,
            entry.area,
            entry.box,
            lambda name=entry.name: result.result[name].logits,  # type: ignore[misc]
        )
        for entry in result.objects
        if entry.state is TrackState.TRACKING
    ]
    return draw_labels(result.height, result.width, layers)


def label_map_message(result: SessionResult) -> Image:
    """Make the mono8 image of `label_map`."""
    return labels_to_image(label_map(result), _header(result))


def event_message(event: SessionEvent) -> TrackEvent:
    """Announce that something happened to a target or to the stream."""
    return TrackEvent(
        header=header_message(event.stamp_ns, event.frame_id),
        kind=getattr(TrackEvent, event.kind.name),
        target=event.target,
        label_value=event.label_value,
        state=STATES[event.state],
        seconds=event.seconds,
        message=event.message,
    )


# --- pictures -----------------------------------------------------------------------------


def overlay_picture(image: NDArray[np.uint8], result: SessionResult) -> NDArray[np.uint8]:
    """Draw the targets onto their frame, uint8 (H, W, 3) RGB; only what is tracked is tinted."""
    tracked = [entry for entry in result.objects if entry.state is TrackState.TRACKING]
    others = [entry for entry in result.objects if entry.state is not TrackState.TRACKING]
    picture = draw_targets(
        image,
        [Drawing(entry.mask, _colour(entry), caption_of(entry)) for entry in tracked],
    )
    for entry in others:
        if entry.box is not None:
            picture = outline(picture, entry.mask, _colour(entry))
            picture = tag(picture, caption_of(entry), entry.box[:2], _colour(entry))
    return picture


def _colour(entry: SessionObject) -> Colour:
    return colour_of(entry.label_value - 1)


def overlay_message(picture: NDArray[np.uint8], result: SessionResult) -> Image:
    """Make the rgb8 image of an overlay."""
    return rgb_to_image(picture, _header(result))


def overlay_compressed(
    picture: NDArray[np.uint8], result: SessionResult, quality: int = JPEG_QUALITY
) -> CompressedImage:
    """Make the jpeg of an overlay, of a quality 1..100."""
    return rgb_to_compressed(picture, _header(result), quality)


# --- prompts ------------------------------------------------------------------------------


def prompt_from_service(request: SetTarget.Request) -> PromptRequest:
    """Read a request to the node; a prompt that cannot be raises a PromptError or RunLengthError.

    A stamp of zero means the next image.
    """
    return _request(request, request.stamp)


def prompt_from_message(message: PromptMessage) -> PromptRequest:
    """Read a recorded prompt, to be applied to the image it was once applied to."""
    return _request(message, message.header.stamp)


def _request(message: Any, stamp: Time) -> PromptRequest:
    from sam2s_ros.session import PromptRequest

    prompt = Prompt(
        points=[[point.x, point.y] for point in message.points] or None,
        labels=list(message.labels) or None,
        box=[[b.x0, b.y0, b.x1, b.y1] for b in message.box][0] if message.box else None,
        mask=rle_to_mask(message.mask[0]) if message.mask else None,
    )
    return PromptRequest(
        name=message.name,
        prompt=prompt,
        class_name=message.class_name,
        stamp_ns=nanoseconds(stamp) or None,
    )


# --- vision_msgs, where it is installed ---------------------------------------------------


def vision_messages() -> bool:
    """Tell whether vision_msgs can be imported: with a ROS 2 distribution, not from PyPI."""
    return importlib.util.find_spec("vision_msgs") is not None


def detections_message(result: SessionResult) -> Any:
    """Make a vision_msgs/Detection2DArray of the targets that are tracked.

    Each detection's id is the target's name; its one hypothesis is the target's class with the
    class's confidence. It leaves out what is occluded or lost, because it knows no states.
    """
    from vision_msgs.msg import (
        BoundingBox2D,
        Detection2D,
        Detection2DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
    )

    header = _header(result)
    message = Detection2DArray(header=header)
    for entry in result.objects:
        if entry.state is not TrackState.TRACKING or entry.box is None:
            continue
        x0, y0, x1, y1 = map(float, entry.box)
        box = BoundingBox2D(size_x=x1 - x0, size_y=y1 - y0)
        box.center.position.x, box.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        hypothesis = ObjectHypothesis(
            class_id=entry.class_name, score=float(entry.class_confidence)
        )
        found = Detection2D(header=header, bbox=box, id=entry.name)
        found.results = [ObjectHypothesisWithPose(hypothesis=hypothesis)]
        message.detections.append(found)
    return message


def label_info_message(result: SessionResult) -> Any:
    """Make a vision_msgs/LabelInfo: which target each value of the label map stands for."""
    from vision_msgs.msg import LabelInfo, VisionClass

    message = LabelInfo(header=_header(result), threshold=0.5)  # of a pixel's probability
    message.class_map = [
        VisionClass(class_id=entry.label_value, class_name=entry.name) for entry in result.objects
    ]
    return message
