"""CompressedImage: what image_transport writes is read; cut, damaged and absurd files are not."""

from __future__ import annotations

import array
import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from sam2s_ros.compressed import MAX_PIXELS, compressed_to_rgb, rgb_to_compressed
from sam2s_ros.conversions import (
    ConversionError,
    EmptyImageError,
    ImageLayoutError,
    UndecodableImageError,
    UnknownEncodingError,
    image_to_rgb,
)

pytestmark = pytest.mark.ros


def compressed(data: bytes, described: str) -> CompressedImage:
    message = CompressedImage(format=described)
    message.data = array.array("B", data)
    return message


def encode(picture: np.ndarray, suffix: str) -> bytes:
    """A file that shows this RGB (or grey) picture."""
    stored = picture[:, :, ::-1] if picture.ndim == 3 else picture
    return bytes(cv2.imencode(suffix, stored)[1])


def smooth() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 3, y * 4, 255 - x - y], axis=2).astype(np.uint8)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("suffix", "name"), [(".jpg", "jpeg"), (".png", "png")])
@pytest.mark.parametrize(
    "described", ["{}", "bgr8; {} compressed bgr8", "rgb8; {} compressed bgr8", "rgb8;{}", "{} "]
)
def test_pictures_are_decoded(suffix, name, described):
    truth = smooth()
    message = compressed(encode(truth, suffix), described.format(name))
    rgb = image_to_rgb(message)
    assert rgb.shape == truth.shape
    worst = np.abs(rgb.astype(int) - truth).max()
    assert worst == 0 if suffix == ".png" else worst < 24


def test_jpg_is_an_accepted_name():
    assert compressed_to_rgb(compressed(encode(smooth(), ".jpg"), "jpg")).shape == (48, 64, 3)


def test_a_file_written_in_rgb_order_is_not_turned_twice():
    """`compressed rgb8` says that the encoder was given RGB where it expects BGR."""
    truth = smooth()
    data = bytes(cv2.imencode(".png", truth)[1])
    assert np.array_equal(image_to_rgb(compressed(data, "rgb8; png compressed rgb8")), truth)


@pytest.mark.parametrize(
    "described", ["mono8; png compressed mono8", "mono8; png compressed ", "png"]
)
def test_grey_pictures_become_three_equal_channels(described):
    grey = noise(20, 30)
    rgb = image_to_rgb(compressed(encode(grey, ".png"), described))
    assert np.array_equal(rgb, np.repeat(grey[:, :, None], 3, axis=2))


def test_deep_and_transparent_pictures_lose_depth_and_alpha():
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30)).astype(np.uint16)
    rgb = image_to_rgb(compressed(encode(deep, ".png"), "mono16; png compressed mono16"))
    assert np.array_equal(rgb[:, :, 0], deep >> 8)
    bgra = noise(20, 30, 4)
    data = bytes(cv2.imencode(".png", bgra)[1])
    rgb = image_to_rgb(compressed(data, "bgra8; png compressed bgr8"))
    assert np.array_equal(rgb, bgra[:, :, 2::-1])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_stays_one_when_compressed(pattern, depth):
    truth = smooth()[:, :, :]
    mosaic = np.zeros(truth.shape[:2], np.uint8 if depth == 8 else np.uint16)
    for place, letter in enumerate(pattern):
        cell = slice(place // 2, None, 2), slice(place % 2, None, 2)
        mosaic[cell] = truth[cell][..., "rgb".index(letter)].astype(mosaic.dtype) << (depth - 8)
    name = f"bayer_{pattern}{depth}"
    rgb = image_to_rgb(compressed(encode(mosaic, ".png"), f"{name}; png compressed "))
    assert np.abs(rgb.astype(int) - truth)[2:-2, 2:-2].max() <= 1


def test_odd_and_unknown_mosaics_are_refused():
    for shape, name in (((7, 8), "bayer_rggb8"), ((8, 8), "bayer_rgbg8")):
        message = compressed(encode(noise(*shape), ".png"), f"{name}; png compressed ")
        with pytest.raises(ImageLayoutError, match="a compressed mosaic must be"):
            image_to_rgb(message)


@pytest.mark.parametrize("described", ["tiff", "", "32FC1; compressedDepth png", "rgb8; zstd"])
def test_other_formats_are_refused(described):
    with pytest.raises(UnknownEncodingError, match="publish jpeg or png"):
        image_to_rgb(compressed(encode(smooth(), ".png"), described))


def test_no_bytes_are_refused():
    with pytest.raises(EmptyImageError, match="no bytes"):
        image_to_rgb(CompressedImage(format="png"))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_cut_files_are_refused(suffix):
    data = encode(noise(64, 64, 3), suffix)
    for length in (1, 30, len(data) // 2, len(data) - 12):
        with pytest.raises(UndecodableImageError, match="damaged or cut short"):
            image_to_rgb(compressed(data[:length], "jpeg" if suffix == ".jpg" else "png"))


def test_padded_jpeg_is_accepted():
    data = encode(np.full((32, 32, 3), 90, np.uint8), ".jpg") + bytes(500)
    assert np.abs(image_to_rgb(compressed(data, "jpeg")).astype(int) - 90).max() < 4


@pytest.mark.filterwarnings("ignore:Image size")  # pillow, about the smaller one
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_header_that_promises_gigabytes_is_refused(side):
    data = bytearray(encode(noise(8, 8, 3), ".png"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageLayoutError, match=r"announces 10000×10000; at most|far too large"):
        image_to_rgb(compressed(bytes(data), "png"))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".jpg", ".png"]))
def test_damage_does_no_worse_than_a_conversion_error(data, suffix):
    """Every kind of damage to the header, and some to the picture itself."""
    whole = bytearray(encode(noise(24, 32, 3), suffix))
    for _ in range(data.draw(st.integers(1, 6))):
        limit = data.draw(st.sampled_from([40, len(whole)]))
        whole[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(whole)))
    try:
        rgb = image_to_rgb(compressed(bytes(whole[:end]), "jpeg"))
    except ConversionError:
        return
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.dtype == np.uint8


def test_pictures_survive_the_way_there_and_back():
    truth = smooth()
    header = Header(frame_id="endoscope")
    message = rgb_to_compressed(truth, header, quality=95)
    assert message.format == "rgb8; jpeg compressed bgr8"
    assert message.header == header
    assert np.abs(image_to_rgb(message).astype(int) - truth).max() < 16
    assert len(rgb_to_compressed(truth, quality=20).data) < len(message.data)
    for bad in (truth[:, :, 0], truth.astype(float), truth[:0]):
        with pytest.raises(ImageLayoutError, match="must be uint8"):
            rgb_to_compressed(bad)


@pytest.mark.serial
def test_cost_at_full_hd(capsys):
    """The figures are printed; the bound is a sanity one."""
    picture = cv2.GaussianBlur(noise(1080, 1920, 3), (0, 0), 3)
    costs = {}
    for suffix in (".jpg", ".png"):
        data = encode(picture, suffix)
        message = compressed(data, "jpeg" if suffix == ".jpg" else "png")
        costs[f"from {message.format}"] = _fastest(lambda message=message: image_to_rgb(message))
        costs[f"pillow, {message.format}"] = _fastest(
            lambda data=data: np.asarray(PilImage.open(io.BytesIO(data)))
        )
    costs["to jpeg"] = _fastest(lambda: rgb_to_compressed(picture))
    with capsys.disabled():
        print("\n1920×1080, ms:", ", ".join(f"{k} {v * 1e3:.1f}" for k, v in costs.items()))
    assert max(costs.values()) < 1.0, costs


def _fastest(function, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
