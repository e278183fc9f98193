"""`sam2s scene`: look at the simulated endoscope, write its clips, measure its speed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam2s_model.synth import SurgicalScene

HELP = "render the simulated endoscope: contact sheets, clips, suites, speed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to do, and the scene's settings."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet")
    what.add_argument(
        "--davis", type=Path, metavar="DIR", help="add a clip to a folder in DAVIS layout"
    )
    what.add_argument("--video", type=Path, metavar="MP4", help="write a clip as a video")
    what.add_argument("--list", action="store_true", help="list the suites")
    what.add_argument("--parameters", action="store_true", help="list the parameters' ranges")
    what.add_argument("--benchmark", action="store_true", help="measure frames per second")
    scene = parser.add_argument_group("scene")
    scene.add_argument("--seed", type=int, default=0, help="first seed")
    scene.add_argument("--size", default="640x512", metavar="WxH", help="resolution")
    scene.add_argument("--fps", type=float, default=25.0, help="frames per second")
    scene.add_argument("--instruments", nargs="+", metavar="CLASS", help="bank names")
    scene.add_argument("--theme", help="anatomy, such as cholecystectomy")
    scene.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=LOW[:HIGH]",
        help="fix or narrow a parameter; may be repeated",
    )
    clip = parser.add_argument_group("clip and sheet")
    clip.add_argument("--suite", help="write this suite's clips instead (--davis only)")
    clip.add_argument("--frames", type=int, default=125, help="frames of a clip")
    clip.add_argument("--start", type=int, default=0, help="first frame")
    clip.add_argument("--rows", type=int, default=4, help="seeds on a sheet, one a row")
    clip.add_argument("--columns", type=int, default=4, help="moments on a sheet")
    clip.add_argument("--step", type=int, default=75, help="frames between moments of a sheet")
    clip.add_argument("--masks", action="store_true", help="paint the masks on sheet or video")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--device", default="cpu", help="torch device")
    speed.add_argument("--threads", type=int, default=2, help="torch threads")
    speed.add_argument("--batch", type=int, default=8, help="frames in a batch")


def run(args: argparse.Namespace) -> int:
    """Do what is asked; a sheet to out/scene.png if nothing is."""
    import torch

    torch.set_num_threads(args.threads)
    if args.list:
        _list()
    elif args.parameters:
        _parameters()
    elif args.benchmark:
        _benchmark(args)
    elif args.davis:
        _davis(args)
    elif args.video:
        _video(args)
    else:
        _sheet(args, args.sheet or Path("out/scene.png"))
    return 0


def _scene(args: argparse.Namespace, seed: int) -> SurgicalScene:
    from sam2s_model.synth import SurgicalScene

    width, height = _size(args.size)
    return SurgicalScene(
        seed,
        width,
        height,
        fps=args.fps,
        overrides=dict(map(_setting, args.set)),
        instruments=args.instruments,
        theme=args.theme,
    )


def _size(text: str) -> tuple[int, int]:
    from sam2s_model.synth import SceneError

    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise SceneError(f"--size {text!r} is not WIDTHxHEIGHT, such as 640x512") from error
    return width, height


def _setting(text: str) -> tuple[str, float | tuple[float, float]]:
    from sam2s_model.synth import SceneError

    name, _, value = text.partition("=")
    try:
        low, *high = (float(part) for part in value.split(":"))
    except ValueError as error:
        raise SceneError(f"--set {text!r} is not NAME=LOW or NAME=LOW:HIGH") from error
    return name, (low, high[0]) if high else low


def _list() -> None:
    from sam2s_model.synth import SUITES
    from sam2s_model.table import markdown_table

    rows = [
        (
            s.name,
            len(s.clips),
            s.clips[0].frames,
            f"{s.clips[0].width}×{s.clips[0].height}",
            f"{s.clips[0].seed}…{s.clips[-1].seed}",
            s.about,
        )
        for s in SUITES.values()
    ]
    print(markdown_table(("suite", "clips", "frames", "size", "seeds", "what"), rows))


def _parameters() -> None:
    from sam2s_model.synth import TRAINING
    from sam2s_model.synth.suites import SHIFTED
    from sam2s_model.table import markdown_table

    rows = [
        (name, f"{low:g}…{high:g}", "{:g}…{:g}".format(*SHIFTED[name]) if name in SHIFTED else "")
        for name, (low, high) in TRAINING.ranges.items()
    ]
    print(markdown_table(("parameter", "training", "val-shift"), rows))


def _benchmark(args: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from sam2s_model.synth.gallery import measure
    from sam2s_model.table import markdown_table

    device = torch.device(args.device)
    cases = [(size, batch) for size in (256, 512) for batch in sorted({1, args.batch})]
    rows = []
    for size, batch in tqdm(cases, desc="measuring", leave=False):
        s = measure(size, batch, max(40, 2 * batch), 8, device)
        rows.append(
            (
                f"{size}×{size}",
                batch,
                f"{s.fps:.1f}",
                f"{s.median_ms:.1f}",
                f"{s.worst_ms:.1f}",
                f"{s.map_ms:.0f}",
            )
        )
    print(f"{device}, torch threads {torch.get_num_threads()}, 8 scenes, median over frames")
    print(markdown_table(("size", "batch", "FPS", "ms/frame", "95 % ms", "new scene ms"), rows))


def _sheet(args: argparse.Namespace, path: Path) -> None:
    from tqdm import tqdm

    from sam2s_model.synth.gallery import contact_sheet, overlay

    rows, captions = [], []
    moments = [args.start + k * args.step for k in range(args.columns)]
    for seed in tqdm(range(args.seed, args.seed + args.rows), desc="rendering"):
        scene = _scene(args, seed)
        shots = [scene.render(n) for n in moments]
        rows.append([overlay(shot) if args.masks else shot.image for shot in shots])
        tools = [name for i, name in scene.classes.items() if i not in scene.organs]
        captions.append(f"{seed} {scene.layout.theme}: {', '.join(tools)}")
    _write_png(path, contact_sheet(rows, captions))
    print(path)


def _video(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from sam2s_model.synth.gallery import overlay
    from sam2s_model.video import write_video

    scene = _scene(args, args.seed)
    shots = (scene.render(n) for n in tqdm(_frames(args), desc="rendering"))
    args.video.parent.mkdir(parents=True, exist_ok=True)
    write_video(args.video, (overlay(s) if args.masks else s.image for s in shots), fps=args.fps)
    print(args.video)


def _davis(args: argparse.Namespace) -> None:
    import json

    from tqdm import tqdm

    from sam2s_model.evaluation.record import read_json
    from sam2s_model.synth import RenderedSequence, load_suite
    from sam2s_model.video import write_mask
    from sam2s_model.whole_file import write_whole

    clips: Iterator[tuple[str, RenderedSequence]]
    if args.suite:
        clips = ((clip.name, clip.open()) for clip in load_suite(args.suite).clips)
    else:
        scene = _scene(args, args.seed)
        clips = iter([(f"seed-{args.seed}", RenderedSequence(scene, args.start + args.frames))])
    # The folder may hold other clips from before.
    names_file = args.davis / "classes.json"
    classes = read_json(names_file) if names_file.exists() else {}
    for name, sequence in clips:
        images, masks = (args.davis / part / name for part in ("JPEGImages", "Annotations"))
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        classes[name] = {str(i): label for i, label in sequence.classes.items()}
        start = 0 if args.suite else args.start
        for n in tqdm(range(start, len(sequence)), desc=name):
            _write_jpeg(images / f"{n - start:05d}.jpg", sequence.frame(n))
            write_mask(masks / f"{n - start:05d}.png", sequence.masks(n))
    write_whole(names_file, json.dumps(classes, indent=1) + "\n")
    print(args.davis)


def _frames(args: argparse.Namespace) -> range:
    return range(args.start, args.start + args.frames)


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, optimize=True)


def _write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, quality=95)
