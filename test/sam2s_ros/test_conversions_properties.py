"""Conversions of any image against references that walk over the pixels."""

from __future__ import annotations

import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from sam2s_ros.conversions import ENCODINGS, ConversionError, image_to_rgb

pytestmark = pytest.mark.ros

CHANNELS = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA", "mono8": "G"}
YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUYV", "yuyv": "YUYV"}
DEEP = ("mono16", *(f"bayer_{pattern}16" for pattern in ("rggb", "bggr", "gbrg", "grbg")))


def byte(message: Image, row: int, place: int) -> int:
    return int(message.data[row * message.step + place])


def value(message: Image, row: int, column: int) -> int:
    """A pixel of one value, the high byte of 16 bit ones."""
    if message.encoding not in DEEP:
        return byte(message, row, column)
    return byte(message, row, 2 * column + (0 if message.is_bigendian else 1))


def reference(message: Image, row: int, column: int) -> list[float]:
    """The RGB of one pixel as the encoding's definition has it."""
    name = message.encoding
    if name in CHANNELS:
        order = CHANNELS[name]
        start = column * len(order)
        if order == "G":
            return [float(byte(message, row, start))] * 3
        return [float(byte(message, row, start + order.index(c))) for c in "RGB"]
    if name == "mono16":
        return [float(value(message, row, column))] * 3
    if name in YUV:
        return yuv(message, row, column, YUV[name])
    return bayer(message, row, column, name.removeprefix("bayer_")[:4])


def yuv(message: Image, row: int, column: int, order: str) -> list[float]:
    """BT.601 with video range; two pixels share U and V."""
    pair = column // 2 * 4
    lumas = [place for place, letter in enumerate(order) if letter == "Y"]
    y = byte(message, row, pair + lumas[column % 2])
    u = byte(message, row, pair + order.index("U"))
    v = byte(message, row, pair + order.index("V"))
    # OpenCV takes luma below black as black, and clips the sum.
    luma, blue, red = 255 / 219 * max(y - 16, 0), 255 / 224 * (u - 128), 255 / 224 * (v - 128)
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    return [min(max(c, 0.0), 255.0) for c in rgb]


def bayer(message: Image, row: int, column: int, pattern: str) -> list[float]:
    """Each colour is the mean of the nearest pixels of that colour, this one included."""
    # OpenCV gives the border the colours of the pixels next to it.
    row = min(max(row, 1), message.height - 2)
    column = min(max(column, 1), message.width - 2)
    near: dict[str, dict[int, list[int]]] = {"r": {}, "g": {}, "b": {}}
    for y in range(row - 1, row + 2):
        for x in range(column - 1, column + 2):
            colour = pattern[y % 2 * 2 + x % 2]
            distance = abs(y - row) + abs(x - column)
            near[colour].setdefault(distance, []).append(value(message, y, x))
    return [float(np.mean(near[colour][min(near[colour])])) for colour in "rgb"]


@st.composite
def images(draw):
    name = draw(st.sampled_from(sorted(ENCODINGS)))
    encoding = ENCODINGS[name]
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    if encoding.even[0]:
        height = 4 + height // 2 * 2
    if encoding.even[1]:
        width = 4 + width // 2 * 2
    image = Image(height=height, width=width, encoding=name)
    image.is_bigendian = draw(st.integers(0, 1))
    image.step = width * encoding.pixel_bytes + draw(st.integers(0, 9))
    seed = draw(st.integers(0, 2**16))
    raw = np.random.default_rng(seed).integers(0, 256, height * image.step, np.uint8)
    image.data = array.array("B", raw.tobytes())
    return image


@settings(max_examples=300, deadline=None)
@given(image=images())
def test_every_pixel_is_what_the_encoding_means(image):
    rgb = image_to_rgb(image)
    assert rgb.dtype == np.uint8
    truth = [
        [reference(image, row, column) for column in range(image.width)]
        for row in range(image.height)
    ]
    # Only what is computed, not moved, may be rounded.
    moved = image.encoding in CHANNELS or image.encoding == "mono16"
    tolerance = 0 if moved else 2
    assert np.abs(rgb.astype(float) - np.array(truth)).max() <= tolerance


@settings(max_examples=200, deadline=None)
@given(
    encoding=st.sampled_from([*ENCODINGS, "", "8UC3"]),
    height=st.one_of(st.integers(0, 40), st.just(2**32 - 1)),
    width=st.one_of(st.integers(0, 40), st.just(2**32 - 1)),
    step=st.one_of(st.integers(0, 200), st.just(2**32 - 1)),
    size=st.integers(0, 4000), endian=st.integers(0, 255),
)  # fmt: skip
def test_no_image_does_worse_than_a_conversion_error(encoding, height, width, step, size, endian):
    image = Image(height=height, width=width, step=step, encoding=encoding, is_bigendian=endian)
    image.data = array.array("B", bytes(size))
    try:
        rgb = image_to_rgb(image)
    except ConversionError:
        return
    assert rgb.shape == (height, width, 3)
