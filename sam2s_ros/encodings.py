"""The encodings of sensor_msgs/Image that are read, and how each becomes RGB. ROS-free.

OpenCV converts 1920×1080 in 0.2 to 2 ms on one core; numpy takes 15 ms and more to exchange the
channels, so it is used only where bytes are picked. cv_bridge is not used, even where a
distribution provides it. Its Python calls the same OpenCV functions on the same bytes, so it cannot
be faster; it copies padded rows first (0.3 ms, though OpenCV takes them as they are), misreads
steps that are no multiple of a pixel, and is not among the ROS 2 wheels of PyPI. The figures:
`pytest test/sam2s_ros/test_conversions.py -k cost`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError

Picture = NDArray[np.uint8]


class ConversionError(Sam2sError):
    """A message that holds no usable picture."""


class UnknownEncodingError(ConversionError):
    """An encoding, or a compressed format, that is not supported."""


class EmptyImageError(ConversionError):
    """An image without pixels."""


class TruncatedImageError(ConversionError):
    """Fewer bytes than the image's size and step promise."""


class ImageLayoutError(ConversionError):
    """A width, height or step that the encoding does not allow."""


class UndecodableImageError(ConversionError):
    """Compressed data that is damaged or of another format."""


class Encoding(NamedTuple):
    """How the bytes of one pixel are laid out and turned into RGB."""

    channels: int  # values a pixel
    convert: Callable[[Picture], Picture]  # from uint8 (H, W, channels), (H, W) for one channel
    even: tuple[bool, bool] = (False, False)  # whether height, width must be even
    deep: bool = False  # 16 bit values, of which the high byte is kept: 0..65535 becomes 0..255

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel."""
        return self.channels * (2 if self.deep else 1)


def _colour(code: int) -> Callable[[Picture], Picture]:
    def convert(raw: Picture) -> Picture:
        return cast(Picture, cv2.cvtColor(raw, code))

    return convert


def _as_is(raw: Picture) -> Picture:
    return raw


def _bayer(code: int, deep: bool) -> Encoding:
    # A mosaic is made of cells of 2×2 pixels.
    return Encoding(1, _colour(code), (True, True), deep)


_GREY = _colour(cv2.COLOR_GRAY2RGB)
_UYVY = Encoding(2, _colour(cv2.COLOR_YUV2RGB_UYVY), (False, True))
_YUY2 = Encoding(2, _colour(cv2.COLOR_YUV2RGB_YUY2), (False, True))

# ROS names the first row's colours and the second's, OpenCV the cell one to the lower right.
_BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}

# YUV is BT.601 with video range (16..235), as cameras and cv_bridge have it.
ENCODINGS = {
    "rgb8": Encoding(3, _as_is),
    "bgr8": Encoding(3, _colour(cv2.COLOR_BGR2RGB)),
    "rgba8": Encoding(4, _colour(cv2.COLOR_RGBA2RGB)),
    "bgra8": Encoding(4, _colour(cv2.COLOR_BGRA2RGB)),
    "mono8": Encoding(1, _GREY),
    "mono16": Encoding(1, _GREY, deep=True),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUY2,
    "yuyv": _YUY2,
    **{f"{name}8": _bayer(code, deep=False) for name, code in _BAYER.items()},
    **{f"{name}16": _bayer(code, deep=True) for name, code in _BAYER.items()},
}


def encoding_of(name: str) -> Encoding:
    """Look an encoding up by its name in sensor_msgs, or say which ones there are."""
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise UnknownEncodingError(
            f"the encoding {name!r} is not supported; publish {', '.join(ENCODINGS)}"
        )
    return encoding


def high_bytes(raw: Picture, big_endian: bool) -> Picture:
    """Take the more significant byte of 16 bit values: (H, W, 2) to (H, W)."""
    return np.ascontiguousarray(raw[:, :, 0 if big_endian else 1])
