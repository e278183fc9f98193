"""Drawing results onto frames: tinted masks, contours, labels, captions, contact sheets.

Pictures are uint8 (H, W, 3) RGB, colours are RGB triples. Functions return a new picture.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (18, 18, 20)
OPACITY = 0.45  # of a mask's tint: the tissue below must stay readable
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.61803398875  # steps of hue that never meet again


class OverlayError(Sam2sError):
    """Pictures that cannot be drawn on or put together."""


def colour_of(index: int) -> Colour:
    """Pick the `index`-th target's colour: neighbours differ, none looks like blood or tissue."""
    # Hues from yellow over green and blue to violet: the scene itself is red and pink.
    hue = 0.14 + 0.70 * ((index * _GOLDEN) % 1)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


class Drawing(NamedTuple):
    """A target to draw: its mask (H, W), its colour, a label, and the true mask if it is known."""

    mask: Mask
    colour: Colour
    label: str = ""
    truth: Mask | None = None


def draw_targets(image: Image, targets: Sequence[Drawing]) -> Image:
    """Draw targets: masks tinted and outlined, true borders in white, labels on top of all."""
    drawn: Image = np.array(image, order="C")
    shown = [target for target in targets if target.mask.any()]
    for target in shown:
        _check(image, target.mask)
        _tint(drawn, target.mask, target.colour, OPACITY)
        _outline(drawn, target.mask, target.colour, max(1, image.shape[0] // 360))
    for target in targets:
        if target.truth is not None:
            _check(image, target.truth)
            _outline(drawn, target.truth, WHITE, 1)
    for target in shown:
        if target.label:
            top = int(np.flatnonzero(target.mask.any(1))[0])
            left = int(np.flatnonzero(target.mask[top])[0])
            _tag(drawn, target.label, (left, top), target.colour)
    return drawn


def tint(image: Image, mask: Mask, colour: Colour, opacity: float = OPACITY) -> Image:
    """Lay a colour over the pixels of `mask` (H, W)."""
    _check(image, mask)
    drawn: Image = image.copy()
    _tint(drawn, mask, colour, opacity)
    return drawn


def outline(image: Image, mask: Mask, colour: Colour, thickness: int = 1) -> Image:
    """Draw the border of `mask` (H, W)."""
    _check(image, mask)
    drawn: Image = np.array(image, order="C")
    _outline(drawn, mask, colour, thickness)
    return drawn


def tag(image: Image, label: str, corner: tuple[int, int], colour: Colour) -> Image:
    """Write a label on a patch of colour whose lower left corner is at (x, y), kept inside."""
    drawn: Image = np.array(image, order="C")
    _tag(drawn, label, corner, colour)
    return drawn


def caption(image: Image, text: str) -> Image:
    """Put a dark line of text above the picture (which grows by the line's height)."""
    scale = _text_scale(image)
    (_, height), below = cv2.getTextSize("Ag", _FONT, scale, 1)
    strip = np.full((2 * height + 2 * below, image.shape[1], 3), INK, np.uint8)
    place = (height // 2, strip.shape[0] - below - height // 2)
    cv2.putText(strip, text, place, _FONT, scale, WHITE, 1, cv2.LINE_AA)
    return np.concatenate([strip, image])


def contact_sheet(images: Sequence[Image], columns: int = 0, gap: int = 4) -> Image:
    """Lay pictures of one size out in a grid on a dark ground (as square as it goes by default)."""
    if not images:
        raise OverlayError("a contact sheet needs at least one picture")
    height, width = images[0].shape[:2]
    if any(image.shape != images[0].shape for image in images):
        sizes = sorted({f"{image.shape[1]}×{image.shape[0]}" for image in images})
        raise OverlayError(f"pictures of one size were expected, not {', '.join(sizes)}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), INK, np.uint8)
    for k, image in enumerate(images):
        y = gap + (k // columns) * (height + gap)
        x = gap + (k % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = image
    return sheet


def _tint(drawn: Image, mask: Mask, colour: Colour, opacity: float) -> None:
    inside = drawn[mask].astype(np.float32)
    drawn[mask] = (inside + (np.array(colour, np.float32) - inside) * opacity).round()


def _outline(drawn: Image, mask: Mask, colour: Colour, thickness: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, colour, thickness)


def _tag(drawn: Image, label: str, corner: tuple[int, int], colour: Colour) -> None:
    scale = _text_scale(drawn)
    (width, height), below = cv2.getTextSize(label, _FONT, scale, 1)
    pad = max(2, height // 4)
    x = min(max(corner[0], 0), max(drawn.shape[1] - width - 2 * pad, 0))
    y = min(max(corner[1], height + below + 2 * pad), drawn.shape[0] - 1)
    top = y - height - below - 2 * pad
    cv2.rectangle(drawn, (x, top), (x + width + 2 * pad, y), colour, -1)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = INK if bright > 128 else WHITE
    cv2.putText(drawn, label, (x + pad, y - pad - below), _FONT, scale, ink, 1, cv2.LINE_AA)


def _text_scale(image: Image) -> float:
    return float(max(0.35, min(image.shape[:2]) / 1100))


def _check(image: Image, mask: Mask) -> None:
    if image.shape[:2] != mask.shape:
        raise OverlayError(
            f"a mask of {mask.shape[1]}×{mask.shape[0]} does not fit a picture of "
            f"{image.shape[1]}×{image.shape[0]}"
        )
