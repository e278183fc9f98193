"""How fast clips are made here: `python -m sam2s_training.data.speed`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sam2s_model.table import markdown_table
from sam2s_training.data.annotators import AnnotatedSource
from sam2s_training.data.augment import AugmentedSource
from sam2s_training.data.clip import Clip, take
from sam2s_training.data.loader import LoaderSettings
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.shards import ShardSource, write_shards
from sam2s_training.data.synthetic import SyntheticSource

HEADER = ("size", "frames", "render ms", "shard ms", "augment ms", "annotate ms", "shard kB")


def measure(
    size: int, sampler: SamplerSettings, clips: int, batch: int, device: torch.device
) -> tuple[float, ...]:
    """Time `clips` clips of one kind, the making of new scenes included.

    Returns:
        Milliseconds a clip for rendering, reading a shard, augmenting, annotating; and a clip's
        kilobytes in a shard.
    """
    source = SyntheticSource(size, sampler=sampler, device=device)
    groups = [range(start, start + batch) for start in range(0, clips, batch)]
    # All scenes of the first turn are new, so they are not like those that follow.
    turn = source.settings.scenes
    for start in range(0, turn, batch):
        source.samples(range(start, start + batch))
    render = _time(lambda i: source.samples([turn + k for k in groups[i]]), len(groups), device)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "shards"
        here = LoaderSettings(ahead="none")
        write_shards(source, place, batch, origin="speed", loader=here, progress=False)
        size_kb = sum(path.stat().st_size for path in place.glob("*.zip")) / batch / 1e3
        shards = ShardSource(place)
        read = _time(lambda i: take(shards, groups[i]), len(groups), device)
    kept = _Kept(source.samples(range(batch)))
    changed, drawn = AugmentedSource(kept), AnnotatedSource(kept)
    augment = _time(lambda i: changed.samples(groups[i]), len(groups), device)
    annotate = _time(lambda i: drawn.samples(groups[i]), len(groups), device)
    return (*(1e3 * seconds / batch for seconds in (render, read, augment, annotate)), size_kb)


class _Kept:
    """Gives the same few clips for ever."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips = clips

    def sample(self, index: int) -> Clip:
        return self.clips[index % len(self.clips)]


def _time(make: Callable[[int], object], count: int, device: torch.device) -> float:
    """Measure the mean seconds of a call, after one that is not counted; CPU time on a CPU."""
    make(0)
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize(device)
    start = clock()
    for i in range(count):
        make(i)
    if cuda:
        torch.cuda.synchronize(device)
    return (clock() - start) / count


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m sam2s_training.data.speed",
        description="Time the making of training clips, on one CPU thread or a GPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="pixels")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 8], help="of a clip")
    parser.add_argument("--clips", type=int, default=64, help="clips to time")
    parser.add_argument("--batch", type=int, default=1, help="clips in one go")
    parser.add_argument("--device", default="cpu", help="where to render")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for size in args.sizes:
        for frames in args.frames:
            scattered = min(3, frames)
            sampler = SamplerSettings(scattered=scattered, consecutive=frames - scattered)
            device = torch.device(args.device)
            figures = measure(size, sampler, args.clips, args.batch, device)
            rows.append((size, sampler.frames, *(f"{figure:.1f}" for figure in figures)))
    print(markdown_table(HEADER, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
