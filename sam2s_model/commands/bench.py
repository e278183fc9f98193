"""`sam2s bench`: how fast the tracker is here, alone or beside the reference SAM 2."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from sam2s_model.commands.options import add_allow_fallback

MODES = "sam2s.bench"  # entry points of packages above the library that time more than the tracker

HELP = "time the tracker by stage, alone or beside the reference SAM 2 predictor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--preset", default="nano", help="model to time with random weights")
    parser.add_argument("--weights", help="weights to time instead: a name or a file")
    parser.add_argument(
        "--image-size", type=int, help="network input in pixels [the weights' or preset's]"
    )
    parser.add_argument("--targets", default="1,2,4,8", help="numbers of targets, comma-separated")
    parser.add_argument("--memory", default="sam2", help="memory policy: sam2, divemem or efp")
    parser.add_argument(
        "--precision", default="fp32", help="precisions to compare: fp32, bf16 or fp32,bf16"
    )
    parser.add_argument(
        "--runtime",
        default="torch",
        help="runtimes to compare: torch, onnx, onnx-fp16, onnx-int8; the model is exported first. "
        "Options of ONNX Runtime follow a colon: onnx,onnx:spinning=off,onnx:threads=1+arena=off",
    )
    parser.add_argument(
        "--exports", type=Path, help="folder that keeps the exports for the next run [temporary]"
    )
    parser.add_argument("--provider", default="cpu", help="of ONNX Runtime: cpu, cuda, tensorrt")
    add_allow_fallback(parser)
    parser.add_argument(
        "--against", choices=["sam2"], help="also run the reference package's predictor"
    )
    parser.add_argument("--frames", type=int, default=12, help="frames that are timed")
    parser.add_argument("--warmup", type=int, default=8, help="frames before, to fill the memory")
    parser.add_argument("--source-size", default="640x512", help="size of the frames, WxH")
    parser.add_argument("--device", default="cpu", help="where the networks run")
    parser.add_argument("--threads", type=int, help="CPU threads [torch's choice]")
    parser.add_argument(
        "--no-peak-memory", action="store_true", help="skip the separate runs that measure memory"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    modes = {entry.name: entry.value for entry in entry_points(group=MODES)}
    if modes:
        children = parser.add_subparsers(
            dest="mode", metavar="MODE", title="instead of the tracker"
        )
    for name, path in sorted(modes.items()):
        module = import_module(path)
        child = children.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the comparison and print its table."""
    import json
    import platform
    import tempfile

    import torch
    from tqdm import tqdm

    from sam2s_model import benchmark
    from sam2s_model.config import ModelConfig
    from sam2s_model.loading import load_model
    from sam2s_model.runtime.eager import PRECISIONS

    config = ModelConfig.preset(args.preset)
    if args.weights:
        config = load_model(args.weights, image_size=args.image_size).config
    width, height = _size(args.source_size)
    counts = _numbers(args.targets)
    runtimes = args.runtime.split(",")
    for runtime in runtimes:
        if runtime != "torch" and benchmark.onnx_contender(runtime)[0] not in benchmark.ONNX:
            raise benchmark.BenchmarkError(
                f"there is no runtime '{runtime}'; choose from torch, {', '.join(benchmark.ONNX)}"
            )
    precisions = args.precision.split(",") if "torch" in runtimes else []
    for precision in precisions:
        if precision not in PRECISIONS:
            raise benchmark.BenchmarkError(
                f"there is no precision '{precision}'; choose from {', '.join(PRECISIONS)}"
            )
    if args.frames < 1 or args.warmup < 0:
        raise benchmark.BenchmarkError("--frames must be at least 1 and --warmup at least 0")
    if args.against and args.memory != "sam2":
        raise benchmark.BenchmarkError(
            "the reference has no memory but its own: compare with --memory sam2"
        )
    setting = benchmark.Setting(
        preset=config.name,
        image_size=args.image_size or config.image_size,
        memory=args.memory,
        device=args.device,
        weights=args.weights,
        threads=args.threads or torch.get_num_threads(),
        provider=args.provider,
        allow_fallback=args.allow_fallback,
        width=width,
        height=height,
    )
    contenders = [*([benchmark.REFERENCE] if args.against else []), *precisions]
    exported = [runtime for runtime in runtimes if runtime != "torch"]
    timings = []
    with tempfile.TemporaryDirectory() as temporary:
        kinds = {benchmark.onnx_contender(name)[0] for name in exported}
        folders = {name: (args.exports or Path(temporary)) / name for name in kinds}
        for name, folder in sorted(folders.items()):  # fp32 first, the others are made of it
            traced = folders.get("onnx") if name != "onnx" else None
            benchmark.export_contender(setting, name, folder, traced)
        setting = setting._replace(exports={name: str(path) for name, path in folders.items()})
        contenders += exported
        for count in counts:
            measured = benchmark.compare(contenders, setting, count, args.frames, args.warmup)
            if not args.no_peak_memory:
                for timing in tqdm(measured, desc="peak memory", leave=False):
                    timing.peak_mb = benchmark.peak_memory(
                        timing.contender, setting, count, args.warmup + 1
                    )
            timings += measured

    def label(contender: str) -> str:
        return "reference" if contender == benchmark.REFERENCE else f"sam2s {contender}"

    print(
        f"{args.weights or args.preset + ' (random weights)'} at {setting.image_size}, frames "
        f"{width}x{height}, memory {args.memory}, {args.frames} frames after {args.warmup}, "
        f"{setting.threads} thread(s), {_processor() or platform.machine()}, "
        f"torch {torch.__version__}\n"
    )
    print(benchmark.report(timings, label))
    for contender, cost in benchmark.cost_per_target(timings).items():
        print(f"{label(contender)}: each target after the first adds {cost:.1f} ms")
    if args.json:
        rows = [
            {**vars(timing), "median_ms": timing.median_ms, "p95_ms": timing.p95_ms}
            for timing in timings
        ]
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"setting": setting._asdict(), "timings": rows}, indent=1))
    return 0


def _numbers(text: str) -> list[int]:
    from sam2s_model.benchmark import BenchmarkError

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > 16:
        raise BenchmarkError(f"--targets must be numbers from 1 to 16 such as 1,2,4, not '{text}'")
    return numbers


def _size(text: str) -> tuple[int, int]:
    from sam2s_model.benchmark import BenchmarkError

    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise BenchmarkError(f"--source-size must be like 640x512, not '{text}'")
    return int(width), int(height)


def _processor() -> str:
    """Name the processor as Linux does; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    lines = (line for line in path.read_text().splitlines() if line.startswith("model name"))
    return next(lines, ":").partition(":")[2].strip()
