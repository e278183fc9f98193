"""Between messages and numpy: images of every common encoding, label maps, run-length masks.

Pictures are uint8 (H, W, 3) RGB, masks bool (H, W), label maps uint8 (H, W). Nothing here touches
pixels one by one, and pixels are copied only where their order must change.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2s_model.errors import Sam2sError
from sam2s_msgs.msg import RleMask  # type: ignore[attr-defined]  # made by colcon

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_LARGE_ENDIAN_MACHINE = sys.byteorder == "big"


class ConversionError(Sam2sError):
    """A message that holds no usable picture."""


class UnknownEncodingError(ConversionError):
    """An encoding, or a compressed format, that is not supported."""


class EmptyImageError(ConversionError):
    """An image without pixels."""


class TruncatedImageError(ConversionError):
    """Fewer bytes than the image's size and step promise."""


class ImageLayoutError(ConversionError):
    """A width or step that the encoding does not allow."""


class UndecodableImageError(ConversionError):
    """Compressed data that is damaged or of another format."""


class _Encoding(NamedTuple):
    channels: int  # bytes a pixel
    convert: Callable[[Picture], Picture]  # from uint8 (H, W, channels) to RGB
    even: tuple[bool, bool] = (False, False)  # whether height, width must be even


def _colour(code: int) -> Callable[[Picture], Picture]:
    def convert(raw: Picture) -> Picture:
        return cast(Picture, cv2.cvtColor(raw, code))

    return convert


def _as_is(raw: Picture) -> Picture:
    return raw


def _bayer(code: int) -> _Encoding:
    # A mosaic is made of cells of 2×2 pixels.
    return _Encoding(1, _colour(code), (True, True))


_UYVY = _Encoding(2, _colour(cv2.COLOR_YUV2RGB_UYVY), (False, True))
_YUY2 = _Encoding(2, _colour(cv2.COLOR_YUV2RGB_YUY2), (False, True))

# YUV is BT.601 with video range (16..235), as cameras and cv_bridge have it.
_ENCODINGS = {
    "rgb8": _Encoding(3, _as_is),
    "bgr8": _Encoding(3, _colour(cv2.COLOR_BGR2RGB)),
    "rgba8": _Encoding(4, _colour(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Encoding(4, _colour(cv2.COLOR_BGRA2RGB)),
    "mono8": _Encoding(1, _colour(cv2.COLOR_GRAY2RGB)),
    "mono16": _Encoding(2, _as_is),  # see _high_bytes
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUY2,
    "yuyv": _YUY2,
    # ROS names the first row's colours and the second's, OpenCV the cell one to the lower right.
    "bayer_rggb8": _bayer(cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _bayer(cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _bayer(cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _bayer(cv2.COLOR_BayerGB2RGB),
}
ENCODINGS = tuple(_ENCODINGS)  # what `image_to_rgb` reads
OUTPUT_ENCODINGS = ("rgb8", "bgr8")  # what `rgb_to_image` writes


# --- from messages ------------------------------------------------------------------------


def image_to_rgb(message: Image) -> Picture:
    """Read an Image as RGB. An rgb8 picture is a view of the message's own bytes, not a copy.

    mono16 keeps the high byte of each pixel, so its full range 0..65535 becomes 0..255.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise UnknownEncodingError(
            f"the encoding {message.encoding!r} is not supported; publish {', '.join(ENCODINGS)}"
        )
    raw = _pixels(message, encoding)
    if message.encoding == "mono16":
        return _colour(cv2.COLOR_GRAY2RGB)(_high_bytes(raw, bool(message.is_bigendian)))
    return encoding.convert(raw)


def compressed_to_rgb(message: CompressedImage) -> Picture:
    """Decode a CompressedImage, jpeg or png, as RGB."""
    # The format is "jpeg", or as image_transport writes it, "bgr8; jpeg compressed bgr8".
    if not any(kind in message.format.lower() for kind in ("jpeg", "jpg", "png")):
        raise UnknownEncodingError(
            f"the compressed format {message.format!r} is not supported; publish jpeg or png"
        )
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise EmptyImageError("the compressed image holds no bytes; check its publisher")
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    # OpenCV fills what a cut file lacks with grey, so the end is looked for here.
    if decoded is None or not _is_complete(message.data):
        raise UndecodableImageError(
            f"the compressed image ({message.format}, {data.size} bytes) is damaged or cut short; "
            "it must be one whole jpeg or png file"
        )
    return cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, decoded))


def image_to_labels(message: Image) -> NDArray[np.uint8]:
    """Read a mono8 label map as uint8 (H, W): a view of the message's own bytes."""
    if message.encoding != "mono8":
        raise UnknownEncodingError(f"a label map must be mono8, not {message.encoding!r}")
    return _pixels(message, _ENCODINGS["mono8"])


def _pixels(message: Image, encoding: _Encoding) -> Picture:
    """View the bytes of an image as (H, W, channels), (H, W) for one channel; check them first."""
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise EmptyImageError(f"the image is {width}×{height}; it must have pixels")
    row = width * encoding.channels
    if step < row:
        raise ImageLayoutError(
            f"the image's step is {step} bytes; {width} pixels of {message.encoding} need {row}"
        )
    for name, size, even in zip(("height", "width"), (height, width), encoding.even, strict=True):
        if even and size % 2:
            raise ImageLayoutError(
                f"the image's {name} is {size}; {message.encoding} needs an even one"
            )
    data = np.frombuffer(message.data, np.uint8)
    needed = step * (height - 1) + row  # the last row may lack its padding
    if data.size < needed:
        raise TruncatedImageError(
            f"the image holds {data.size} bytes; {width}×{height} {message.encoding} with a step "
            f"of {step} needs {needed}"
        )
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, encoding.channels)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (*strides, 1)
    pixels: Picture = np.ndarray(shape, np.uint8, data.data, 0, strides)
    return pixels


def _high_bytes(raw: Picture, big_endian: bool) -> Picture:
    """Take the more significant byte of each 16 bit pixel (H, W, 2)."""
    return np.ascontiguousarray(raw[:, :, 0 if big_endian else 1])


def _is_complete(data: Any) -> bool:
    """Tell whether a jpeg or png has its end: a jpeg its marker, a png its last chunk."""
    view = memoryview(data).cast("B")
    tail = bytes(view[-4096:])  # cameras pad their frames
    return b"\xff\xd9" in tail if bytes(view[:2]) == b"\xff\xd8" else b"IEND" in tail


# --- to messages --------------------------------------------------------------------------


def rgb_to_image(picture: Picture, header: Any = None, encoding: str = "rgb8") -> Image:
    """Make an Image of an RGB picture, as rgb8 or bgr8."""
    if encoding not in OUTPUT_ENCODINGS:
        raise UnknownEncodingError(
            f"pictures are written as {' or '.join(OUTPUT_ENCODINGS)}, not {encoding!r}"
        )
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ImageLayoutError(
            f"a picture must be uint8 (H, W, 3), not {picture.dtype} {picture.shape}"
        )
    if encoding == "bgr8":
        picture = cast(Picture, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return _image(picture, header, encoding)


def labels_to_image(labels: NDArray[np.uint8], header: Any = None) -> Image:
    """Make a mono8 Image of a label map, uint8 (H, W)."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ImageLayoutError(
            f"a label map must be uint8 (H, W), not {labels.dtype} {labels.shape}"
        )
    return _image(labels, header, "mono8")


def _image(pixels: NDArray[np.uint8], header: Any, encoding: str) -> Image:
    message = Image()
    if header is not None:
        message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = _LARGE_ENDIAN_MACHINE
    message.step = pixels.nbytes // pixels.shape[0] if pixels.shape[0] else 0
    # Assigning to `data` checks bytes or numpy value by value (1.5 s for 1920×1080); filling the
    # array that is already there copies once (0.3 ms).
    message.data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return message


# --- run-length masks ---------------------------------------------------------------------


def mask_to_rle(mask: Mask) -> RleMask:
    """Encode a mask as COCO does: column by column, background first."""
    height, width = mask.shape
    flat = np.ascontiguousarray(mask.T).reshape(-1).view(np.uint8)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(bounds).astype(np.uint32)
    if flat.size and flat[0]:
        counts = np.concatenate([np.zeros(1, np.uint32), counts])
    message = RleMask(height=height, width=width)
    message.counts = array.array("I", counts.tobytes())
    return message


def rle_to_mask(message: RleMask) -> Mask:
    """Decode a run-length mask to bool (H, W)."""
    counts = np.frombuffer(message.counts, np.uint32)
    pixels = message.height * message.width
    if int(counts.sum(dtype=np.uint64)) != pixels:
        raise TruncatedImageError(
            f"the runs of the mask add up to {int(counts.sum(dtype=np.uint64))} pixels; "
            f"{message.width}×{message.height} needs {pixels}"
        )
    values = np.arange(counts.size) % 2 == 1
    mask: Mask = np.repeat(values, counts).reshape(message.width, message.height).T
    return mask
