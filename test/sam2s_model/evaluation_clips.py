"""Clips of plain coloured shapes, and a tracker that follows colours: what it scores is known."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from sam2s_model.evaluation.report import ReportOptions
from sam2s_model.prompt import Prompt
from sam2s_model.video import write_mask

Ids = NDArray[np.int32]
PLAIN = ReportOptions(plots=False, worst=0, show_progress=False)
COLOURS = [(20, 20, 20), (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def block(*places: tuple[int, int, int, int, int], size: tuple[int, int] = (48, 64)) -> Ids:
    """Ids of a frame with rectangles (id, y, x, height, width)."""
    ids = np.zeros(size, np.int32)
    for instance, y, x, height, width in places:
        ids[y : y + height, x : x + width] = instance
    return ids


def moving_square(frames: int, instance: int = 1, away: Sequence[int] = ()) -> list[Ids]:
    """A square of 16 pixels that moves right, and is gone on the frames `away`."""
    return [block(*([] if n in away else [(instance, 10, 5 + n, 16, 16)])) for n in range(frames)]


def paint(ids: Ids, halves: bool = False) -> NDArray[np.uint8]:
    """Give each id a colour of its own; with `halves`, its right half a darker one."""
    image = np.array(COLOURS, np.uint8)[ids % len(COLOURS)]
    if halves:
        for instance in np.unique(ids[ids > 0]):
            columns = np.flatnonzero((ids == instance).any(0))
            right = (ids == instance) & (np.arange(ids.shape[1]) >= columns.mean() + 2)
            image[right] //= 2
    return image


def write_clip(
    root: Path,
    name: str,
    clip: Sequence[Ids | None],
    truth: Sequence[Ids | None] | None = None,
    halves: bool = False,
) -> None:
    """Write a clip in DAVIS layout; `truth` are other annotations, None an unannotated frame."""
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    annotated = clip if truth is None else truth
    shown = clip[0]
    for n, ids in enumerate(clip):
        shown = shown if ids is None else ids
        assert shown is not None
        PilImage.fromarray(paint(shown, halves)).save(images / f"{n:05d}.png")
        if (mask := annotated[n]) is not None:
            write_mask(masks / f"{n:05d}.png", mask)


@dataclass
class Seen:
    """A target's result."""

    mask: NDArray[np.bool_]
    presence: float
    label: str = "unknown"
    label_scores: Mapping[str, float] = field(default_factory=dict)


class ColourTracker:
    """Follows the colours that the prompts marked, with the faults of its spec."""

    def __init__(self, spec: ColourSpec) -> None:
        self.spec = spec
        self.reset()

    def reset(self) -> None:
        if self.spec.log is not None:
            with self.spec.log.open("a") as log:
                log.write("reset\n")
        self.colours: dict[str, set[tuple[int, ...]]] = {}
        self.pending: dict[str, Prompt] = {}
        self.last: dict[str, NDArray[np.bool_]] = {}
        self.frame = -1

    def state_dict(self) -> dict[str, Any]:
        return copy.deepcopy({k: v for k, v in vars(self).items() if k != "spec"})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(copy.deepcopy(state))

    def add_target(self, name: str, prompt: Prompt) -> None:
        self.pending[name] = prompt

    def step(self, frame: NDArray[np.uint8]) -> dict[str, Seen]:
        self.frame += 1
        if self.spec.exit_at == self.frame:
            os._exit(9)
        if self.spec.crash_at == self.frame:
            raise RuntimeError("the tracker broke")
        for name, prompt in self.pending.items():
            self._take_up(name, prompt, frame)
        self.pending = {}
        return {name: self._find(name, frame) for name in self.colours}

    def _take_up(self, name: str, prompt: Prompt, frame: NDArray[np.uint8]) -> None:
        wanted = self.colours.setdefault(name, set())
        if prompt.mask is not None:
            wanted |= {tuple(c) for c in frame[np.asarray(prompt.mask)].tolist()}
        if prompt.box is not None:
            x0, y0, x1, y1 = (int(v) for v in np.asarray(prompt.box))
            wanted |= {tuple(c) for c in frame[y0:y1, x0:x1].reshape(-1, 3).tolist()}
            wanted.discard(COLOURS[0])
        if prompt.points is not None:
            for (x, y), label in zip(
                np.asarray(prompt.points), np.asarray(prompt.labels), strict=True
            ):
                colour = tuple(frame[int(y), int(x)].tolist())
                (wanted.add if label else wanted.discard)(colour)

    def _find(self, name: str, frame: NDArray[np.uint8]) -> Seen:
        spec = self.spec
        mask = np.zeros(frame.shape[:2], bool)
        for colour in self.colours[name]:
            mask |= (frame == np.array(colour, np.uint8)).all(-1)
        if not mask.any() and spec.clings and name in self.last:
            mask = self.last[name]
        if self.frame in spec.blind:
            mask = np.zeros_like(mask)
        if mask.any():
            self.last[name] = mask
        mask = np.roll(mask, spec.shift, axis=1) if self.frame else mask
        label = spec.labels.get(name)
        scores = {} if label is None else {label: 1.0}
        return Seen(mask, float(mask.any()), label or "unknown", scores)


@dataclass(frozen=True)
class ColourSpec:
    """A colour tracker's faults; `log` gets a line for every clip it begins."""

    shift: int = 0  # pixels by which every mask but the first is moved to the right
    blind: Sequence[int] = ()  # frames on which it says absent
    clings: bool = False  # shows the last mask where the target is gone
    labels: Mapping[str, str] = field(default_factory=dict)
    crash_at: int | None = None  # raises on this frame
    exit_at: int | None = None  # takes the process down on this frame
    log: Path | None = None

    def describe(self) -> dict[str, Any]:
        return {"shift": self.shift, "blind": list(self.blind), "clings": self.clings}

    def build(self) -> ColourTracker:
        return ColourTracker(self)


Evaluate = Callable[..., dict[str, Any]]
