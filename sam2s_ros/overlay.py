"""The frame with its targets drawn in: tinted where they are tracked, outlined, named.

Made for every frame while someone watches, so colours are mixed by table inside each target's box:
two targets at 1280×1024 take a few milliseconds, a tenth of what `sam2s_model.overlay` takes.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.overlay import OPACITY, Colour, colour_of, tag
from sam2s_model.result import TrackState
from sam2s_ros.label_map import Labels, Layer, draw_labels
from sam2s_ros.masks import source_logits
from sam2s_ros.session_types import SessionObject, SessionResult

Picture = NDArray[np.uint8]


def label_map(result: SessionResult, labels: Labels | None = None) -> Labels:
    """Draw the targets that are being tracked, uint8 (H, W); `labels` is an empty map, if any.

    Those that are occluded or lost are left out, whatever mask they have: a label map says nothing
    of states, so all that it shows must be trustworthy.
    """
    layers = [
        Layer(
            entry.label_value,
            entry.patch,
            entry.area,
            partial(source_logits, result.result[entry.name]),
        )
        for entry in result.objects
        if entry.state is TrackState.TRACKING
    ]
    if labels is None:
        labels = np.zeros((result.height, result.width), np.uint8)
    return draw_labels(labels, layers)


def overlay_picture(image: Picture, result: SessionResult, labels: Labels | None = None) -> Picture:
    """Draw the targets onto their frame, uint8 (H, W, 3) RGB; `labels` is its label map, if made.

    Only what is tracked is tinted; of the others the outline shows what they may be.
    """
    labels = label_map(result) if labels is None else labels
    drawn: Picture = np.array(image, order="C")
    for entry in result.objects:
        if entry.box is not None and entry.state is TrackState.TRACKING:
            _tint(drawn, labels, entry)
    thickness = max(1, image.shape[0] // 360)
    for entry in result.objects:
        if entry.box is not None:
            tracked = entry.state is TrackState.TRACKING
            _outline(drawn, entry, thickness if tracked else 1)
    for entry in result.objects:
        if entry.box is not None:
            drawn = tag(drawn, caption_of(entry), entry.box[:2], target_colour(entry))
    return drawn


def caption_of(entry: SessionObject) -> str:
    """Say in one line who a target is and, unless it is tracked, how it stands."""
    text = entry.name
    if entry.class_name and entry.class_confidence > 0:
        text += f": {entry.class_name} {100 * entry.class_confidence:.0f}%"
    # Plain ASCII, which is all that OpenCV's fonts have.
    return text if entry.state is TrackState.TRACKING else f"{text} ({entry.state.value})"


def target_colour(entry: SessionObject) -> Colour:
    """Pick a target's colour; it keeps it as long as it keeps its value in the label map."""
    return colour_of(entry.label_value - 1)


def _tint(drawn: Picture, labels: Labels, entry: SessionObject) -> None:
    assert entry.box is not None
    x0, y0, x1, y1 = entry.box
    before = np.arange(256)[:, None, None]
    mixed = before + (np.array(target_colour(entry)) - before) * OPACITY  # (256, 1, 3)
    region = drawn[y0:y1, x0:x1]
    inside = (labels[y0:y1, x0:x1] == entry.label_value).view(np.uint8)
    cv2.copyTo(cv2.LUT(region, mixed.round().astype(np.uint8)), inside, region)


def _outline(drawn: Picture, entry: SessionObject, thickness: int) -> None:
    assert entry.box is not None
    x0, y0, x1, y1 = entry.box
    bits = np.ascontiguousarray(entry.mask[y0:y1, x0:x1]).view(np.uint8)
    contours, _ = cv2.findContours(bits, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    colour = target_colour(entry)
    cv2.drawContours(drawn, contours, -1, colour, thickness, offset=(x0, y0))
