"""`sam2s bench ros`: the tracker node's rate and latency, over DDS between processes."""

from __future__ import annotations

import argparse
from pathlib import Path

from sam2s_model.errors import Sam2sError
from sam2s_ros.share import shared_file

HELP = "time the tracker node over DDS: camera, node and receiver in processes of their own"

CASES = ("640x512", "1280x1024", "1920x1080")  # as in bench/figures.py, which needs numpy


class BenchArgumentError(Sam2sError):
    """A case, a number or a parameter that cannot be."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to time, and for how long."""
    parser.add_argument("--cases", default=",".join(CASES), help="streams, comma-separated")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, of each stream")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds of stream before")
    parser.add_argument("--targets", type=int, default=2, help="instruments that are tracked")
    parser.add_argument(
        "--model", default="nano",
        help="weights; random ones if not on disk; for runtime onnx also a folder of graphs",
    )  # fmt: skip
    parser.add_argument(
        "--runtime", choices=("torch", "onnx"), help="who executes the network [the parameters']"
    )
    parser.add_argument("--threads", type=int, help="cores for the network [the parameters']")
    parser.add_argument(
        "--no-overlap", action="store_true", help="the node encodes no image while one is tracked"
    )
    parser.add_argument("--params-file", help="parameters of the node [the shipped ones]")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")


def run(args: argparse.Namespace) -> int:
    """Time the cases and print a table: 0 if all goals are met, else 1."""
    import json
    import tempfile

    from sam2s_model.table import markdown_table
    from sam2s_ros.bench import figures, session
    from sam2s_ros.shipped import node_graphs, node_weights
    from sam2s_ros.supervisor import interrupt_on_signals

    cases = _cases(args.cases)
    if args.seconds <= 0 or args.warmup < 0:
        raise BenchArgumentError("--seconds must be above 0 and --warmup at least 0")
    params_file = args.params_file or str(shared_file("config", "tracker.yaml"))
    parameters: dict[str, str | int | bool] = {}
    if args.runtime is not None:
        parameters["runtime"] = args.runtime
    if args.threads is not None:
        parameters["threads"] = args.threads
    if args.no_overlap:
        parameters["overlap"] = False
    interrupt_on_signals()  # or `timeout` would leave the node behind
    rows, known = [], {}
    with tempfile.TemporaryDirectory() as folder:
        model, trained = node_weights(Path(folder), args.model)
        if args.runtime == "onnx":
            model = node_graphs(Path(folder), model)
        for case in (case for case in figures.CASES if case.name in cases):
            with session.tracker(params_file, {**parameters, "model": model}) as plan:
                stamps, receipts = session.measure(
                    case, args.seconds, args.warmup, args.targets, plan
                )
            counted = figures.count(stamps, receipts, case.rate)
            rows += figures.rows(case, counted)
            known[case.name] = counted.as_json()
            print(f"{case.name}: {counted.breakdown()}", flush=True)
    weights = f"{args.model} weights" if trained else f"random {args.model} weights"
    chosen = "".join(f", {name} {value}" for name, value in parameters.items())
    print(
        f"\n{weights}{chosen}, {args.targets} targets, {args.seconds:g} s after {args.warmup:g} s\n"
    )
    print(markdown_table(["stream", "figure", "goal", "measured", "verdict"], rows))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(known, indent=1) + "\n")
    return 0 if all(row[-1] == "met" for row in rows) else 1


def _cases(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in CASES:
            raise BenchArgumentError(f"there is no case '{name}'; choose from {', '.join(CASES)}")
    return names
