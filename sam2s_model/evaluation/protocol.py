"""How a tracker is prompted and asked, after SAM 2's evaluation protocol.

A click goes to the pixel that lies deepest inside the region that is wrong: at first the whole
mask, afterwards what is missing or what is too much, whichever is deeper. Pixels outside the image
count as outside the region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError
from sam2s_model.metrics import Mask
from sam2s_model.prompt import Prompt

PromptKind = Literal["click1", "click3", "box", "mask"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
CLICKS = {"click1": 1, "click3": 3, "box": 0, "mask": 0}


class ProtocolError(Sam2sError):
    """A prompt that cannot be made from an annotation."""


class TargetResult(Protocol):
    """What a tracker says of one target on one frame."""

    @property
    def mask(self) -> Mask:
        """The target's pixels, bool (H, W) at the frame's size; empty where it is not seen."""

    @property
    def presence(self) -> float:
        """Probability that the target is in view."""

    @property
    def label(self) -> str:
        """The target's class, or `unknown`."""

    @property
    def label_scores(self) -> Mapping[str, float]:
        """Probability of each class; empty if the tracker names no classes."""


class Tracker(Protocol):
    """The part of `StreamTracker` that an evaluation needs."""

    def add_target(self, name: str, prompt: Prompt) -> Any:
        """Take up a target, or correct a known one, on the next step."""

    def step(self, frame: NDArray[np.uint8]) -> Mapping[str, TargetResult]:
        """Track all targets on a frame, uint8 (H, W, 3) RGB."""

    def reset(self) -> Any:
        """Forget all targets."""

    def state_dict(self) -> dict[str, Any]:
        """Take a snapshot of all targets."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go back to a snapshot."""


class Click(NamedTuple):
    """A click at a pixel; positive clicks lie on the target, negative ones do not."""

    x: int
    y: int
    positive: bool


def clicks_prompt(clicks: Sequence[Click]) -> Prompt:
    """Put clicks into one prompt."""
    return Prompt(
        points=[[click.x, click.y] for click in clicks],
        labels=[int(click.positive) for click in clicks],
    )


def next_click(truth: Mask, prediction: Mask | None = None) -> Click | None:
    """Place the next click on a mask (H, W); None if the prediction is right in every pixel.

    Where a missing and a superfluous region are equally deep the click is negative, and of equally
    deep pixels the first in reading order is taken, both as in SAM 2.
    """
    drawn = np.zeros_like(truth) if prediction is None else prediction
    missing, missing_depth = _deepest(truth & ~drawn)
    extra, extra_depth = _deepest(drawn & ~truth)
    if not missing_depth and not extra_depth:
        return None
    if missing_depth > extra_depth:
        return Click(*missing, positive=True)
    return Click(*extra, positive=False)


def first_prompt(kind: PromptKind, truth: Mask) -> tuple[Prompt, list[Click]]:
    """Make the prompt that a target begins with, from its true mask (H, W), and its clicks."""
    if not truth.any():
        raise ProtocolError("a target cannot be prompted where it is not visible")
    if kind == "mask":
        return Prompt(mask=truth), []
    if kind == "box":
        return Prompt(box=mask_box(truth)), []
    click = next_click(truth)
    assert click is not None
    return clicks_prompt([click]), [click]


def mask_box(mask: Mask) -> list[int]:
    """Box [x0, y0, x1, y1] around a mask's pixels; x1, y1 are the far edges of the last pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _deepest(region: Mask) -> tuple[tuple[int, int], float]:
    """Find a region's pixel (x, y) farthest from its border, and the distance (0: no region)."""
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return (int(x), int(y)), float(depth[y, x])
