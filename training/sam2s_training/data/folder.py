"""Clips from folders in DAVIS layout: JPEGImages/<video>/*.jpg, Annotations/<video>/*.png.

A classes file names the instances: `{1: grasper}` for all videos, or `{video: {1: grasper}}`, as
YAML or JSON. Everything that can be checked without decoding pixels is checked at construction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image as PilImage
from tqdm import tqdm

from sam2s_model.classes import INSTRUMENTS
from sam2s_model.evaluation.sources import FolderClip, find_clips
from sam2s_model.video import IMAGE_SUFFIXES, MASK_SUFFIX, read_image, read_mask
from sam2s_training.data.clip import NO_CLASS, Clip, randomness
from sam2s_training.data.errors import DataSettingError, FolderError, NoTargetError
from sam2s_training.data.names import ClassNumbers
from sam2s_training.data.resize import resize_ids, resize_images
from sam2s_training.data.sampler import SamplerSettings, draw_frames

CLASSES_FILES = ("classes.yaml", "classes.yml", "classes.json")
STREAM = 7004  # tells these random numbers from others of the same seed and clip
TRIES = 16  # first frames without a target before the next video is taken
SHOWN = 5  # of many files that are wrong, how many a message names


@dataclass(frozen=True)
class FolderSettings:
    """A data set on disk, and what of it becomes a target."""

    root: str  # holds JPEGImages and Annotations
    classes: str | None = None  # YAML or JSON; None: classes.yaml or .json in `root`, if there
    split: str | None = None  # a file of video names, or the name of one below ImageSets
    sparse: bool = False  # pictures without a mask are frames that nobody annotated, and skipped
    max_targets: int = 3  # targets of a clip, fewer where fewer can be seen
    min_pixels: int = 20  # of a target on the first frame, at the network's size

    def __post_init__(self) -> None:
        for name in ("max_targets", "min_pixels"):
            if getattr(self, name) < 1:
                raise DataSettingError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class _Video:
    name: str
    images: tuple[Path, ...]  # annotated frames only, in order
    masks: tuple[Path, ...]  # one a picture
    numbers: tuple[int, ...]  # of the frames in the video
    classes: Mapping[int, int]  # instance id: number in the bank, or NO_CLASS


class FolderSource:
    """Clips of a data set on disk; each video once before any comes again.

    Args:
        size: S, pixels of the network's square input.
        settings: where the data set is.
        sampler: which frames make a clip, counted over the annotated ones.
        seed: another seed gives another order, other frames, other targets.
        instruments: the text bank's instruments, in its order.
        progress: show a progress bar while the files are checked.
    """

    def __init__(
        self,
        size: int,
        settings: FolderSettings,
        sampler: SamplerSettings | None = None,
        *,
        seed: int = 0,
        instruments: Sequence[str] = INSTRUMENTS,
        progress: bool = True,
    ) -> None:
        self.size, self.settings, self.seed = size, settings, seed
        self.sampler = sampler or SamplerSettings()
        self.videos = _read_layout(settings, ClassNumbers(instruments), progress)

    def sample(self, index: int) -> Clip:
        """Read clip `index`."""
        epoch, place = divmod(index, len(self.videos))
        order = randomness(self.seed, STREAM, epoch).permutation(len(self.videos))
        random = randomness(self.seed, STREAM, index, 0)
        # A video that shows nothing where it was looked for gives way to the next one.
        for video in (self.videos[order[(place + k) % len(order)]] for k in range(len(order))):
            for _ in range(TRIES):
                frames = draw_frames(self.sampler, len(video.images), random)
                first = self._ids(video, frames[:1])
                targets = self._choose(first[0].numpy(), random)
                if targets:
                    return self._clip(video, frames, targets)
        raise NoTargetError(
            f"{self.settings.root}: no target of {self.settings.min_pixels} pixels was found in "
            "any video; are the masks empty? Else lower min_pixels"
        )

    def _choose(self, ids: NDArray[np.int32], random: np.random.Generator) -> list[int]:
        counts = np.bincount(ids.ravel(), minlength=1)
        counts[0] = 0
        fitting = np.flatnonzero(counts >= self.settings.min_pixels)
        chosen = random.permutation(fitting)[: self.settings.max_targets]
        return [int(identity) for identity in chosen]

    def _clip(self, video: _Video, frames: NDArray[np.int64], targets: Sequence[int]) -> Clip:
        images = torch.cat([self._image(video, int(n)) for n in frames])
        ids = self._ids(video, frames)
        wanted = torch.tensor(list(targets), dtype=ids.dtype)
        numbers = tuple(video.numbers[n] for n in frames)
        return Clip(
            images,
            ids[None] == wanted[:, None, None, None],
            torch.tensor([video.classes.get(t, NO_CLASS) for t in targets]),
            f"{self.settings.root}: {video.name}, frames {' '.join(map(str, numbers))}",
            numbers,
            self.sampler.long,
        )

    def _image(self, video: _Video, n: int) -> torch.Tensor:
        return resize_images(torch.from_numpy(read_image(video.images[n]))[None], self.size)

    def _ids(self, video: _Video, frames: NDArray[np.int64]) -> torch.Tensor:
        """Read masks as ids at the network's size: int32 [T, S, S]."""
        masks = [torch.from_numpy(read_mask(video.masks[n]))[None] for n in frames]
        return torch.cat([resize_ids(mask, self.size) for mask in masks])


def read_classes(file: Path, videos: Sequence[str]) -> dict[str, dict[int, str]]:
    """Read the instances' class names for each video."""
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FolderError(f"{file} cannot be read as YAML or JSON: {error}") from error
    form = f"{file}: expected {{1: grasper}} or {{video: {{1: grasper}}}}"
    if not isinstance(content, dict):
        raise FolderError(form)
    nested = [isinstance(value, dict) for value in content.values()]
    if not any(nested):
        names = _names(content, form)
        return dict.fromkeys(videos, names)
    if not all(nested):
        raise FolderError(f"{form}, not both in one file")
    return {str(video): _names(value, form) for video, value in content.items()}


def _names(content: Mapping[object, object], form: str) -> dict[int, str]:
    try:
        return {int(str(key)): str(value) for key, value in content.items()}
    except ValueError as error:
        raise FolderError(f"{form}; {error}") from error


def _read_layout(
    settings: FolderSettings, numbers: ClassNumbers, progress: bool
) -> tuple[_Video, ...]:
    """List the videos; refuse what does not fit together."""
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise FolderError(f"{root} is no folder; expected one with JPEGImages and Annotations")
    found = find_clips(str(root), split=settings.split)
    clips = [clip for clip in found if isinstance(clip, FolderClip)]
    names = [clip.name for clip in clips]
    classes = _class_names(root, settings, names)
    if settings.split is None:
        images = clips[0].images.parent
        lone = sorted({path.name for path in images.iterdir() if path.is_dir()} - set(names))
        if lone:
            raise FolderError(
                f"{images} has {_listed(lone)} without a folder of masks in "
                f"{clips[0].masks.parent}; annotate or remove them, or choose videos by a split"
            )
    videos = []
    for clip in tqdm(clips, f"checking {root.name}", unit="video", disable=not progress):
        where = f"{root}, classes of {clip.name}"
        known = {key: numbers.of(name, where) for key, name in classes.get(clip.name, {}).items()}
        videos.append(_check_video(clip, known, settings.sparse))
    return tuple(videos)


def _class_names(
    root: Path, settings: FolderSettings, videos: Sequence[str]
) -> dict[str, dict[int, str]]:
    found = [root / name for name in CLASSES_FILES if (root / name).exists()]
    file = Path(settings.classes).expanduser() if settings.classes else next(iter(found), None)
    if file is None:
        return {}
    classes = read_classes(file, videos)
    unknown = sorted(set(classes) - set(videos))
    if unknown and settings.split is None:
        raise FolderError(f"{file} names {_listed(unknown)}, which {root} does not hold")
    return classes


def _check_video(clip: FolderClip, classes: Mapping[int, int], sparse: bool) -> _Video:
    """Match pictures and masks by name and size."""
    images = _files(clip.images, IMAGE_SUFFIXES, "pictures")
    masks = {path.stem: path for path in _files(clip.masks, (MASK_SUFFIX,), "masks")}
    lone = sorted(set(masks) - {path.stem for path in images})
    if lone:
        raise FolderError(
            f"{clip.masks}: {_listed(lone)} have no picture of the same name in {clip.images}"
        )
    bare = [path.stem for path in images if path.stem not in masks]
    if bare and not sparse:
        raise FolderError(
            f"{clip.images}: {_listed(bare)} have no mask of the same name in {clip.masks}; with "
            "`sparse: true` such frames are skipped"
        )
    pairs = [(n, path, masks[path.stem]) for n, path in enumerate(images) if path.stem in masks]
    for _, image, mask in pairs:
        if _size(image) != _size(mask):
            (w, h), (mask_w, mask_h) = _size(image), _size(mask)
            raise FolderError(
                f"{mask} is {mask_w}×{mask_h}, its picture {w}×{h}; they must be of the same size"
            )
    kept, pictures, annotations = zip(*pairs, strict=True)
    return _Video(clip.name, pictures, annotations, kept, classes)


def _files(folder: Path, suffixes: Iterable[str], what: str) -> list[Path]:
    if not folder.is_dir():
        raise FolderError(f"{folder}: there is no such folder; it should hold {what}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in tuple(suffixes))
    if not files:
        raise FolderError(f"{folder} holds no {what} ({', '.join(suffixes)})")
    return files


def _size(path: Path) -> tuple[int, int]:
    """Read a picture's width and height from its header."""
    try:
        with PilImage.open(path) as picture:
            width, height = picture.size
            return width, height
    except (OSError, SyntaxError, ValueError) as error:
        raise FolderError(f"{path}: no readable picture: {error}") from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_some(names))


def _some(names: Sequence[str]) -> Iterator[str]:
    yield from names[:SHOWN]
    if len(names) > SHOWN:
        yield f"{len(names) - SHOWN} more"
