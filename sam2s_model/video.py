"""Reading and writing pictures, instance masks and video files.

Pictures are uint8 (H, W, 3) RGB. Instance masks are int32 (H, W): 0 background, else an instance's
id. A sequence is a video with its annotation: folders in DAVIS layout (`FolderSequence`) or a
video file with a folder of masks (`VideoFileSequence`). Whatever cannot be read raises a
`VideoError` that names the file and, where there is one, the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from sam2s_model.errors import Sam2sError

Image = NDArray[np.uint8]
Ids = NDArray[np.int32]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".m4v", ".ts")
MASK_SUFFIX = ".png"
CUT_SHORT = 0.95  # a video with fewer of its announced frames is reported; durations are rough
VOID = 255  # DAVIS's label for "do not judge" in palette PNGs; its evaluator reads background


class VideoError(Sam2sError):
    """A picture, mask or video that cannot be used; names the file and the frame."""

    def __init__(self, file: Path | str, what: str, frame: int | None = None) -> None:
        self.file, self.frame, self.what = Path(file), frame, what
        place = f"{file}" if frame is None else f"{file} (frame {frame})"
        super().__init__(f"{place}: {what}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[Path, str, int | None]]:
        return type(self), (self.file, self.what, self.frame)


class UnreadableImageError(VideoError):
    """A picture or mask file that is missing, damaged or of no known format."""


class UnreadableVideoError(VideoError):
    """A video file that cannot be opened or decoded."""


class MaskFormatError(VideoError):
    """A mask file that holds no instance ids, or ids of the wrong size."""


class LayoutError(VideoError):
    """A folder that lacks what its layout promises."""


class AnnotatedSequence(Protocol):
    """A video with its annotation; frames are numbered from 0."""

    @property
    def classes(self) -> Mapping[int, str]:
        """The class name of each instance that has one."""

    def __len__(self) -> int: ...

    def frame(self, index: int) -> Image:
        """Frame `index`, uint8 (H, W, 3) RGB."""

    def masks(self, index: int) -> Ids | None:
        """Instance ids (H, W) of frame `index`, 0 background; None where it is not annotated."""


# --- pictures and masks -------------------------------------------------------------------


def read_image(path: Path, frame: int | None = None) -> Image:
    """Read a picture as uint8 (H, W, 3) RGB; a truncated file is an error, not half a picture."""
    try:
        with PilImage.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImageError(path, f"no readable picture: {error}", frame) from error


def read_mask(path: Path, frame: int | None = None) -> Ids:
    """Read a mask file as int32 ids (H, W): palette or grey PNG, 8 or 16 bit.

    In palette files the value 255 (`VOID`) is background; in grey files it is an id like any other,
    since single-object masks are often stored as 0 and 255.
    """
    try:
        with PilImage.open(path) as picture:
            mode, ids = picture.mode, np.array(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImageError(path, f"no readable mask: {error}", frame) from error
    if ids.ndim != 2:
        raise MaskFormatError(
            path, f"is a {mode} picture; a mask must be a palette or grey PNG of ids", frame
        )
    ids = ids.astype(np.int32)
    if mode == "P":
        ids[ids == VOID] = 0
    return ids


def write_mask(path: Path, ids: NDArray[np.integer]) -> None:
    """Write instance ids (H, W), up to 254, as a palette PNG in DAVIS's colours."""
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < 0 or high >= VOID:
        raise MaskFormatError(path, f"ids {low}..{high} do not fit a palette PNG (0..{VOID - 1})")
    picture = PilImage.fromarray(ids.astype(np.uint8)).convert("L")
    picture.putpalette(davis_palette().ravel().tolist())
    picture.save(path)


def davis_palette() -> Image:
    """Make the (256, 3) RGB palette of DAVIS: an id's bits dealt out to the channels."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


# --- video files --------------------------------------------------------------------------


class VideoReader:
    """Frames of a video file by number, cheapest in rising order; going back starts it anew.

    A frame that the decoder cannot make, or only by guessing, raises `UnreadableImageError`, and
    the ones after it can still be read; where the stream breaks off, `UnreadableVideoError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                self.size = (stream.codec_context.height, stream.codec_context.width)
                self.fps = float(stream.average_rate) if stream.average_rate else None
                # The header's own count is often absent or wrong; packets are what there is.
                times = [packet.pts for packet in container.demux(stream) if packet.size]
                # `duration` counts microseconds; files cut short still carry the full one.
                seconds = (container.duration or 0) / 1e6
                self.announced = max(stream.frames, round(seconds * (self.fps or 0)))
        except (av.FFmpegError, OSError, IndexError) as error:
            raise UnreadableVideoError(path, f"no readable video: {error}") from error
        if not times:
            raise UnreadableVideoError(path, "the video holds no frames")
        if None in times or len(set(times)) < len(times):
            raise UnreadableVideoError(
                path, "its frames carry no distinct times; convert it, for example to .mp4"
            )
        # Times tell which frame a picture is, even after others that could not be decoded.
        self._index = {time: n for n, time in enumerate(sorted(times))}
        self._pictures: Iterator[tuple[int, Image | None]] = iter(())
        self._position = -1
        self._current: Image | None = None

    def __len__(self) -> int:
        return len(self._index)

    def frame(self, index: int) -> Image:
        """Frame `index`, uint8 (H, W, 3) RGB."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} frames, none of number {index}")
        if index < self._position or self._position < 0:
            self._pictures, self._position = self._decode(), -1
        while self._position < index:
            try:
                self._position, self._current = next(self._pictures)
            except StopIteration:
                self._position = -1
                raise UnreadableVideoError(self.path, "breaks off", index) from None
        if self._position > index or self._current is None:
            raise UnreadableImageError(self.path, "the frame is damaged", index)
        return self._current

    def _decode(self) -> Iterator[tuple[int, Image | None]]:
        """Yield every picture with its number; None for one that the decoder had to guess."""
        try:
            with av.open(str(self.path)) as container:
                for packet in container.demux(container.streams.video[0]):
                    try:
                        pictures = packet.decode()
                    except av.FFmpegError:
                        continue  # missed by its number when it is asked for
                    for picture in pictures:
                        image = None if picture.is_corrupt else picture.to_ndarray(format="rgb24")
                        yield self._index[picture.pts], image
        except av.FFmpegError:
            return  # the container itself breaks off


class VideoWriter:
    """Writes RGB frames of one size as H.264 (yuv420p, plays anywhere); a context manager.

    The file appears under its name only once complete. Odd sizes get a black row or column, which
    the pixel format demands.
    """

    def __init__(self, path: Path, fps: float = 25.0, quality: int = 23) -> None:
        self.path, self._fps = path, Fraction(fps).limit_denominator(1001)
        self._quality = quality  # x264's constant rate factor: 18 looks lossless, 28 is small
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        self._container = av.open(str(self._part), "w")
        return self

    def write(self, image: Image) -> None:
        """Append a frame, uint8 (H, W, 3) RGB."""
        height, width = image.shape[0] + image.shape[0] % 2, image.shape[1] + image.shape[1] % 2
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._fps)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            # Same frames, same bytes: with macroblock trees x264's AVX-512 code (core 165) gives
            # others from run to run, as if it read memory that nobody wrote.
            self._stream.options = {
                "crf": str(self._quality), "preset": "veryfast", "mbtree": "0",
            }  # fmt: skip
        if (self._stream.height, self._stream.width) != (height, width):
            raise VideoError(
                self.path,
                f"a frame of {width}×{height} in a video of another size cannot be written",
            )
        if (height, width) != image.shape[:2]:
            pad = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
            image = np.pad(image, pad)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if kind is None and self._stream is not None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_video(path: Path, frames: Iterable[Image], fps: float = 25.0) -> None:
    """Write frames, each uint8 (H, W, 3) RGB, as an H.264 file."""
    with VideoWriter(path, fps) as writer:
        for image in frames:
            writer.write(image)


# --- annotated sequences ------------------------------------------------------------------


class FolderSequence:
    """A folder of pictures and one of masks with the same names, as in DAVIS.

    Pictures without a mask are frames that are not annotated.
    """

    fps: float | None = None

    def __init__(self, images: Path, masks: Path, classes: Mapping[int, str] | None = None) -> None:
        self.classes = dict(classes or {})
        self._images = _files(images, IMAGE_SUFFIXES, "pictures")
        annotated = {path.stem: path for path in _files(masks, (MASK_SUFFIX,), "masks")}
        self._masks = {i: annotated.pop(p.stem, None) for i, p in enumerate(self._images)}
        self.problems = [f"{path}: no picture of this name" for path in annotated.values()]
        if not any(self._masks.values()):
            raise LayoutError(masks, f"no mask has the name of a picture in {images}")

    def __len__(self) -> int:
        return len(self._images)

    def frame(self, index: int) -> Image:
        """Frame `index`, uint8 (H, W, 3) RGB."""
        return read_image(self._images[index], index)

    def frame_name(self, index: int) -> str:
        """File name of frame `index` without its suffix."""
        return self._images[index].stem

    def masks(self, index: int) -> Ids | None:
        """Instance ids (H, W) of frame `index`; None where it is not annotated."""
        path = self._masks[index]
        if path is None:
            return None
        try:
            with PilImage.open(self._images[index]) as picture:
                width, height = picture.size
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableImageError(
                self._images[index], f"no readable picture: {error}", index
            ) from error
        return _sized(read_mask(path, index), (height, width), path, index)


class VideoFileSequence:
    """A video file and a folder of masks named by frame number (00000.png is the first frame)."""

    def __init__(self, video: Path, masks: Path, classes: Mapping[int, str] | None = None) -> None:
        self.classes = dict(classes or {})
        self._reader = VideoReader(video)
        self.fps = self._reader.fps
        self._masks: dict[int, Path] = {}
        self.problems: list[str] = []
        if len(self._reader) < CUT_SHORT * self._reader.announced:
            self.problems.append(
                f"{video}: announces {self._reader.announced} frames and holds {len(self._reader)}"
            )
        for path in _files(masks, (MASK_SUFFIX,), "masks"):
            if not path.stem.isdecimal():
                self.problems.append(f"{path}: the name must be a frame number, such as 00042.png")
            elif int(path.stem) >= len(self._reader):
                self.problems.append(f"{path}: {video} has only {len(self._reader)} frames")
            else:
                self._masks[int(path.stem)] = path
        if not self._masks:
            raise LayoutError(masks, f"no mask is named by a frame number of {video}")

    def __len__(self) -> int:
        return len(self._reader)

    def frame(self, index: int) -> Image:
        """Frame `index`, uint8 (H, W, 3) RGB."""
        return self._reader.frame(index)

    def masks(self, index: int) -> Ids | None:
        """Instance ids (H, W) of frame `index`; None where it is not annotated."""
        path = self._masks.get(index)
        if path is None:
            return None
        return _sized(read_mask(path, index), self._reader.size, path, index)


def _files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    if not folder.is_dir():
        raise LayoutError(
            folder, f"no such folder; {what} ({', '.join(suffixes)}) were expected here"
        )
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not found:
        raise LayoutError(folder, f"holds no {what} ({', '.join(suffixes)})")
    return found


def _sized(ids: Ids, size: tuple[int, int], path: Path, frame: int) -> Ids:
    if ids.shape != size:
        raise MaskFormatError(
            path,
            f"the mask is {ids.shape[1]}×{ids.shape[0]}, its frame {size[1]}×{size[0]}; "
            "they must be of the same size",
            frame,
        )
    return ids
