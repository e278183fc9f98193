"""`train`: follow a recipe, from its beginning or from where the last slice stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "train by a recipe; the same command goes on where the last one stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", help="YAML file, or a shipped recipe's name such as nano")
    parser.add_argument("--out", type=Path, help="run folder; default: out/train/<recipe's name>")
    parser.add_argument("--minutes", type=float, help="stop after this time, with a checkpoint")
    parser.add_argument("--until-step", type=int, help="stop after this step, with a checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default: its own choice")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, such as --set optim.lr=0.0005 (may be repeated)",
    )
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on although the recipe is not the one that the checkpoint was written with",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the recipe with all its defaults, and stop"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Train; 0 whether the recipe is finished or the slice is over."""
    import torch
    import yaml

    from sam2s_training.distributed import join
    from sam2s_training.recipe import load_recipe
    from sam2s_training.trainer import SliceSettings, Trainer

    recipe = load_recipe(args.recipe, args.set)
    if args.show:
        print(yaml.safe_dump(recipe.plain(), sort_keys=False, allow_unicode=True), end="")
        return 0
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    out = args.out or Path("out/train") / recipe.name
    world = join(args.device)
    try:
        settings = SliceSettings(
            out, args.minutes, args.until_step, args.accept_changes, args.quiet
        )
        Trainer(recipe, settings, world).run()
    finally:
        world.leave()
    return 0
