"""The whole of `sam2s export`: write, quantise, compare, and refuse what does not hold."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2s_model.export import parity, quantisation
from sam2s_model.export.errors import ExportError, ParityError
from sam2s_model.export.folder import (
    ExportOptions,
    make_manifest,
    write_export,
    write_graph,
)
from sam2s_model.export.manifest import FILE, Manifest
from sam2s_model.model import Sam2s

Say = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """How an export is checked."""

    verify: bool = False  # compare with the model
    frames: int = 40  # of the simulated clip that is tracked for it
    min_iou: float = quantisation.MIN_IOU  # of an int8 export's masks with fp32's
    calibration: Sequence[NDArray[np.uint8]] | None = None  # frames; None: simulated ones


def build(
    model: Sam2s, folder: Path, options: ExportOptions, check: Check, say: Say = print
) -> Manifest:
    """Export a model; an export that does not hold keeps its report but loses its manifest."""
    if check.frames < 8:
        raise ExportError(f"{check.frames} frames are too few to compare on; give at least 8")
    if not 0.0 <= check.min_iou <= 1.0:
        raise ExportError(f"min_iou is {check.min_iou}; it must lie in 0..1")
    try:
        if options.precision == "int8":
            manifest = _build_int8(model, folder, options, check, say)
        else:
            manifest = write_export(model, folder, options)
        say(inventory(manifest))
        if check.verify:
            _verify(model, folder, options, check, say)
    except ParityError as error:
        (folder / FILE).unlink(missing_ok=True)
        raise ParityError(f"{error}. {folder} is no finished export: it has no {FILE}") from error
    return manifest


def inventory(manifest: Manifest) -> str:
    """Lay out the graphs' sizes and operators as a Markdown table."""
    from sam2s_model.table import markdown_table

    rows = [
        [
            name,
            f"{graph.bytes / 1e6:.1f}",
            sum(graph.operators.values()),
            ", ".join(f"{kind} {count}" for kind, count in list(graph.operators.items())[:5]),
        ]
        for name, graph in manifest.graphs.items()
    ]
    return markdown_table(["graph", "MB", "operators", "most of them"], rows)


def _build_int8(
    model: Sam2s, folder: Path, options: ExportOptions, check: Check, say: Say
) -> Manifest:
    """Export as fp32, replace the encoder, and measure one beside the other."""
    clip = parity.synthetic_clip(check.frames)
    frames = check.calibration
    if frames is None:  # other frames than those that the overlap is measured on
        frames = parity.synthetic_clip(
            quantisation.CALIBRATION_FRAMES, seed=quantisation.CALIBRATION_SEED
        ).frames
    with tempfile.TemporaryDirectory() as name:
        exact = options.traced or Path(name)
        if options.traced is None:
            write_export(model, exact, dataclasses.replace(options, precision="fp32"))
        write_export(model, folder, dataclasses.replace(options, precision="fp32", traced=exact))
        proto = quantisation.quantise(exact / "encode_image.onnx", frames, model.config.image_size)
        write_graph(proto, folder / "encode_image.onnx", model.fingerprint())
        manifest = make_manifest(model, folder, options)
        manifest.save(folder)
        report = quantisation.measure(model, exact, folder, clip, options.memory)
    report.save(folder)
    say(report.table())
    quantisation.require(report, check.min_iou)
    return manifest


def _verify(model: Sam2s, folder: Path, options: ExportOptions, check: Check, say: Say) -> None:
    bounds = parity.BOUNDS.get(options.precision)
    if bounds is None:  # int8: its own measure decides, this one tells where it comes from
        bounds = parity.Bounds(None, None)
    found = parity.compare(model, folder, parity.synthetic_clip(check.frames), bounds)
    say(found.table())
    parity.verify(found, folder)
