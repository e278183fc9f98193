"""Clips made before and kept on disk: shards are zip files of clips, with a manifest beside them.

Pictures are JPEG or PNG, masks are exact run lengths. Clips are kept as the source gave them, so
that augmentation still differs each time one is read. A folder of shards:

    manifest.json       what the clips are; written last, so an unfinished folder has none
    000000.zip …        `clips` of the manifest in each, the last one perhaps fewer
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sam2s_model.classes import INSTRUMENTS
from sam2s_training.data.clip import NO_CLASS, Clip, ClipSource, randomness
from sam2s_training.data.errors import DataSettingError, ShardError
from sam2s_training.data.loader import Loader, LoaderSettings
from sam2s_training.data.names import ClassNumbers
from sam2s_training.data.runs import decode_runs, encode_runs
from sam2s_training.data.window import cut_window

FORMAT = "sam2s training clips"
VERSION = 1  # raised when older code could no longer read new shards rightly
MANIFEST = "manifest.json"
MOST_OPEN = 128  # shards whose files are kept open
STREAM = 7005  # tells these random numbers from others of the same seed
WINDOW_STREAM = 7006

Codec = Literal["jpeg", "png"]
CODECS: tuple[Codec, ...] = ("jpeg", "png")


@dataclass(frozen=True)
class ShardSettings:
    """A folder of shards to train from."""

    folder: str
    # Cut a random window of the network's size from larger clips, instead of refusing them.
    window: bool = False


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds."""

    clips: int  # in all shards together
    clips_per_shard: int
    size: int  # S, pixels
    frames: int  # T
    codec: Codec
    instruments: tuple[str, ...]  # what the clips' class numbers mean
    origin: str  # what made the clips, for people

    def write(self, folder: Path) -> None:
        """Write the manifest; the folder counts as complete from then on."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        partial = folder / (MANIFEST + ".part")
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(folder / MANIFEST)

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read the manifest of a complete folder."""
        path = folder / MANIFEST
        if not path.is_file():
            raise ShardError(
                f"{folder} holds no {MANIFEST}: no folder of shards, or one whose rendering was "
                "stopped; rendering it again goes on where it stopped"
            )
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT or content.pop("version") != VERSION:
                raise ShardError(f"{path} is of another format or version; render the shards again")
            content["instruments"] = tuple(content["instruments"])
            return Manifest(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"{path} is damaged ({error}); render the shards again") from error


def write_shards(
    source: ClipSource,
    folder: Path,
    clips: int,
    *,
    origin: str,
    loader: LoaderSettings | None = None,
    first: int = 0,
    clips_per_shard: int = 256,
    codec: Codec = "jpeg",
    quality: int = 95,
    instruments: Sequence[str] = INSTRUMENTS,
    progress: bool = True,
) -> Manifest:
    """Write `clips` clips of a source, from number `first` on; whole shards are not made twice.

    Args:
        source: gives the clips.
        folder: where the shards go; made if it is not there.
        clips: how many.
        origin: what makes the clips (settings, seed); another origin's folder is refused.
        loader: who makes the clips.
        first: number of the first clip.
        clips_per_shard: clips in each zip file.
        codec: jpeg, small; png, exact.
        quality: of the JPEGs, 1 to 100.
        instruments: what the source's class numbers mean.
        progress: show a progress bar.
    """
    if clips < 1 or clips_per_shard < 1 or codec not in CODECS or not 1 <= quality <= 100:
        raise DataSettingError(
            f"{clips} clips, {clips_per_shard} a shard, codec {codec!r}, quality {quality}: the "
            f"counts are at least 1, the codec one of {', '.join(CODECS)}, the quality 1 to 100"
        )
    folder = folder.expanduser()
    _claim(folder, f"{origin}; first {first}; {clips_per_shard} a shard; {codec} {quality}")
    starts = range(0, clips, clips_per_shard)
    # Whole shards are renamed into place, so what is there is complete.
    lacking = [
        n
        for n, start in enumerate(starts)
        if not _is_whole(_shard(folder, n), min(clips_per_shard, clips - start))
    ]
    shape: tuple[int, int] | None = None
    with tqdm(
        total=clips, desc=f"rendering {folder.name}", unit="clip", disable=not progress
    ) as bar:
        bar.update(clips - sum(min(clips_per_shard, clips - starts[n]) for n in lacking))
        for run in _runs_of(lacking):
            begin = first + starts[run[0]]
            with Loader(source, 1, loader, first=begin) as batches:
                for n in run:
                    count = min(clips_per_shard, clips - starts[n])
                    members: dict[str, bytes] = {}
                    for k in range(count):
                        clip = next(batches).clips[0]
                        shape = _same_shape(clip, shape)
                        members[str(k)] = pack(clip, codec, quality)
                        bar.update(1)
                    _write_zip(_shard(folder, n), members)
    if shape is None:
        packed = _read_member(_shard(folder, 0), "0")
        shape = _same_shape(unpack(packed, str(folder)), None)
    manifest = Manifest(clips, clips_per_shard, *shape, codec, tuple(instruments), origin)
    manifest.write(folder)
    return manifest


class ShardSource:
    """Clips from a folder of shards; each once, in random order, before any comes again.

    Args:
        folder: of shards, complete.
        seed: another seed gives another order.
        instruments: the text bank's instruments, in its order.
        size: pixels that the clips must have; None: any.
        window: take larger clips too, and cut a random window of `size` from each.
        frames: that a clip must have; None: any number.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        seed: int = 0,
        instruments: Sequence[str] = INSTRUMENTS,
        size: int | None = None,
        frames: int | None = None,
        window: bool = False,
    ) -> None:
        self.folder, self.seed = Path(folder).expanduser(), seed
        self.manifest = manifest = Manifest.read(self.folder)
        self._window = size if window and size is not None and size < manifest.size else None
        for what, wanted, there in (
            ("pixels", size if self._window is None else None, manifest.size),
            ("frames a clip", frames, manifest.frames),
        ):
            if wanted is not None and wanted != there:
                raise ShardError(
                    f"{self.folder} was rendered with {there} {what}, the training wants {wanted}; "
                    "change the recipe, or render the shards again"
                )
        for n, start in enumerate(range(0, manifest.clips, manifest.clips_per_shard)):
            path = _shard(self.folder, n)
            if not _is_whole(path, min(manifest.clips_per_shard, manifest.clips - start)):
                raise ShardError(f"{path} is missing or damaged; render the shards again")
        numbers = ClassNumbers(instruments)
        where = str(self.folder / MANIFEST)
        self._class_of = torch.tensor(
            [*(numbers.of(name, where) for name in manifest.instruments), NO_CLASS]
        )
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._open: dict[Path, zipfile.ZipFile] = {}  # a directory is read once, not per clip
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        """Leave the open files behind on the way to another process."""
        return {**self.__dict__, "_open": {}}

    def sample(self, index: int) -> Clip:
        """Read clip `index`."""
        epoch, place = divmod(index, self.manifest.clips)
        if self._epoch[0] != epoch:
            order = randomness(self.seed, STREAM, epoch).permutation(self.manifest.clips)
            self._epoch = (epoch, order)
        shard, member = divmod(int(self._epoch[1][place]), self.manifest.clips_per_shard)
        path = _shard(self.folder, shard)
        clip = unpack(self._read(path, str(member)), f"{path}, clip {member}")
        clip = dataclasses.replace(clip, classes=self._class_of[clip.classes])
        if self._window is None:
            return clip
        return cut_window(clip, self._window, randomness(self.seed, WINDOW_STREAM, index))

    def _read(self, path: Path, member: str) -> bytes:
        """Read one clip's bytes; files stay open, and a forked process opens its own."""
        if self._owner != os.getpid():
            self._open, self._owner = {}, os.getpid()
        try:
            if path not in self._open:
                while len(self._open) >= MOST_OPEN:
                    self._open.pop(next(iter(self._open))).close()
                self._open[path] = zipfile.ZipFile(path)
            return self._open[path].read(member)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ShardError(f"{path}, clip {member}: {error}; render the shards again") from error


def pack(clip: Clip, codec: Codec, quality: int) -> bytes:
    """Turn a clip into bytes."""
    suffix, flags = (
        (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
        if codec == "jpeg"
        else (".png", [cv2.IMWRITE_PNG_COMPRESSION, 3])
    )
    pictures = []
    for image in clip.images.permute(0, 2, 3, 1).cpu().numpy():
        ok, data = cv2.imencode(suffix, image[:, :, ::-1], flags)
        if not ok:
            raise ShardError(f"{clip.name} cannot be written as {codec}")
        pictures.append(np.asarray(data, np.uint8).ravel())
    runs = [encode_runs(mask) for mask in clip.masks.cpu().numpy()]
    file = io.BytesIO()
    np.savez_compressed(
        file,
        pictures=np.concatenate(pictures),
        picture_sizes=np.array([len(data) for data in pictures]),
        runs=np.concatenate([*runs, np.zeros(0, np.uint32)]),
        run_counts=np.array([len(one) for one in runs], np.int64),
        classes=clip.classes.cpu().numpy(),
        numbers=np.array(clip.numbers, np.int64),
        long=np.array(clip.long),
        name=np.array(clip.name),
    )
    return file.getvalue()


def unpack(data: bytes, where: str) -> Clip:
    """Make the clip of `pack`'s bytes; `where` names the place in messages."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            fields: Mapping[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
        pictures = [
            np.asarray(cv2.imdecode(part, cv2.IMREAD_COLOR))[:, :, ::-1]
            for part in _split(fields["pictures"], fields["picture_sizes"])
        ]
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        frames, _, height, width = images.shape
        runs = _split(fields["runs"], fields["run_counts"])
        masks = [decode_runs(one, (frames, height, width)) for one in runs]
        return Clip(
            images,
            torch.from_numpy(np.array(masks, bool).reshape(-1, frames, height, width)),
            torch.from_numpy(fields["classes"].astype(np.int64)),
            str(fields["name"]),
            tuple(int(n) for n in fields["numbers"]),
            int(fields["long"]),
        )
    except Exception as error:  # numpy, zipfile and OpenCV raise whatever they stumble over
        raise ShardError(f"{where} is damaged ({error}); render the shards again") from error


def _split(joined: NDArray[Any], sizes: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(joined, np.cumsum(sizes)[:-1]) if len(sizes) else []


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.zip"


def _is_whole(path: Path, clips: int) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return len(file.namelist()) == clips
    except (OSError, zipfile.BadZipFile):
        return False


def _read_member(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as file:
            return file.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ShardError(f"{path}, clip {name}: {error}; render the shards again") from error


def _write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    partial = path.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    partial.replace(path)


def _claim(folder: Path, origin: str) -> None:
    """Mark the folder as this rendering's; refuse another one's."""
    mark = folder / "origin.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            if any(folder.iterdir()):
                raise ShardError(f"{folder} is not empty; choose a new folder for the shards")
            mark.write_text(origin, encoding="utf-8")
        elif mark.read_text(encoding="utf-8") != origin:
            raise ShardError(
                f"{folder} holds shards of other settings ({mark}); choose another folder, or "
                "remove it first"
            )
    except OSError as error:
        raise ShardError(f"{folder} cannot be written ({error.strerror})") from error


def _runs_of(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Group rising numbers into runs without gaps: one loader serves each."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _same_shape(clip: Clip, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Check that all clips have the same size and frames: (S, T)."""
    found = (clip.images.shape[-1], len(clip.images))
    if shape is not None and found != shape:
        raise ShardError(f"{clip.name} is {found} (size, frames), others are {shape}")
    return found
