"""`sam2s set-target`: point out a target to a running tracker, or correct one."""

from __future__ import annotations

import argparse
import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from sam2s_model.errors import Sam2sError
from sam2s_ros.commands.common import add_tracker_arguments, connected

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HELP = "point out a target to a running tracker by clicks, a box or a mask, or correct one"


class PromptArgumentError(Sam2sError):
    """A click, box, mask or stamp that cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the target and the ways to point it out; all pixels are those of the source image."""
    parser.add_argument("--name", required=True, help="the target's name; a known one is corrected")
    parser.add_argument(
        "--click", action="append", default=[], metavar="X,Y", help="a pixel on it; repeatable"
    )
    parser.add_argument(
        "--click-off", action="append", default=[], metavar="X,Y",
        help="a pixel on the background; repeatable",
    )  # fmt: skip
    parser.add_argument("--box", metavar="X0,Y0,X1,Y1", help="a rectangle around it")
    parser.add_argument(
        "--mask", type=Path, metavar="PNG", help="an image of source size, not black where it is"
    )
    parser.add_argument("--class", dest="class_name", default="", metavar="NAME", help="what it is")
    parser.add_argument(
        "--stamp", metavar="SECONDS", help="of the image that was seen [the next image]"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_tracker_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Set the target and say what its first mask is like."""
    clicks = [_click(text) for text in args.click]
    clicks_off = [_click(text) for text in args.click_off]
    box = _numbers("--box", args.box, 4) if args.box else None
    mask = read_mask(args.mask) if args.mask else None
    stamp_ns = read_stamp(args.stamp) if args.stamp else 0
    if not clicks and not clicks_off and box is None and mask is None:
        raise PromptArgumentError("nothing points the target out: give --click, --box or --mask")
    with connected(args) as tracker:
        answer = tracker.set_target(
            args.name, clicks=clicks, clicks_off=clicks_off, box=box, mask=mask,
            class_name=args.class_name, stamp_ns=stamp_ns,
        )  # fmt: skip
    stamp = f"{answer.stamp.sec}.{answer.stamp.nanosec:09d}"
    if args.json:
        known = {"name": args.name, "label_value": answer.label_value, "area": answer.area}
        print(json.dumps({**known, "iou": round(answer.iou, 4), "stamp": stamp}))
    else:
        print(
            f"{args.name}: label {answer.label_value}, first mask {answer.area} px, "
            f"IoU {answer.iou:.2f}, on the image of {stamp}"
        )
        if not answer.area:
            print("the mask is empty: correct it with another --click")
    return 0


def _click(text: str) -> tuple[float, float]:
    x, y = _numbers("--click", text, 2)
    return x, y


def _numbers(option: str, text: str, count: int) -> list[float]:
    example = {2: "320,256", 4: "100,80,220,200"}[count]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise PromptArgumentError(f"{option} must be {count} numbers as in {example}, not '{text}'")
    return numbers


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask, bool (H, W): true where an image, palette ones included, is not black or 0."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise PromptArgumentError(f"--mask: there is no file {path}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise PromptArgumentError(f"--mask: {path} is no readable image; write a PNG") from error
    if pixels.ndim == 3:
        pixels = pixels[:, :, :3].max(axis=2)
    mask: NDArray[np.bool_] = pixels.astype(bool)
    if not mask.any():
        raise PromptArgumentError(f"--mask: {path} is all black; the target's pixels must not be")
    return mask


def read_stamp(text: str) -> int:
    """Read seconds as nanoseconds, without the rounding of a float."""
    try:
        stamp = int(Decimal(text) * 10**9)
    except InvalidOperation:
        raise PromptArgumentError(
            f"--stamp must be seconds as in 1700000000.123456789, not '{text}'"
        ) from None
    if stamp <= 0:
        raise PromptArgumentError(f"--stamp must be after 0, not '{text}'")
    return stamp
