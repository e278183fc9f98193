"""Label maps: one uint8 picture (H, W) that says which target each pixel belongs to. ROS-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_ros.patch import Patch

Labels = NDArray[np.uint8]


class Layer(NamedTuple):
    """A target to draw."""

    value: int  # 1..255
    patch: Patch
    area: int  # pixels of the mask
    # Given rows and columns, says how certain the target is of each pixel there; asked only where
    # masks overlap.
    logits: Callable[[slice, slice], NDArray[np.float32]]


def draw_labels(labels: Labels, layers: Sequence[Layer]) -> Labels:
    """Draw targets into a map (H, W) that is 0 everywhere, and return it.

    Where masks overlap, the target that is more certain of the pixel has it; of equally certain
    ones, the first.
    """
    for layer in layers:
        region = labels[layer.patch.rows, layer.patch.columns]
        np.bitwise_or(region, _bits(layer) * np.uint8(layer.value), region)
    if cv2.countNonZero(labels) != sum(layer.area for layer in layers):
        _share_out(labels, layers)
    return labels


def _share_out(labels: Labels, layers: Sequence[Layer]) -> None:
    """Draw anew where rectangles overlap, each pixel for the one that is most certain of it."""
    rows, columns = _shared([layer.patch for layer in layers])
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    best = np.full(shape, -np.inf, np.float32)
    for layer in layers:
        y, x = _common(rows, layer.patch.rows), _common(columns, layer.patch.columns)
        if y.start == y.stop or x.start == x.stop:
            continue
        bits = _bits(layer)[_moved(y, layer.patch.y0), _moved(x, layer.patch.x0)]
        certainty = layer.logits(y, x)
        known, region = best[_moved(y, rows.start), _moved(x, columns.start)], labels[y, x]
        better = np.asarray(cv2.compare(certainty, known, cv2.CMP_GT), np.uint8) * bits  # 255 or 0
        cv2.copyTo(certainty, better, known)
        np.bitwise_and(region, ~better, region)
        np.bitwise_or(region, better & np.uint8(layer.value), region)


def _common(a: slice, b: slice) -> slice:
    begin = max(a.start, b.start)
    return slice(begin, max(begin, min(a.stop, b.stop)))


def _moved(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)


def _shared(patches: Sequence[Patch]) -> tuple[slice, slice]:
    """The rows and columns in which rectangles overlap."""
    met = [(_common(a.rows, b.rows), _common(a.columns, b.columns))
           for a, b in combinations(patches, 2)]  # fmt: skip
    met = [(y, x) for y, x in met if y.start < y.stop and x.start < x.stop]
    return (
        slice(min(y.start for y, _ in met), max(y.stop for y, _ in met)),
        slice(min(x.start for _, x in met), max(x.stop for _, x in met)),
    )


def _bits(layer: Layer) -> NDArray[np.uint8]:
    return layer.patch.pixels.view(np.uint8)
