"""Prompts: what a caller gives for a target, checked at the door, and how the model embeds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sam2s_model.config import ModelConfig
from sam2s_model.errors import Sam2sError
from sam2s_model.layers import LayerNorm2d

# Labels of point tokens. The first five are SAM 2's.
NEGATIVE, POSITIVE, BOX_FIRST, BOX_LAST = 0, 1, 2, 3
NOT_A_POINT = -1  # a token that says: no more points
ABSENT = -2  # padding, which no other token sees

MOST_TURNS = 3  # in which a target's clicks are drawn, as many as in training; the last draws all


class PromptError(Sam2sError):
    """A prompt that cannot be used."""


class EmptyPromptError(PromptError):
    """A prompt without points, box and mask."""


class PromptShapeError(PromptError):
    """Points, labels, a box or a mask of the wrong shape or type."""


class PromptValueError(PromptError):
    """Coordinates that are not finite numbers, or labels other than 0 and 1."""


class NoPositivePointError(PromptError):
    """Clicks that only say what the target is not."""


class EmptyBoxError(PromptError):
    """A box without area."""


class EmptyMaskError(PromptError):
    """A mask without a single pixel."""


class PromptOutsideImageError(PromptError):
    """A point or box that does not lie in the image, or a mask of another size."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What marks a target on one frame: points with labels and/or a box, or a mask.

    Coordinates are pixels of the source image, x to the right and y down, the upper left corner
    of the image at (0, 0).

    Args:
        points: [[x, y], …].
        labels: 1 for a point on the target, 0 for one that is not; one label per point.
        box: [x0, y0, x1, y1]. May be combined with points.
        mask: bool array HxW of the source image's size. Stands alone.
    """

    points: ArrayLike | None = None
    labels: Sequence[int] | ArrayLike | None = None
    box: ArrayLike | None = None
    mask: ArrayLike | None = None

    def __post_init__(self) -> None:
        points, labels = _checked_points(self.points, self.labels)
        box = _checked_box(self.box)
        mask = _checked_mask(self.mask)
        if points is None and box is None and mask is None:
            raise EmptyPromptError(
                "the prompt is empty: give points with labels, a box [x0, y0, x1, y1] or a mask"
            )
        if mask is not None and (points is not None or box is not None):
            raise PromptShapeError(
                "a mask stands alone: leave points and box out, or give them as a correction on "
                "the next frame"
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "mask", mask)

    def check(self, width: int, height: int, first: bool) -> None:
        """Refuse what does not fit a frame of this size, or cannot begin a target."""
        if self.mask is not None:
            shape = np.shape(self.mask)
            if shape != (height, width):
                raise PromptOutsideImageError(
                    f"the mask is {shape[1]}x{shape[0]} but the image is {width}x{height}: give "
                    "the mask at the image's own size"
                )
            return
        if first and self.box is None and not np.any(np.asarray(self.labels) == POSITIVE):
            raise NoPositivePointError(
                "a new target needs at least one point on it (label 1), a box or a mask; points "
                "with label 0 alone can only correct a known target"
            )
        for x, y in [*_pairs(self.points), *_pairs(self.box)]:
            if not (0 <= x <= width and 0 <= y <= height):
                raise PromptOutsideImageError(
                    f"the point ({x:g}, {y:g}) lies outside the image: x must be in 0..{width} "
                    f"and y in 0..{height}, in pixels of the source image"
                )

    def tokens(self, width: int, height: int, size: int) -> tuple[NDArray[np.float32], list[int]]:
        """Point tokens, the box's corners first: [P, 2] in network input pixels, and P labels."""
        pairs = [*_pairs(self.box), *_pairs(self.points)]
        labels = [BOX_FIRST, BOX_LAST] if self.box is not None else []
        if self.labels is not None:
            labels += [int(label) for label in np.asarray(self.labels)]
        scaled = np.asarray(pairs, np.float32).reshape(-1, 2)
        return scaled / np.asarray([width, height], np.float32) * np.float32(size), labels

    def in_turn(self) -> list[Prompt]:
        """Give the prompts of drawing click by click: with the first, the first two, and all.

        A box with clicks, a mask, and clicks that begin beside the target stay one prompt.
        """
        if self.points is None or self.labels is None or self.box is not None:
            return [self]
        points, labels = np.asarray(self.points), np.asarray(self.labels)
        if labels[0] != POSITIVE:
            return [self]
        few = range(1, min(len(points), MOST_TURNS))
        return [*(Prompt(points=points[:n], labels=labels[:n]) for n in few), self]


def _pairs(values: ArrayLike | None) -> list[tuple[float, float]]:
    if values is None:
        return []
    return [(float(x), float(y)) for x, y in np.asarray(values).reshape(-1, 2)]


def _numbers(values: ArrayLike) -> NDArray[np.float32]:
    """Round to the precision that the model sees; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float64).astype(np.float32)


def _checked_points(
    points: ArrayLike | None, labels: ArrayLike | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    if points is None and labels is None:
        return None, None
    if points is None or labels is None:
        raise PromptShapeError(
            "points and labels come together: one label per point, 1 on the target, 0 beside it"
        )
    try:
        xy = _numbers(points)
        kind = np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise PromptShapeError(f"points must be numbers [[x, y], …], not {points!r}") from error
    if xy.size == 0 and kind.size == 0:
        return None, None
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise PromptShapeError(f"points must be [[x, y], …], not an array of shape {xy.shape}")
    if kind.shape != (len(xy),):
        raise PromptShapeError(
            f"{len(xy)} points need {len(xy)} labels in one list, not labels of shape {kind.shape}"
        )
    if not np.isfinite(xy).all():
        raise PromptValueError("the points hold NaN or infinite coordinates; give finite pixels")
    if not np.isin(kind, (NEGATIVE, POSITIVE)).all():
        raise PromptValueError(
            f"labels must be 1 (on the target) or 0 (not on it), not {kind.tolist()}"
        )
    return xy, kind.astype(np.int64)


def _checked_box(box: ArrayLike | None) -> NDArray[np.float32] | None:
    if box is None:
        return None
    try:
        corners = _numbers(box)
    except (TypeError, ValueError) as error:
        raise PromptShapeError(f"a box must be [x0, y0, x1, y1], not {box!r}") from error
    if corners.shape != (4,):
        raise PromptShapeError(f"a box must be [x0, y0, x1, y1], not of shape {corners.shape}")
    if not np.isfinite(corners).all():
        raise PromptValueError("the box holds NaN or infinite coordinates; give finite pixels")
    x0, y0, x1, y1 = corners
    if x1 <= x0 or y1 <= y0:
        raise EmptyBoxError(
            f"the box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] is empty: x1 must exceed x0 and y1 exceed y0"
        )
    return corners


def _checked_mask(mask: ArrayLike | None) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise PromptShapeError(
            f"a mask must be a bool array HxW, not {array.dtype} of shape {array.shape}"
        )
    filled = array.astype(np.bool_)
    if not filled.any():
        raise EmptyMaskError("the mask is empty: at least one pixel must belong to the target")
    return filled


class RandomPosition(nn.Module):
    """Random Fourier features of image positions; the matrix comes with the checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """Encode positions in 0..1: [..., 2] -> [..., C]."""
        angle = (2 * xy - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def grid(self, size: int) -> Tensor:
        """Encode the cell centres of a square map: [1, C, size, size]."""
        matrix = self.positional_encoding_gaussian_matrix
        centre = (torch.arange(size, device=matrix.device, dtype=matrix.dtype) + 0.5) / size
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        encoded: Tensor = self(torch.stack((x, y), dim=-1))
        return encoded.permute(2, 0, 1)[None]


def drawn_before(logits: Tensor, size: int) -> Tensor:
    """Turn mask logits [N, 1, s, s] into the mask prompts [N, 1, size, size] of a correction."""
    return F.adaptive_avg_pool2d(logits.clamp(-32.0, 32.0), size)


class PromptEncoder(nn.Module):
    """Embeds point tokens and mask prompts for the mask decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.image_size = config.image_size
        self.pe_layer = RandomPosition(width)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, kernel_size=2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, width, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, width)

    def points(self, xy: Tensor, labels: Tensor) -> Tensor:
        """Embed point tokens: xy [N, P, 2] in input pixels, labels [N, P] -> [N, P, C]."""
        where = self.pe_layer((xy.float() + 0.5) / self.image_size)
        kinds = [self.not_a_point_embed, *self.point_embeddings]
        table = torch.cat([cast(Tensor, kind.weight) for kind in kinds])
        kind = F.embedding((labels + 1).clamp_min(0), table)
        embedded: Tensor = where * (labels >= 0)[..., None] + kind
        return embedded

    def masks(self, masks: Tensor, given: Tensor) -> Tensor:
        """Embed mask prompts, or their absence, for every cell of the feature map.

        Args:
            masks: [N, 1, S/4, S/4] logits; anything where none is given.
            given: [N] bool, whether the target has a mask prompt.

        Returns:
            [N, C, S/16, S/16].
        """
        none = self.no_mask_embed.weight[:, :, None, None]
        return torch.where(given[:, None, None, None], self.mask_downscaling(masks), none)

    def no_masks(self, count: int, size: int) -> Tensor:
        """The embedding of no mask prompt for every target: [N, C, size, size]."""
        return self.no_mask_embed.weight[:, :, None, None].expand(count, -1, size, size)
