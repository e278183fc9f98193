"""CompressedImage as image_transport writes it, jpeg or png, to RGB and back.

OpenCV decodes: it takes about three quarters of pillow's time, which reads only the header here.
The figures: `pytest test/sam2s_ros/test_conversions_compressed.py -k cost`.
"""

from __future__ import annotations

import io
from typing import Any, cast

import cv2
import numpy as np
from PIL import Image as PilImage
from sensor_msgs.msg import CompressedImage

from sam2s_ros.encodings import (
    ENCODINGS,
    EmptyImageError,
    ImageLayoutError,
    Picture,
    UndecodableImageError,
    UnknownEncodingError,
)

MAX_PIXELS = 1 << 26  # 8192×8192; a header that promises more is damaged, and would take gigabytes
JPEG_QUALITY = 85  # no artefacts that show in an overlay, a tenth of the raw bytes
FORMATS = ("jpeg", "png")
_TAIL = 4096  # bytes; cameras pad their frames with zeros


def compressed_to_rgb(message: CompressedImage) -> Picture:
    """Decode a jpeg or png as uint8 (H, W, 3) RGB; cut and damaged files are refused."""
    original, described = _split(message.format)
    if "compresseddepth" in described or not any(kind in described for kind in (*FORMATS, "jpg")):
        raise UnknownEncodingError(
            f"the compressed format {message.format!r} is not supported; publish jpeg or png"
        )
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise EmptyImageError("the compressed image holds no bytes; check its publisher")
    flags = cv2.IMREAD_COLOR
    # image_transport compresses a mosaic as a grey picture.
    mosaic = original.startswith("bayer_") and "bgr" not in described
    if mosaic:
        flags = cv2.IMREAD_GRAYSCALE
    picture = _decode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION, message.format)
    if mosaic:
        name = original.removesuffix("16").removesuffix("8") + "8"
        return _mosaic_to_rgb(picture, name)
    # As image_transport reads it, this file has its red and blue channels exchanged.
    if "compressed rgb" in described:
        return picture
    return cast(Picture, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, picture))


def rgb_to_compressed(
    picture: Picture, header: Any = None, quality: int = JPEG_QUALITY
) -> CompressedImage:
    """Encode an RGB picture, uint8 (H, W, 3), as jpeg of a quality 1..100."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ImageLayoutError(
            f"a picture must be uint8 (H, W, 3) with pixels, not {picture.dtype} {picture.shape}"
        )
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    if header is not None:
        message.header = header
    message.data.frombytes(data.data)
    return message


def _split(described: str) -> tuple[str, str]:
    """Split "bgr8; jpeg compressed bgr8" into the camera's encoding and the rest, lower case."""
    original, separator, rest = described.lower().partition(";")
    return (original.strip(), rest.strip()) if separator else ("", original.strip())


def _decode(data: Picture, flags: int, described: str) -> Picture:
    refusal = UndecodableImageError(
        f"the compressed image ({described}, {data.size} bytes) is damaged or cut short; "
        "it must be one whole jpeg or png file"
    )
    width, height = _announced_size(data, refusal)
    if width * height > MAX_PIXELS:
        raise ImageLayoutError(
            f"the compressed image announces {width}×{height}; at most {MAX_PIXELS} pixels are read"
        )
    # OpenCV fills what a cut file lacks with grey, so the end is looked for here.
    if not _is_complete(data):
        raise refusal
    try:
        picture = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise refusal from error
    if picture is None:
        raise refusal
    return cast(Picture, picture)


def _announced_size(data: Picture, refusal: UndecodableImageError) -> tuple[int, int]:
    """Read width and height from the file's header, which costs 0.1 ms."""
    try:
        with PilImage.open(io.BytesIO(data.data), formats=("JPEG", "PNG")) as picture:
            width, height = picture.size
            return int(width), int(height)
    except PilImage.DecompressionBombError as error:
        raise ImageLayoutError(f"the compressed image is far too large: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise refusal from error


def _is_complete(data: Picture) -> bool:
    """Tell whether a jpeg or png has its end: a jpeg its marker, a png its last chunk."""
    tail = data[-_TAIL:].tobytes()
    return b"\xff\xd9" in tail if data[:2].tobytes() == b"\xff\xd8" else b"IEND" in tail


def _mosaic_to_rgb(grey: Picture, name: str) -> Picture:
    encoding = ENCODINGS.get(name)
    if encoding is None or grey.shape[0] % 2 or grey.shape[1] % 2:
        raise ImageLayoutError(
            f"a compressed mosaic must be of even width and height and one of rggb, bggr, gbrg, "
            f"grbg; this is {name}, {grey.shape[1]}×{grey.shape[0]}"
        )
    return encoding.convert(grey)
