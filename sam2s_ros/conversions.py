"""Between messages and numpy: images of every common encoding, label maps, run-length masks.

Pictures are uint8 (H, W, 3) RGB, masks bool (H, W), label maps uint8 (H, W). Nothing here touches
pixels one by one, and pixels are copied only where their order must change.
"""

from __future__ import annotations

import array
import sys
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from sam2s_msgs.msg import RleMask  # type: ignore[attr-defined]  # made by colcon
from sam2s_ros.compressed import compressed_to_rgb, rgb_to_compressed
from sam2s_ros.encodings import (
    ENCODINGS,
    ConversionError,
    EmptyImageError,
    Encoding,
    ImageLayoutError,
    Picture,
    TruncatedImageError,
    UndecodableImageError,
    UnknownEncodingError,
    encoding_of,
    high_bytes,
)
from sam2s_ros.patch import Mask
from sam2s_ros.rle import Runs, encode_mask

__all__ = [
    "ENCODINGS",
    "OUTPUT_ENCODINGS",
    "ConversionError",
    "EmptyImageError",
    "ImageLayoutError",
    "TruncatedImageError",
    "UndecodableImageError",
    "UnknownEncodingError",
    "compressed_to_rgb",
    "empty_labels",
    "image_to_labels",
    "image_to_rgb",
    "labels_to_image",
    "mask_to_rle",
    "message_to_runs",
    "rgb_to_compressed",
    "rgb_to_image",
    "rle_to_mask",
    "runs_to_message",
]

OUTPUT_ENCODINGS = ("rgb8", "bgr8")  # what `rgb_to_image` writes
_LARGE_ENDIAN_MACHINE = sys.byteorder == "big"


# --- from messages ------------------------------------------------------------------------


def image_to_rgb(message: Image | CompressedImage) -> Picture:
    """Read an Image or CompressedImage as RGB.

    An rgb8 picture is a view of the message's own bytes, not a copy. Of 16 bit values the high byte
    is kept, so their full range 0..65535 becomes 0..255.
    """
    if hasattr(message, "format"):
        return compressed_to_rgb(message)
    encoding = encoding_of(message.encoding)
    raw = _pixels(message, encoding)
    if encoding.deep:
        raw = high_bytes(raw, bool(message.is_bigendian))
    return encoding.convert(raw)


def image_to_labels(message: Image) -> NDArray[np.uint8]:
    """Read a mono8 label map as uint8 (H, W): a view of the message's own bytes."""
    if message.encoding != "mono8":
        raise UnknownEncodingError(f"a label map must be mono8, not {message.encoding!r}")
    return _pixels(message, ENCODINGS["mono8"])


def _pixels(message: Image, encoding: Encoding) -> Picture:
    """View the bytes of an image as (H, W, bytes), (H, W) for one byte; check them first."""
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise EmptyImageError(f"the image is {width}×{height}; it must have pixels")
    row = width * encoding.pixel_bytes
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
    strides: tuple[int, ...] = (step, encoding.pixel_bytes)
    if encoding.pixel_bytes > 1:
        shape, strides = (*shape, encoding.pixel_bytes), (*strides, 1)
    pixels: Picture = np.ndarray(shape, np.uint8, data.data, 0, strides)
    return pixels


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


def empty_labels(height: int, width: int, header: Any = None) -> tuple[Image, NDArray[np.uint8]]:
    """Make a mono8 Image of zeros, and a view (H, W) of its bytes to draw a label map into."""
    message = _described((height, width), width, header, "mono8")
    message.data = array.array("B", [0]) * (height * width)
    return message, np.frombuffer(message.data, np.uint8).reshape(height, width)


def _image(pixels: NDArray[np.uint8], header: Any, encoding: str) -> Image:
    step = pixels.nbytes // pixels.shape[0] if pixels.shape[0] else 0
    message = _described(pixels.shape, step, header, encoding)
    # Assigning to `data` checks bytes or numpy value by value (1.5 s for 1920×1080); filling the
    # array that is already there copies once (0.3 ms).
    message.data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return message


def _described(shape: tuple[int, ...], step: int, header: Any, encoding: str) -> Image:
    """Make an Image that lacks its bytes."""
    message = Image(
        height=shape[0], width=shape[1], encoding=encoding, step=step,
        is_bigendian=int(_LARGE_ENDIAN_MACHINE),
    )  # fmt: skip
    if header is not None:
        message.header = header
    return message


# --- run-length masks ---------------------------------------------------------------------


def runs_to_message(runs: Runs) -> RleMask:
    """Make a message of a mask's runs."""
    message = RleMask(height=runs.height, width=runs.width)
    message.counts = array.array("I", runs.counts.tobytes())
    return message


def message_to_runs(message: RleMask) -> Runs:
    """View a message's runs; they are checked when they are decoded."""
    return Runs(message.height, message.width, np.frombuffer(message.counts, np.uint32))


def mask_to_rle(mask: Mask) -> RleMask:
    """Encode a mask, bool (H, W), as COCO does: column by column, background first."""
    return runs_to_message(encode_mask(mask))


def rle_to_mask(message: RleMask) -> Mask:
    """Decode a run-length mask to bool (H, W)."""
    return message_to_runs(message).decode()
