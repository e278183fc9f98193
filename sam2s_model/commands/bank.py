"""`sam2s bank`: make a text bank from names, and look into one."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make and show banks of class names for naming the instruments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="embed a list of names")
    build.add_argument(
        "--names",
        default="default",
        help="file with a line each, `name` or `name,kind` (instrument or tissue); "
        "default: the 37 categories of SA-SV",
    )
    build.add_argument(
        "--encoder",
        required=True,
        help="open_clip:<model>/<pretrained tag or file>, open_clip:local-dir:<folder>, minilm, "
        "or minilm:<folder>",
    )
    build.add_argument("--out", type=Path, required=True, help="target, .npz")

    show = actions.add_parser("show", help="list a bank's names, kinds and nearest neighbours")
    show.add_argument("file", help="an .npz file or a shipped bank's name")
    show.add_argument("--neighbours", type=int, default=3, help="neighbours per name (default 3)")


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    return _build(args) if args.action == "build" else _show(args)


def _build(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sam2s_model.textbank import build_bank, default_names, read_names
    from sam2s_model.textencoder import load_encoder

    entries = default_names() if args.names == "default" else read_names(args.names)
    bank = build_bank(
        entries,
        load_encoder(args.encoder),
        progress=lambda items: tqdm(items, desc="embedding names", unit="name", leave=False),
    )
    path = bank.save(args.out)
    print(
        f"{path}: {len(bank)} names, {bank.dim} dimensions, encoder {bank.encoder}, "
        f"{path.stat().st_size:,} bytes"
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    import numpy as np

    from sam2s_model.table import markdown_table
    from sam2s_model.textbank import TextBank

    bank = TextBank.load(args.file)
    cosines = bank.similarities()
    rows = []
    for n, (name, kind) in enumerate(zip(bank.names, bank.kinds, strict=True)):
        order = [int(m) for m in np.argsort(-cosines[n], kind="stable") if m != n]
        near = [f"{bank.names[m]} {cosines[n, m]:.2f}" for m in order[: max(0, args.neighbours)]]
        rows.append((name, kind, ", ".join(near) or "–"))
    print(markdown_table(["name", "kind", "nearest (cosine)"], rows))
    others = cosines[~np.eye(len(bank), dtype=bool)]
    print(f"\nencoder: {bank.encoder}; {len(bank)} names, {bank.dim} dimensions")
    if others.size:
        print(f"cosine between names: mean {others.mean():.2f}, highest {others.max():.2f}")
    for template in bank.templates:
        print(f"template: {template}")
    return 0
