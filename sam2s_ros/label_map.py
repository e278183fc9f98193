"""Label maps: one uint8 picture (H, W) that says which target each pixel belongs to. ROS-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Layer(NamedTuple):
    """A target to draw."""

    value: int  # 1..255
    mask: Mask  # (H, W)
    area: int  # pixels of the mask
    box: tuple[int, int, int, int] | None  # x0, y0, x1, y1 around the mask, x1 and y1 exclusive
    # Gives (H, W), how certain the target is of each pixel; asked only where masks overlap.
    logits: Callable[[], NDArray[np.float32]]


def draw_labels(height: int, width: int, layers: Sequence[Layer]) -> Labels:
    """Draw targets into one map, 0 for background.

    Where masks overlap, the target that is more certain of the pixel has it; of equally certain
    ones, the first.
    """
    labels = np.zeros((height, width), np.uint8)
    for layer in layers:
        if layer.box is not None:
            x0, y0, x1, y1 = layer.box
            region = labels[y0:y1, x0:x1]
            np.bitwise_or(region, _bits(layer.mask)[y0:y1, x0:x1] * np.uint8(layer.value), region)
    if cv2.countNonZero(labels) != sum(layer.area for layer in layers):
        _share_out(labels, layers)
    return labels


def _share_out(labels: Labels, layers: Sequence[Layer]) -> None:
    """Give each pixel that several masks claim to one of them."""
    rows, columns = _shared(layers)
    region = labels[rows, columns]
    claims = np.zeros(region.shape, np.uint8)
    for layer in layers:
        claims += _bits(layer.mask)[rows, columns]
    places = np.nonzero(claims > 1)
    best = np.full(places[0].size, -np.inf, np.float32)
    winner = np.zeros(places[0].size, np.uint8)
    for layer in layers:
        inside = layer.mask[rows, columns][places]
        if inside.any():
            certainty = np.where(inside, layer.logits()[rows, columns][places], -np.inf)
            better = certainty > best
            best[better], winner[better] = certainty[better], layer.value
    region[places] = winner


def _shared(layers: Sequence[Layer]) -> tuple[slice, slice]:
    """The rows and columns in which boxes overlap."""
    boxes = [layer.box for layer in layers if layer.box is not None]
    common = [
        (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        for a, b in combinations(boxes, 2)
    ]
    met = np.array([box for box in common if box[0] < box[2] and box[1] < box[3]])
    (x0, y0), (x1, y1) = met[:, :2].min(0), met[:, 2:].max(0)
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _bits(mask: Mask) -> NDArray[np.uint8]:
    return mask.view(np.uint8)
