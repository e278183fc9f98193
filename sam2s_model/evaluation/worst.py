"""The overlay video of a clip: predictions tinted, true borders white, scores in a caption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sam2s_model.evaluation.record import ClipRecord
from sam2s_model.overlay import Drawing, caption, colour_of, draw_targets
from sam2s_model.video import AnnotatedSequence, Image, VideoError, read_mask, write_video

DEFAULT_FPS = 25.0


def overlay_clip(path: Path, sequence: AnnotatedSequence, record: ClipRecord, masks: Path) -> None:
    """Draw a clip's predictions, read from a folder of masks, into an H.264 video."""
    write_video(path, _frames(sequence, record, masks), record.fps or DEFAULT_FPS)


def _frames(sequence: AnnotatedSequence, record: ClipRecord, masks: Path) -> Iterator[Image]:
    row_of = {frame: k for k, frame in enumerate(record.annotated)}
    name_of = getattr(sequence, "frame_name", "{:05d}".format)
    for index in range(len(sequence)):
        try:
            image = sequence.frame(index)
        except VideoError:
            continue  # already among the run's problems
        row = row_of.get(index)
        truth = sequence.masks(index) if row is not None else None
        file = masks / f"{name_of(index)}.png"
        drawn = read_mask(file) if file.exists() else None
        nothing = np.zeros(image.shape[:2], bool)
        targets = [
            Drawing(
                mask=nothing if drawn is None else drawn == series.instance,
                colour=colour_of(k),
                label=f"{series.name} {series.class_name or ''}".strip(),
                truth=None if truth is None else truth == series.instance,
            )
            for k, series in enumerate(record.targets)
        ]
        yield caption(draw_targets(image, targets), _text(record, index, row))


def _text(record: ClipRecord, index: int, row: int | None) -> str:
    text = f"{record.clip}  frame {index}"
    if row is None:
        return text
    shown = [t for t in record.targets if t.area[row] or t.predicted_area[row]]
    scores = (
        f"{t.name}: {100 * t.j[row]:.0f}" if t.area[row] else f"{t.name}: absent" for t in shown
    )
    return text + "  J " + "  ".join(scores) if shown else text
