"""`export`: a checkpoint's averaged weights as safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a checkpoint's averaged weights as .safetensors, for `load_model`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source",
        type=Path,
        nargs="+",
        help="checkpoint (.pt) or run folder; of several of one training, the mean is written",
    )
    parser.add_argument(
        "--out", type=Path, help="file; default: <run>/<recipe>-<step>[-mean].safetensors"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="what is stored; float16 halves the file",
    )


def run(args: argparse.Namespace) -> int:
    """Export and say where to."""
    from sam2s_training.export import export_checkpoint

    path = export_checkpoint(args.source, args.out, args.dtype)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
