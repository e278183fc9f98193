"""`sam2s weights`: list, fetch, convert and verify checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "list, fetch, convert and verify model weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the four actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show every known name and where its file is")

    fetch = actions.add_parser("fetch", help="download official SAM 2.1 weights into the cache")
    fetch.add_argument("name", help="tiny, small, base_plus or large")
    fetch.add_argument("--sha256", help="accept only a file with this hash")
    fetch.add_argument("--force", action="store_true", help="fetch again although it is there")

    convert = actions.add_parser("convert", help="write a .pt checkpoint as safetensors")
    convert.add_argument("source", help="a known name or a file")
    convert.add_argument("--out", type=Path, help="target; default: beside the source")
    convert.add_argument("--overwrite", action="store_true", help="replace an existing target")

    verify = actions.add_parser("verify", help="check a checkpoint's hash, format and tensors")
    verify.add_argument("source", help="a known name or a file")
    verify.add_argument("--sha256", help="accept only a file with this hash")


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    actions = {"list": _list, "fetch": _fetch, "convert": _convert, "verify": _verify}
    return actions[args.action](args)


def _list(_: argparse.Namespace) -> int:
    from sam2s_model.table import markdown_table
    from sam2s_model.weights import WeightStore

    store = WeightStore()
    rows = [
        (
            status.name,
            status.preset,
            status.state.value,
            f"{status.size / 1e6:.1f}" if status.size is not None else "–",
            status.path or "–",
            status.note,
        )
        for status in store.status()
    ]
    print(markdown_table(["name", "preset", "state", "MB", "file", "note"], rows))
    print(f"\ncache: {store.cache}\nfetched from: {store.base_url}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from sam2s_model.weights import Record, fetch

    path = fetch(args.name, sha256=args.sha256, force=args.force)
    record = Record.read(path)
    print(f"{path}: {path.stat().st_size:,} bytes" + (f", {record.sha256}" if record else ""))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from sam2s_model.weights import WeightStore, convert, read_metadata

    path = convert(WeightStore().resolve(args.source), args.out, overwrite=args.overwrite)
    metadata = read_metadata(path)
    print(f"{path}: preset {metadata['preset']}, {metadata['tensors']} tensors, all unchanged")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from sam2s_model.weights import WeightStore, verify

    store = WeightStore()
    path = store.locate(args.source)
    report = verify(
        path,
        demanded=args.sha256,
        published=store.expected_sha256(path),
        keep_record=path.parent == store.cache,
        quiet=False,
    )
    dtypes = ", ".join(f"{count} {name}" for name, count in report.dtypes.items())
    print(f"{report.path}: sound")
    print(f"  format      {report.kind.value}, {report.size:,} bytes")
    print(f"  SHA-256     {report.sha256} (compared with: {report.compared_with})")
    print(f"  preset      {report.preset}")
    print(f"  tensors     {report.tensors} ({dtypes}), {report.parameters / 1e6:.2f} M numbers")
    if report.absent:
        print(f"  lacks       {len(report.absent)} tensors that SAM2S adds to SAM 2.1")
    for key, value in sorted(report.metadata.items()):
        print(f"  metadata    {key} = {value}")
    return 0
