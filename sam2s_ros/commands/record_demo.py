"""`sam2s record-demo`: a bag of the simulated endoscope with truth and prompts, to try replay."""

from __future__ import annotations

import argparse
from pathlib import Path

from sam2s_ros.commands.bag_options import add_bag_options

HELP = "record a bag of the simulated endoscope with ground truth and a prompts file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is recorded."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the bag")
    parser.add_argument("--seconds", type=float, default=60.0, help="length")
    parser.add_argument("--seed", type=int, default=7, help="which operation is seen")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--height", type=int, default=512, help="pixels")
    parser.add_argument("--rate", type=float, default=25.0, help="frames a second")
    parser.add_argument("--raw", action="store_true", help="raw images instead of jpeg")
    add_bag_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Record, and say how to replay it."""
    from sam2s_ros.replay.demo import PROMPTS_FILE, DemoSettings, record_demo

    settings = DemoSettings(
        args.seconds, args.seed, args.width, args.height, args.rate, args.raw, args.storage,
        args.compression,
    )  # fmt: skip
    made = record_demo(args.out, settings, not args.quiet)
    print(
        f"{args.out}: {made['frames']} frames on {made['image']}, truth on {made['labels']}, "
        f"{made['targets']} target(s) in {args.out / PROMPTS_FILE}\n"
        f"replay it: sam2s replay {args.out} --out out/replay"
    )
    return 0
