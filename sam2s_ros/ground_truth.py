"""The simulator's truth as messages: objects with exact masks, and a nominal camera."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    Box2D,
    ClassScore,
    Point2D,
    TrackedObject,
    TrackedObjects,
)
from sam2s_ros.conversions import runs_to_message
from sam2s_ros.rle import encode_mask

FIELD_OF_VIEW = math.radians(70)  # horizontal; a laparoscope's. The simulator itself has no lens.


def true_objects(ids: NDArray[np.uint8], classes: Mapping[int, str]) -> TrackedObjects:
    """Describe every instance of the scene in one frame; `ids` (H, W), 0 background.

    An instance without a visible pixel is listed as occluded with presence 0.
    """
    message = TrackedObjects(height=ids.shape[0], width=ids.shape[1])
    message.objects = [
        _true_object(ids == identity, identity, name) for identity, name in classes.items()
    ]
    return message


def _true_object(mask: NDArray[np.bool_], identity: int, name: str) -> TrackedObject:
    runs = encode_mask(mask)
    box, centroid = runs.box, runs.centroid
    message = TrackedObject(
        name=f"{name} {identity}",
        label_value=identity,
        state=TrackedObject.STATE_TRACKING if runs.area else TrackedObject.STATE_OCCLUDED,
        iou=1.0,
        presence=float(runs.area > 0),
        class_name=name,
        class_confidence=1.0,
        class_scores=[ClassScore(name=name, score=1.0)],
        area=runs.area,
        centroid=Point2D(x=math.nan, y=math.nan),
        mask=runs_to_message(runs),
    )
    if box is not None and centroid is not None:
        x0, y0, x1, y1 = map(float, box)
        message.box = Box2D(x0=x0, y0=y0, x1=x1, y1=y1)
        message.centroid = Point2D(x=centroid[0], y=centroid[1])
    return message


def nominal_camera(width: int, height: int) -> CameraInfo:
    """Make a pinhole without distortion, with a laparoscope's usual field of view."""
    focal = width / (2 * math.tan(FIELD_OF_VIEW / 2))
    cx, cy = width / 2, height / 2
    return CameraInfo(
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
