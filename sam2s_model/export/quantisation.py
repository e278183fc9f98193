"""Int8: the image encoder in whole numbers, calibrated on frames, and held to an overlap."""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sam2s_model.config import MemorySettings
from sam2s_model.export.errors import ExportError, ParityError
from sam2s_model.export.parity import Clip, mask_iou
from sam2s_model.model import Sam2s
from sam2s_model.runtime.eager import scale_to_input
from sam2s_model.runtime.onnx import OnnxRuntime
from sam2s_model.table import markdown_table
from sam2s_model.tracker import StreamTracker

T = TypeVar("T")

FILE = "int8.json"
MIN_IOU = 0.97  # overlap with fp32 below which an int8 export is refused
CALIBRATION_FRAMES = 16
CALIBRATION_SEED = 11  # another scene than the one that is compared on


@dataclass(frozen=True)
class Int8Report:
    """What int8 costs and gives, measured on one clip in one process."""

    frames: int
    mean_iou: float  # of the masks with those of the fp32 graphs
    least_iou: float
    encode_ms: tuple[float, float]  # median of encode_image: fp32, int8
    frame_ms: tuple[float, float]  # median of a whole step
    bytes: tuple[int, int]  # of the encoder's graph

    def table(self) -> str:
        """Lay the report out as a Markdown table."""
        rows = [
            [
                name,
                f"{size / 1e6:.1f}",
                f"{encode:.1f}",
                f"{frame:.1f}",
                f"{mean:.4f}",
                f"{least:.4f}",
            ]
            for name, size, encode, frame, mean, least in (
                ("fp32", self.bytes[0], self.encode_ms[0], self.frame_ms[0], 1.0, 1.0),
                (
                    "int8",
                    self.bytes[1],
                    self.encode_ms[1],
                    self.frame_ms[1],
                    self.mean_iou,
                    self.least_iou,
                ),
            )
        ]
        header = ["encoder", "MB", "encode_image ms", "frame ms", "mean IoU", "least IoU"]
        return markdown_table(header, rows)

    def save(self, folder: Path) -> None:
        """Write int8.json."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


def quantise(path: Path, frames: Sequence[NDArray[np.uint8]], image_size: int) -> Any:
    """Quantise the encoder's graph with the ranges that these frames give it."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if not frames:
        raise ExportError("there are no frames to calibrate on; give a video or a folder of images")
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it asks for a preparation that the graphs have had
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "int8.onnx"
            quantize_static(
                path,
                out,
                _Reader(frames, image_size),
                quant_format=QuantFormat.QDQ,
                # Signed weights with one bit to spare: processors without VNNI add pairs of
                # products in 16 bits, which full-range weights would overflow.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
                # Products with weights only: attention's own gain less than rounding costs.
                op_types_to_quantize=["Gemm"],
                # What follows a product works in floats, so its result is left as one.
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
            )
            return onnx.load(out)
    finally:
        logger.setLevel(before)


def read_frames(source: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read frames, evenly spread, of a video file or a folder of images."""
    from sam2s_model.video import IMAGE_SUFFIXES, VideoReader, read_image

    if count < 1:
        raise ExportError(f"{count} calibration frames are too few; give at least 1")
    if source.is_dir():
        paths = [path for path in sorted(source.iterdir()) if path.suffix in IMAGE_SUFFIXES]
        return [read_image(path) for path in _spread(paths, count)]
    if not source.is_file():
        raise ExportError(f"there is no {source} to calibrate on; give a video or a folder")
    video = VideoReader(source)
    return [video.frame(number) for number in _spread(range(len(video)), count)]


def measure(model: Sam2s, fp32: Path, int8: Path, clip: Clip, memory: MemorySettings) -> Int8Report:
    """Track a clip with both exports in turn, frame by frame."""
    trackers = [
        StreamTracker(model, memory, runtime=OnnxRuntime(folder)) for folder in (fp32, int8)
    ]
    encode: tuple[list[float], list[float]] = ([], [])
    whole: tuple[list[float], list[float]] = ([], [])
    ious = []
    for number, frame in enumerate(tqdm(clip.frames, desc="int8", leave=False)):
        masks = []
        for which, tracker in enumerate(trackers):
            for name, prompt in clip.prompts.get(number, {}).items():
                tracker.add_target(name, prompt)
            begin = perf_counter()
            result = tracker.step(frame)
            masks.append({name: target.mask for name, target in result.items()})
            whole[which].append((perf_counter() - begin) * 1e3)
            encode[which].append(result.timings["encode_image"])
        ious += [mask_iou(mask, masks[1][name]) for name, mask in masks[0].items()]
    return Int8Report(
        frames=len(clip.frames),
        mean_iou=float(np.mean(ious)),
        least_iou=min(ious),
        encode_ms=(statistics.median(encode[0]), statistics.median(encode[1])),
        frame_ms=(statistics.median(whole[0]), statistics.median(whole[1])),
        bytes=(_encoder_size(fp32), _encoder_size(int8)),
    )


def require(report: Int8Report, min_iou: float) -> None:
    """Refuse an export whose masks are too far from fp32's."""
    if not report.mean_iou >= min_iou:
        raise ParityError(
            f"the int8 masks overlap with fp32's by {report.mean_iou:.4f} on average, less than "
            f"the {min_iou} asked for: calibrate on frames of the procedure (--calibration), "
            "allow less with --min-iou, or export fp32"
        )


class _Reader:
    """Gives the calibration its inputs, one frame after the other."""

    def __init__(self, frames: Sequence[NDArray[np.uint8]], image_size: int) -> None:
        self._inputs: Iterator[NDArray[np.uint8]] = iter(
            tqdm(frames, desc="calibrating", leave=False)
        )
        self._size = image_size

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next frame as the encoder takes it; None after the last."""
        frame = next(self._inputs, None)
        if frame is None:
            return None
        return {"image": scale_to_input(frame, self._size, torch.device("cpu")).numpy()}


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Choose items at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def _encoder_size(folder: Path) -> int:
    return (folder / "encode_image.onnx").stat().st_size
