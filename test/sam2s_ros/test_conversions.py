"""Conversions against expectations that are computed here, pixel by pixel where need be."""

from __future__ import annotations

import array
import time

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2s_ros.conversions import (
    ENCODINGS,
    EmptyImageError,
    ImageLayoutError,
    TruncatedImageError,
    UnknownEncodingError,
    image_to_labels,
    image_to_rgb,
    labels_to_image,
    mask_to_rle,
    rgb_to_image,
    rle_to_mask,
)
from sam2s_ros.rle import RunLengthError

pytestmark = pytest.mark.ros

BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2}
YUV = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")
BAYER = tuple(f"bayer_{p}{d}" for p in ("rggb", "bggr", "gbrg", "grbg") for d in (8, 16))
BYTES |= {**dict.fromkeys(YUV, 2), **{name: 2 if name.endswith("16") else 1 for name in BAYER}}


def message(raw: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """An Image of bytes (H, W, channels), each row followed by padding that is not zero."""
    height, width, channels = raw.shape
    rows = np.full((height, width * channels + padding), 0xAB, np.uint8)
    rows[:, : width * channels] = raw.reshape(height, -1)
    image = Image(height=height, width=width, encoding=encoding, is_bigendian=int(big_endian))
    image.step = rows.shape[1]
    image.data = array.array("B", rows.tobytes())
    return image


def noise(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, channels), np.uint8)


def yuv_to_rgb(y: float, u: float, v: float) -> list[float]:
    """BT.601 with video range, as the standard writes it."""
    luma = 255 / 219 * (y - 16)
    blue, red = 255 / 224 * (u - 128), 255 / 224 * (v - 128)
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    return [min(max(c, 0.0), 255.0) for c in rgb]


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", (0, 1, 2)), ("bgr8", (2, 1, 0)), ("rgba8", (0, 1, 2)), ("bgra8", (2, 1, 0)),
     ("mono8", (0, 0, 0))],
)  # fmt: skip
def test_bytes_land_in_their_channel(encoding, order, padding):
    raw = noise(11, 14, BYTES[encoding])
    rgb = image_to_rgb(message(raw, encoding, padding))
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, np.stack([raw[:, :, c] for c in order], axis=2))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big_endian", [False, True])
def test_mono16_keeps_the_high_byte(big_endian, padding):
    values = np.random.default_rng(1).integers(0, 65536, (9, 13)).astype(np.uint16)
    values[0, :3] = 0, 255, 65535
    raw = values.astype(">u2" if big_endian else "<u2").view(np.uint8).reshape(9, 13, 2)
    rgb = image_to_rgb(message(raw, "mono16", padding, big_endian))
    assert np.array_equal(rgb, np.repeat((values // 256).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", YUV)
def test_yuv_follows_the_standard(encoding, padding):
    luma, chroma = (1, 0) if encoding in ("yuv422", "uyvy") else (0, 1)
    raw = noise(6, 8, 2)
    raw[:, :, luma] = raw[:, :, luma].clip(16, 235)
    rgb = image_to_rgb(message(raw, encoding, padding)).astype(float)
    for row in range(6):
        for column in range(8):
            pair = column // 2 * 2
            u, v = raw[row, pair, chroma], raw[row, pair + 1, chroma]
            expected = yuv_to_rgb(float(raw[row, column, luma]), float(u), float(v))
            assert np.abs(rgb[row, column] - expected).max() <= 2


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", BAYER)
def test_bayer_gives_back_smooth_colours(encoding, padding):
    """Each channel is a plane of its own slope, which interpolation restores inside."""
    y, x = np.mgrid[0:16, 0:20]
    truth = np.stack([4 * x + 60, 6 * y + 40, 200 - 3 * x - 2 * y], axis=2).astype(np.uint8)
    pattern = encoding.removeprefix("bayer_")[:4]
    raw = np.zeros((16, 20, BYTES[encoding]), np.uint8)
    for place, letter in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        raw[rows, columns, -1] = truth[rows, columns, "rgb".index(letter)]
    rgb = image_to_rgb(message(raw, encoding, padding)).astype(int)
    assert np.abs(rgb - truth)[2:-2, 2:-2].max() <= 1


def test_every_encoding_is_tested_here():
    assert set(ENCODINGS) == set(BYTES)


def test_rgb_is_a_view_and_the_last_row_may_lack_its_padding():
    image = message(noise(5, 4, 3), "rgb8", padding=2)
    image.data = image.data[:-2]
    rgb = image_to_rgb(image)
    before = int(rgb[0, 0, 0])
    image.data[0] = before ^ 1
    assert rgb[0, 0, 0] == before ^ 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_truncated_and_empty_images_are_refused(encoding):
    channels = BYTES[encoding]
    image = message(noise(8, 8, channels), encoding)
    image.data = image.data[:-1]
    with pytest.raises(TruncatedImageError, match=r"holds \d+ bytes; 8×8 .* needs \d+"):
        image_to_rgb(image)
    for height, width in ((0, 8), (8, 0), (0, 0)):
        with pytest.raises(EmptyImageError, match="must have pixels"):
            image_to_rgb(Image(height=height, width=width, step=64, encoding=encoding))


def test_impossible_layouts_are_refused():
    image = message(noise(8, 8, 3), "rgb8")
    image.step = 23
    with pytest.raises(ImageLayoutError, match="step is 23 bytes; 8 pixels of rgb8 need 24"):
        image_to_rgb(image)
    with pytest.raises(ImageLayoutError, match="width is 7; yuyv needs an even one"):
        image_to_rgb(message(noise(8, 7, 2), "yuyv"))
    with pytest.raises(ImageLayoutError, match="height is 7; bayer_rggb8 needs an even one"):
        image_to_rgb(message(noise(7, 8, 1), "bayer_rggb8"))


def test_unknown_encodings_are_refused_with_those_that_work():
    with pytest.raises(UnknownEncodingError, match=r"'32FC1' is not supported; publish rgb8, "):
        image_to_rgb(message(noise(4, 4, 4), "32FC1"))
    with pytest.raises(UnknownEncodingError, match="rgb8 or bgr8, not 'mono8'"):
        rgb_to_image(noise(4, 4, 3), encoding="mono8")
    with pytest.raises(UnknownEncodingError, match="must be mono8"):
        image_to_labels(message(noise(4, 4, 3), "rgb8"))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_pictures_survive_the_way_there_and_back(encoding):
    # A transposed picture is not contiguous, which the message's bytes must be.
    truth = noise(21, 16, 3).transpose(1, 0, 2)
    header = Header(frame_id="endoscope")
    header.stamp.sec = 5
    image = rgb_to_image(truth, header, encoding)
    assert (image.height, image.width, image.step) == (16, 21, 63)
    assert image.encoding == encoding
    assert image.header == header
    assert bytes(image.data) == (truth if encoding == "rgb8" else truth[:, :, ::-1]).tobytes()
    assert np.array_equal(image_to_rgb(image), truth)


def test_label_maps_survive_the_way_there_and_back():
    labels = noise(7, 9, 1)[:, :, 0]
    image = labels_to_image(labels)
    assert image.encoding == "mono8"
    assert np.array_equal(image_to_labels(image), labels)
    with pytest.raises(ImageLayoutError, match="must be uint8"):
        labels_to_image(labels.astype(np.int32))
    with pytest.raises(ImageLayoutError, match="must be uint8"):
        rgb_to_image(labels)


def test_masks_survive_the_way_there_and_back():
    mask = noise(9, 12, 1)[:, :, 0] < 90
    message = mask_to_rle(mask)
    assert (message.height, message.width) == mask.shape
    assert sum(message.counts) == mask.size
    assert np.array_equal(rle_to_mask(message), mask)
    message.height = 8
    with pytest.raises(RunLengthError, match="add up to 108 pixels; 12×8 needs 96"):
        rle_to_mask(message)


@pytest.mark.serial
def test_cost_at_full_hd(capsys):
    """Per-element Python would take seconds; the figures are printed, the bound is a sanity one."""
    picture = noise(1080, 1920, 3)
    costs = {}
    for encoding in ENCODINGS:
        channels = BYTES[encoding]
        image = message(noise(1080, 1920, channels), encoding)
        costs[f"from {encoding}"] = _fastest(lambda image=image: image_to_rgb(image))
    for encoding in ("rgb8", "bgr8"):
        costs[f"to {encoding}"] = _fastest(lambda e=encoding: rgb_to_image(picture, None, e))
    # What cv_bridge does with padded rows before it calls OpenCV, and numpy's way to turn channels.
    wide = message(picture, "bgr8", padding=60)
    padded = np.zeros((1080, 1940, 3), np.uint8)[:, :1920]
    costs["cv_bridge's copy of padded rows"] = _fastest(lambda: np.ascontiguousarray(padded))
    costs["numpy instead of OpenCV"] = _fastest(lambda: np.ascontiguousarray(picture[:, :, ::-1]))
    costs["from padded bgr8"] = _fastest(lambda: image_to_rgb(wide))
    costs["to label map"] = _fastest(lambda: labels_to_image(picture[:, :, 0].copy()))
    costs["mask to runs"] = _fastest(lambda: mask_to_rle(picture[:, :, 0] > 250))
    with capsys.disabled():
        print("\n1920×1080, ms:", ", ".join(f"{k} {v * 1e3:.2f}" for k, v in costs.items()))
    assert max(costs.values()) < 0.5, costs


def _fastest(function, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
