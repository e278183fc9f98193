"""Where clips come from: a suite of rendered scenes, a DAVIS folder, a video with masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sam2s_model.errors import Sam2sError
from sam2s_model.video import (
    VIDEO_SUFFIXES,
    AnnotatedSequence,
    FolderSequence,
    LayoutError,
    VideoFileSequence,
)

CLASSES_FILE = "classes.json"
# DAVIS keeps one folder per resolution below JPEGImages and Annotations.
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


class SourceError(Sam2sError):
    """A source that is neither a suite, nor a folder in DAVIS layout, nor a video with masks."""


class ClassesFileError(SourceError):
    """A classes file that cannot be understood."""


class Clip(Protocol):
    """A video that can be opened; picklable, so that another process can open it."""

    @property
    def dataset(self) -> str:
        """The data set it belongs to."""

    @property
    def name(self) -> str:
        """Its name, unique in the data set."""

    def open(self) -> AnnotatedSequence:
        """Open the video and its annotation."""

    def fingerprint(self) -> str:
        """Short text that changes when the clip's data do."""


@dataclass(frozen=True)
class FolderClip:
    """Folders of pictures and masks."""

    dataset: str
    name: str
    images: Path
    masks: Path
    classes: Mapping[int, str] = field(default_factory=dict)

    def open(self) -> FolderSequence:
        """Open the folders."""
        return FolderSequence(self.images, self.masks, self.classes)

    def fingerprint(self) -> str:
        """Digest of the files' names, sizes and times, and of the classes."""
        return _digest(_stats(self.images), _stats(self.masks), dict(self.classes))


@dataclass(frozen=True)
class VideoClip:
    """A video file and a folder of masks named by frame number."""

    dataset: str
    name: str
    video: Path
    masks: Path
    classes: Mapping[int, str] = field(default_factory=dict)

    def open(self) -> VideoFileSequence:
        """Open the video file."""
        return VideoFileSequence(self.video, self.masks, self.classes)

    def fingerprint(self) -> str:
        """Digest of the files' names, sizes and times, and of the classes."""
        return _digest(_stats(self.video), _stats(self.masks), dict(self.classes))


@dataclass(frozen=True)
class SuiteClip:
    """A clip of a suite, rendered or read from the suite's cache when it is opened."""

    dataset: str
    name: str

    def open(self) -> AnnotatedSequence:
        """Render the clip, or read it from the cache."""
        from sam2s_model.synth import load_suite

        suite = load_suite(self.dataset)
        sequence: AnnotatedSequence = next(c for c in suite.clips if c.name == self.name).open()
        return sequence

    def fingerprint(self) -> str:
        """Digest of the clip's definition."""
        from sam2s_model.synth import load_suite

        suite = load_suite(self.dataset)
        return _digest(repr(next(c for c in suite.clips if c.name == self.name)))


def find_clips(
    source: str, masks: Path | None = None, classes: Path | None = None, split: str | None = None
) -> list[Clip]:
    """List a source's clips.

    `source` is a suite's name, a folder in DAVIS layout or a video file (then `masks` is the
    folder of its masks). `classes` names the instances: {"1": "grasper"} for all clips, or per
    clip {"clip": {"1": "grasper"}}; a folder's own classes.json is used if none is given. `split`
    is a file of clip names, or the name of one below ImageSets.
    """
    path = Path(source)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        if masks is None:
            raise SourceError(
                f"{source} is a video: give the folder of its masks too (--masks DIR, with files "
                "named by frame number such as 00000.png)"
            )
        names = _class_names(classes, [path.stem])
        return [VideoClip(path.stem, path.stem, path, masks, names[path.stem])]
    if path.is_dir():
        return list(_davis_clips(path, classes, split))
    if path.exists():
        raise SourceError(f"{source} is neither a folder nor a video ({', '.join(VIDEO_SUFFIXES)})")
    return list(_suite_clips(source))


def _suite_clips(name: str) -> Iterator[SuiteClip]:
    from sam2s_model.synth import SuiteError, load_suite

    try:
        suite = load_suite(name)
    except SuiteError as error:
        raise SourceError(f"{name!r} is no folder or video here, and no suite: {error}") from error
    for clip in suite.clips:
        yield SuiteClip(name, clip.name)


def _davis_clips(root: Path, classes: Path | None, split: str | None) -> Iterator[FolderClip]:
    images, masks = (_resolution(root / part) for part in ("JPEGImages", "Annotations"))
    names = sorted(path.name for path in masks.iterdir() if path.is_dir())
    if split is not None:
        wanted = _split_names(root, split)
        lacking = sorted(set(wanted) - set(names))
        if lacking:
            raise LayoutError(masks, f"has no folder for {', '.join(lacking)} of split {split}")
        names = wanted
    if not names:
        raise LayoutError(masks, "holds no clip folders; expected Annotations/<clip>/00000.png")
    if classes is None and (root / CLASSES_FILE).exists():
        classes = root / CLASSES_FILE
    known = _class_names(classes, names)
    for name in names:
        yield FolderClip(root.resolve().name, name, images / name, masks / name, known[name])


def _resolution(folder: Path) -> Path:
    """Step into the one resolution folder, where there is one."""
    if not folder.is_dir():
        raise LayoutError(
            folder,
            "no such folder; DAVIS layout is JPEGImages/<clip>/*.jpg, Annotations/<clip>/*.png",
        )
    for name in RESOLUTIONS:
        if (folder / name).is_dir():
            return folder / name
    return folder


def _split_names(root: Path, split: str) -> list[str]:
    candidates = [Path(split), *sorted((root / "ImageSets").glob(f"**/{split}.txt"))]
    for path in candidates:
        if path.is_file():
            return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    raise SourceError(f"split {split!r}: neither a file nor {root}/ImageSets/**/{split}.txt exists")


def _class_names(file: Path | None, clips: Sequence[str]) -> dict[str, dict[int, str]]:
    """Read the instances' class names for each clip."""
    if file is None:
        return {name: {} for name in clips}
    try:
        content = json.loads(file.read_text())
        per_clip = all(isinstance(value, dict) for value in content.values())
        return {
            name: {
                int(key): str(value)
                for key, value in (content.get(name, {}) if per_clip else content).items()
            }
            for name in clips
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ClassesFileError(
            f'{file}: {error}; expected JSON, {{"1": "grasper"}} or {{"clip": {{"1": "grasper"}}}}'
        ) from error


def _stats(path: Path) -> list[tuple[str, int, int]]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
