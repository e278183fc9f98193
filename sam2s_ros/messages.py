"""A session's results as ROS messages, and requests as prompts.

Every message carries the stamp and frame_id of the image it was computed from. Masks and label maps
are filled as whole arrays: two targets at 1280×1024 take about 2 ms, as
`pytest test/sam2s_ros/test_messages.py -k cost` prints.
"""

from __future__ import annotations

import heapq
import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sam2s_model.prompt import Prompt
from sam2s_model.result import TrackState
from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    Box2D,
    ClassScore,
    FrameTiming,
    InstrumentClass,
    InstrumentClasses,
    Point2D,
    TargetInfo,
    TrackedObject,
    TrackedObjects,
    TrackEvent,
)
from sam2s_msgs.msg import Prompt as PromptMessage  # type: ignore[attr-defined]
from sam2s_msgs.srv import SetTarget  # type: ignore[attr-defined]
from sam2s_ros.compressed import JPEG_QUALITY, rgb_to_compressed
from sam2s_ros.conversions import (
    empty_labels,
    labels_to_image,
    mask_to_rle,
    rgb_to_image,
    rle_to_mask,
    runs_to_message,
)
from sam2s_ros.headers import header_message, nanoseconds, time_message
from sam2s_ros.label_map import Labels
from sam2s_ros.markers import markers_message
from sam2s_ros.overlay import label_map, overlay_picture
from sam2s_ros.session_types import (
    AcceptedPrompt,
    PromptReply,
    PromptRequest,
    SessionEvent,
    SessionObject,
    SessionResult,
    TargetStanding,
)

__all__ = [
    "classes_message",
    "detections_message",
    "event_message",
    "fill_reply",
    "header_message",
    "label_info_message",
    "label_map",
    "label_map_message",
    "markers_message",
    "objects_message",
    "overlay_compressed",
    "overlay_message",
    "overlay_picture",
    "prompt_from_message",
    "prompt_from_service",
    "prompt_message",
    "target_message",
    "vision_messages",
]

STATES = {
    TrackState.TRACKING: TrackedObject.STATE_TRACKING,
    TrackState.OCCLUDED: TrackedObject.STATE_OCCLUDED,
    TrackState.LOST: TrackedObject.STATE_LOST,
}
TOP_CLASSES = 3  # that are listed with each target


def _header(result: SessionResult) -> Header:
    return header_message(result.stamp_ns, result.frame_id)


# --- results ------------------------------------------------------------------------------


def objects_message(
    result: SessionResult, timing: FrameTiming | None = None, top_classes: int = TOP_CLASSES
) -> TrackedObjects:
    """Describe every target of a frame, those out of sight too."""
    message = TrackedObjects(
        header=_header(result),
        frame_index=result.frame_index,
        height=result.height,
        width=result.width,
    )
    message.objects = [_object(entry, top_classes) for entry in result.objects]
    if timing is not None:
        message.timing = timing
    return message


def _object(entry: SessionObject, top_classes: int) -> TrackedObject:
    message = TrackedObject(
        name=entry.name,
        label_value=entry.label_value,
        state=STATES[entry.state],
        iou=entry.iou,
        presence=entry.presence,
        class_name=entry.class_name,
        class_confidence=entry.class_confidence,
        class_scores=_scores(entry, top_classes),
        area=entry.area,
        mask=runs_to_message(entry.runs),
    )
    if entry.box is not None:
        message.box = _box(entry.box)
    x, y = entry.centroid if entry.centroid is not None else (math.nan, math.nan)
    message.centroid = Point2D(x=x, y=y)
    return message


def _box(box: Sequence[float]) -> Box2D:
    x0, y0, x1, y1 = map(float, box)
    return Box2D(x0=x0, y0=y0, x1=x1, y1=y1)


def _corners(box: Box2D) -> list[float]:
    return [box.x0, box.y0, box.x1, box.y1]


def _scores(entry: SessionObject, count: int) -> list[ClassScore]:
    best = heapq.nlargest(count, entry.class_scores.items(), key=lambda item: item[1])
    return [ClassScore(name=name, score=float(score)) for name, score in best]


def classes_message(result: SessionResult, top_classes: int = TOP_CLASSES) -> InstrumentClasses:
    """Say what every target is, without masks."""
    message = InstrumentClasses(header=_header(result))
    message.instruments = [
        InstrumentClass(
            target=entry.name,
            label_value=entry.label_value,
            class_name=entry.class_name,
            confidence=entry.class_confidence,
            scores=_scores(entry, top_classes),
            state=STATES[entry.state],
        )
        for entry in result.objects
    ]
    return message


def label_map_message(result: SessionResult, labels: Labels | None = None) -> Image:
    """Make the mono8 image of `label_map`; `labels` is that map, if it is already made."""
    if labels is not None:
        return labels_to_image(labels, _header(result))
    message, empty = empty_labels(result.height, result.width, _header(result))
    label_map(result, empty)
    return message


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


def target_message(standing: TargetStanding) -> TargetInfo:
    """Say how a target stands between frames."""
    return TargetInfo(
        name=standing.name,
        label_value=standing.label_value,
        state=STATES[standing.state],
        iou=standing.iou,
        class_name=standing.class_name,
        class_confidence=standing.class_confidence,
        added=time_message(standing.added_ns),
        last_seen=time_message(standing.last_seen_ns),
        prompts=standing.prompts,
        memory_entries=standing.memory_entries,
    )


# --- pictures -----------------------------------------------------------------------------


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
    prompt = Prompt(
        points=[[point.x, point.y] for point in message.points] or None,
        labels=list(message.labels) or None,
        box=_corners(message.box[0]) if message.box else None,
        mask=rle_to_mask(message.mask[0]) if message.mask else None,
    )
    return PromptRequest(
        name=message.name,
        prompt=prompt,
        class_name=message.class_name,
        stamp_ns=nanoseconds(stamp) or None,
    )


def prompt_message(accepted: AcceptedPrompt) -> PromptMessage:
    """Record a prompt that was applied, with the image it was applied to."""
    prompt = accepted.prompt
    message = PromptMessage(
        header=header_message(accepted.stamp_ns, accepted.frame_id),
        name=accepted.name,
        label_value=accepted.label_value,
        correction=accepted.correction,
        class_name=accepted.class_name,
    )
    if prompt.points is not None:
        message.points = [Point2D(x=x, y=y) for x, y in np.asarray(prompt.points, float).tolist()]
        message.labels = np.asarray(prompt.labels, np.uint8).tolist()
    if prompt.box is not None:
        message.box = [_box(np.asarray(prompt.box, float).tolist())]
    if prompt.mask is not None:
        message.mask = [mask_to_rle(np.asarray(prompt.mask, np.bool_))]
    return message


def fill_reply(reply: PromptReply, response: SetTarget.Response) -> SetTarget.Response:
    """Answer a request with what became of it."""
    response.success, response.message = reply.success, reply.message
    response.label_value, response.area, response.iou = reply.label_value, reply.area, reply.iou
    response.stamp = time_message(reply.stamp_ns)
    return response


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
