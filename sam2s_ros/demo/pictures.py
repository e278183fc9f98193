"""The demonstration's video, contact sheet, and the README's picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sam2s_model import metrics
from sam2s_model.classes import INSTRUMENTS
from sam2s_model.overlay import WHITE, caption, colour_of, contact_sheet, outline, tag, tint
from sam2s_model.video import VideoWriter
from sam2s_ros.demo.stream import Frame, Target
from sam2s_ros.demo.tracking import Result

Picture = NDArray[np.uint8]
Labels = NDArray[np.uint8]

UNTRAINED = "simulator's ground truth (tracker runs with random weights)"
TRAINED = "tracker: filled; ground truth: white"
MISSED = "no result for this frame; ground truth: white"
SHEET = 6  # frames in the contact sheet
MIN_TAGGED = 0.0008  # of the picture: smaller parts get a border but no name
MIN_NAMED_TISSUE = 0.012  # of the picture: smaller tissue gets no name
MIN_SHOWN = 0.02  # of the picture: instruments that make a frame worth a place in the sheet
TISSUE_OPACITY = 0.55  # of the border around tissue
SHADE, PALE = (35, 22, 22), (250, 240, 235)  # of letters on tissue
FONT = cv2.FONT_HERSHEY_SIMPLEX

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels


def draw_truth(image: Picture, labels: Labels, classes: Mapping[int, str]) -> Picture:
    """Draw every instance: instruments tinted, tissue with a faint border; all with their names."""
    visible = [k for k in classes if np.count_nonzero(labels == k) >= MIN_TAGGED * labels.size]
    tissue = [k for k in visible if classes[k] not in INSTRUMENTS]
    tools = [k for k in visible if classes[k] in INSTRUMENTS]
    drawn: Picture = image.copy()
    for identity in tissue:
        # A border between two pixels, so that the picture's own edge gets none.
        drawn = tint(drawn, metrics.mask_boundary(labels == identity), WHITE, TISSUE_OPACITY)
    for identity in tools:
        mask, colour = labels == identity, colour_of(identity)
        drawn = outline(tint(drawn, mask, colour, 0.35), mask, colour, _line(image))
    taken: list[Rectangle] = []
    for identity in tools:
        drawn = _name(drawn, labels == identity, classes[identity], colour_of(identity), taken)
    for identity in tissue:
        if np.count_nonzero(labels == identity) >= MIN_NAMED_TISSUE * labels.size:
            drawn = _name(drawn, labels == identity, classes[identity], None, taken)
    return drawn


def draw_result(
    image: Picture, labels: Labels | None, targets: Sequence[Target], result: Result | None
) -> Picture:
    """Draw the tracker's masks, named by its classes, with the true borders in white."""
    drawn = image
    taken: list[Rectangle] = []
    for target in targets:
        colour = colour_of(target.identity)
        # A target whose prompt the node has not applied yet is not in the result.
        mask = None if result is None else result.masks.get(target.name)
        if mask is not None and mask.any():
            drawn = outline(tint(drawn, mask, colour), mask, colour, _line(image))
        if labels is not None:
            drawn = outline(drawn, labels == target.identity, WHITE)
        if result is not None and mask is not None and mask.any():
            drawn = _name(drawn, mask, result.labels[target.name], colour, taken)
    return drawn


class Album:
    """Draws the received frames one by one, with or without the tracker's masks."""

    def __init__(
        self,
        frames: Mapping[int, Frame],
        labels: Mapping[int, Labels],
        classes: Mapping[int, str],
        targets: Sequence[Target],
        results: Sequence[Result],
        trained: bool,
    ) -> None:
        self._frames, self._labels, self._classes = frames, labels, classes
        self._targets, self._trained = targets, trained
        self._results = {result.stamp: result for result in results}
        self.stamps = sorted(frames)

    def page(self, stamp: int) -> Picture:
        """Draw one frame with its caption."""
        image, labels = self._frames[stamp].image, self._labels.get(stamp)
        if self._trained:
            drawn = draw_result(image, labels, self._targets, self._results.get(stamp))
        else:
            drawn = image if labels is None else draw_truth(image, labels, self._classes)
        seconds = (stamp - self.stamps[0]) / 1e9
        tracked = TRAINED if stamp in self._results else MISSED
        return caption(drawn, f"{seconds:4.1f} s   {tracked if self._trained else UNTRAINED}")

    def write_video(self, path: Path, rate: float) -> None:
        """Write every received frame as a video, at the rate they came in (`rate` for just one)."""
        if len(self.stamps) > 1:
            rate = (len(self.stamps) - 1) * 1e9 / (self.stamps[-1] - self.stamps[0])
        with VideoWriter(path, rate) as writer:
            for stamp in tqdm(self.stamps, desc="writing the video", unit="frame", leave=False):
                writer.write(self.page(stamp))

    def write_sheet(self, path: Path) -> None:
        """Write frames from begin to end, side by side.

        Of those there are, frames that show an instrument; and, with the tracker's masks, that
        have any.
        """
        stamps = [stamp for stamp in self.stamps if self._shows_instrument(stamp)] or self.stamps
        if self._trained:
            stamps = [stamp for stamp in stamps if stamp in self._results] or stamps
        places = np.linspace(0, len(stamps) - 1, min(SHEET, len(stamps))).round()
        pages = [self.page(stamps[int(place)]) for place in places]
        write_png(path, contact_sheet(pages, columns=3))

    def _shows_instrument(self, stamp: int) -> bool:
        if stamp not in self._labels:
            return False
        areas = np.bincount(self._labels[stamp].reshape(-1), minlength=256)
        tools = [k for k, name in self._classes.items() if name in INSTRUMENTS]
        return bool(areas[tools].sum() >= MIN_SHOWN * areas.sum())


def write_png(path: Path, picture: Picture) -> None:
    """Write an RGB picture."""
    done, data = cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    path.write_bytes(data.tobytes())


def _name(
    image: Picture,
    mask: NDArray[np.bool_],
    text: str,
    colour: Colour | None,
    taken: list[Rectangle],
) -> Picture:
    """Write a mask's name on it: a tag in its colour, or plain letters for None.

    The name goes to the mask's middle, or where no name is `taken` place yet; else it is left out.
    """
    (width, height), _ = cv2.getTextSize(text, FONT, text_scale(image), 1)
    width, height = width + height, 2 * height
    ys, xs = np.nonzero(mask)
    order = np.argsort(np.hypot(ys - ys.mean(), xs - xs.mean()))
    for place in order[:: max(1, len(order) // 24)]:
        x = int(np.clip(xs[place] - width // 2, 2, max(2, image.shape[1] - width - 2)))
        y = int(np.clip(ys[place] + height // 2, height + 2, image.shape[0] - 3))
        box = (x - 2, y - height - 2, x + width + 2, y + 2)
        if any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        if colour is not None:
            return tag(image, text, (x, y), colour)
        drawn: Picture = image.copy()
        left, base = x + height // 4, y - height // 4
        for dx, dy, ink in (
            (1, 0, SHADE),
            (-1, 0, SHADE),
            (0, 1, SHADE),
            (0, -1, SHADE),
            (0, 0, PALE),
        ):
            corner = (left + dx, base + dy)
            cv2.putText(drawn, text, corner, FONT, text_scale(image), ink, 1, cv2.LINE_AA)
        return drawn
    return image


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def text_scale(image: Picture) -> float:
    """Give the size of letters that fits a picture, as `overlay.tag` has it."""
    return float(max(0.35, min(image.shape[:2]) / 1100))


def _line(image: Picture) -> int:
    return max(1, int(image.shape[0]) // 360)
