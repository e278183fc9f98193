"""`shards`: render a phase's clips to disk, once, for trainings that then only read."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "render a phase's clips into shards; a stopped rendering goes on with the same command"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", help="YAML file, or a shipped recipe's name such as nano")
    parser.add_argument("--phase", help="its name; default: the last one")
    parser.add_argument("--clips", type=int, default=2048, help="how many")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--codec", choices=("jpeg", "png"), default="jpeg", help="of the pictures")
    parser.add_argument("--device", default="cpu", help="where to render, with loader.ahead thread")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Render, and say how to train from the shards."""
    from sam2s_training.distributed import choose_device
    from sam2s_training.feed import write_phase_shards
    from sam2s_training.recipe import load_recipe
    from sam2s_training.start import load_bank

    recipe = load_recipe(args.recipe, args.set)
    phase = recipe.phase(args.phase) if args.phase else recipe.phases[-1]
    manifest = write_phase_shards(
        phase.data,
        args.out,
        args.clips,
        size=phase.image_size,
        seed=recipe.seed,
        instruments=load_bank(recipe).instruments().names,
        codec=args.codec,
        device=choose_device(args.device),
        progress=not args.quiet,
    )
    print(
        f"{args.out}: {manifest.clips:,} clips of {manifest.frames} frames at {manifest.size} px; "
        f"train from them with data: {{parts: {{shards: {{shards: {{folder: {args.out}}}}}}}}}"
    )
    return 0
