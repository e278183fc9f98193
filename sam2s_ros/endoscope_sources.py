"""What the endoscope node can show: the simulator, a video file, a folder of pictures. ROS-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2s_model.classes import UNKNOWN
from sam2s_model.errors import Sam2sError
from sam2s_model.video import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Ids,
    LayoutError,
    VideoReader,
    read_image,
    read_mask,
)

SIDES = ("mono", "left", "right")


class EndoscopeError(Sam2sError):
    """A parameter that the endoscope cannot work with, or a source that failed."""


class SourceFrame(NamedTuple):
    """One frame and, where it is known, its truth."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    ids: NDArray[np.uint8] | None  # (H, W) instance ids, 0 background
    classes: Mapping[int, str]  # every id known so far, in view or not: its class


class Source(Protocol):
    """Frames by number, from 0."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame, pixels."""

    @property
    def length(self) -> int | None:
        """Number of frames; None if there is always another."""

    @property
    def parallel(self) -> bool:
        """Whether frames can be made in any order, several at once."""

    def __str__(self) -> str:
        """One line for the log."""

    def frame(self, number: int) -> SourceFrame:
        """Make or read a frame."""


class SimulatedSource:
    """The simulator, or one eye of a stereo pair that looks at it.

    Both eyes see the same scene, `disparity` pixels apart, as if all of it were equally far away.
    """

    length = None
    parallel = True

    def __init__(
        self,
        seed: int,
        width: int,
        height: int,
        rate: float,
        instruments: list[str] | None = None,
        side: str = "mono",
        disparity: int = 0,
    ) -> None:
        # Takes seconds, because of torch; files need neither.
        from sam2s_model.synth import SurgicalScene

        self.size = (height, width)
        apart = 0 if side == "mono" else disparity
        self._columns = slice(apart, apart + width) if side == "right" else slice(0, width)
        self.scene = SurgicalScene(seed, width + apart, height, fps=rate, instruments=instruments)

    def __str__(self) -> str:
        names = ", ".join(f"{k} {name}" for k, name in self.scene.classes.items())
        return f"scene {self.scene.seed} ({names})"

    def frame(self, number: int) -> SourceFrame:
        """Render a frame; no other is needed for it."""
        shot = self.scene.render(number)
        return SourceFrame(shot.image[:, self._columns], shot.masks[:, self._columns], shot.classes)


class VideoSource:
    """A video file, with a folder of masks named by frame number where there is one."""

    parallel = False  # a decoder goes forward only

    def __init__(self, path: Path, masks: Path | None, classes: Mapping[int, str]) -> None:
        self._reader = VideoReader(path)
        self.size, self.length, self.fps = self._reader.size, len(self._reader), self._reader.fps
        self._truth = _Truth(masks, classes)

    def __str__(self) -> str:
        return f"{self._reader.path}, {self.length} frames"

    def frame(self, number: int) -> SourceFrame:
        """Decode a frame; cheapest in rising order."""
        return self._truth.with_image(self._reader.frame(number), f"{number:05d}", number)


class FolderSource:
    """A folder of pictures in the order of their names, masks of the same names beside it."""

    parallel = True

    def __init__(self, folder: Path, masks: Path | None, classes: Mapping[int, str]) -> None:
        self._folder = folder
        self._files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._files:
            raise LayoutError(folder, f"holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        first = read_image(self._files[0], 0)
        self.size, self.length = (first.shape[0], first.shape[1]), len(self._files)
        self._truth = _Truth(masks, classes)

    def __str__(self) -> str:
        return f"{self._folder}, {self.length} pictures"

    def frame(self, number: int) -> SourceFrame:
        """Read a picture."""
        path = self._files[number]
        return self._truth.with_image(read_image(path, number), path.stem, number)


def open_files(path: Path, masks: str, classes: str) -> VideoSource | FolderSource:
    """Open a video file or a folder of pictures.

    `masks` is a folder of masks and `classes` a JSON file {"1": "grasper"}; both may be empty.
    """
    truth = Path(masks) if masks else None
    if classes and truth is None:
        raise EndoscopeError("`classes` names the instances of `masks`, but no masks are given")
    names = read_classes(Path(classes)) if classes else {}
    if truth is not None and not truth.is_dir():
        raise LayoutError(truth, "no such folder; masks (.png) were expected here")
    if path.is_dir():
        return FolderSource(path, truth, names)
    if not path.exists():
        raise EndoscopeError(
            f"the source '{path}' does not exist; give a video file, a folder of pictures, or "
            "nothing for the simulator"
        )
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise EndoscopeError(
            f"the source '{path}' is no folder and no video ({', '.join(VIDEO_SUFFIXES)})"
        )
    return VideoSource(path, truth, names)


def read_classes(path: Path) -> dict[int, str]:
    """Read the class names of a clip's instances from JSON: {"1": "grasper"}."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {int(key): str(value) for key, value in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise EndoscopeError(
            f'{path}: {error}; expected JSON such as {{"1": "grasper"}}'
        ) from error


class _Truth:
    """Masks of a clip by file name; frames without one have no truth."""

    def __init__(self, folder: Path | None, classes: Mapping[int, str]) -> None:
        self._folder = folder
        self._classes = dict(classes)

    def with_image(self, image: NDArray[np.uint8], stem: str, number: int) -> SourceFrame:
        path = self._folder / f"{stem}.png" if self._folder is not None else None
        if path is None or not path.exists():
            return SourceFrame(image, None, self._classes)
        ids = read_mask(path, number)
        _check(ids, image, path)
        seen = [int(k) for k in np.unique(ids) if k]
        # A new mapping, because earlier frames may still be waiting with theirs.
        self._classes = {**dict.fromkeys(seen, UNKNOWN), **self._classes}
        return SourceFrame(image, ids.astype(np.uint8), dict(sorted(self._classes.items())))


def _check(ids: Ids, image: NDArray[np.uint8], path: Path) -> None:
    if ids.shape != image.shape[:2]:
        raise EndoscopeError(
            f"{path} is {ids.shape[1]}×{ids.shape[0]}, its picture "
            f"{image.shape[1]}×{image.shape[0]}; they must be of the same size"
        )
    if ids.min() < 0 or ids.max() > 255:
        raise EndoscopeError(f"{path} has the id {ids.max()}; a label map has room for 1..255")
