"""`sam2s export`: write a model as ONNX graphs, and check them against the model."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write weights as ONNX graphs for runtime 'onnx'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--weights", default="nano", help="preset name or checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, a new one")
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "fp16", "int8"),
        help="fp16: all graphs; int8: the image encoder, calibrated on frames",
    )
    parser.add_argument("--opset", type=int, help="ONNX operator set, 20 to 23 [23]")
    parser.add_argument("--image-size", type=int, help="network input in pixels [the weights']")
    parser.add_argument(
        "--max-long", type=int, help="long-term memories that there is room for [3]"
    )
    parser.add_argument("--text-bank", help="class names that travel along [the weights']")
    parser.add_argument(
        "--traced", type=Path, help="fp32 export of the same weights to convert [trace anew]"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare with the torch runtime; fail if it differs"
    )
    parser.add_argument(
        "--frames", type=int, default=40, help="frames of the clip that is compared on"
    )
    int8 = parser.add_argument_group("int8")
    int8.add_argument(
        "--calibration", type=Path, help="video or folder of images [simulated endoscopy]"
    )
    int8.add_argument(
        "--calibration-frames", type=int, default=16, help="frames of it, evenly spread"
    )
    int8.add_argument(
        "--min-iou", type=float, default=0.97, help="refuse masks that overlap less with fp32's"
    )


def run(args: argparse.Namespace) -> int:
    """Export, print what was written, and compare."""
    import dataclasses

    from sam2s_model.config import MemorySettings
    from sam2s_model.export.build import Check, build
    from sam2s_model.export.folder import ExportOptions
    from sam2s_model.export.tracing import OPSET
    from sam2s_model.loading import load_model
    from sam2s_model.textbank import TextBank

    memory = MemorySettings()
    if args.max_long is not None:
        memory = dataclasses.replace(memory, max_long=args.max_long)
    model = load_model(args.weights, image_size=args.image_size)
    options = ExportOptions(
        opset=OPSET if args.opset is None else args.opset,
        precision=args.precision,
        memory=memory,
        text_bank=TextBank.load(args.text_bank) if args.text_bank else None,
        weights=str(args.weights),
        traced=args.traced,
    )
    frames = None
    if args.calibration is not None:
        from sam2s_model.export.quantisation import read_frames

        frames = read_frames(args.calibration, args.calibration_frames)
    check = Check(args.verify, args.frames, args.min_iou, frames)
    build(model, args.out, options, check)
    print(f"{args.out}: {model.config.name} at {model.config.image_size}, {args.precision}")
    return 0
