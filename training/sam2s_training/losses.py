"""The losses of SAM 2 and of SAM2S, as small pure functions.

Masks are [..., H, W]: logits of a prediction and a target in 0..1, which may be soft. Each function
gives one value per mask and leaves averaging to whoever calls it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2s_model.errors import Sam2sError

AMBIGUITY = ("none", "entropy", "gaussian")
WEIGHTED = ("focal", "dice", "iou", "presence", "semantic", "grouping", "naming", "unnamed")
AmbiguityName = Literal["none", "entropy", "gaussian"]


class LossSettingsError(Sam2sError):
    """A loss setting that cannot work."""


@dataclass(frozen=True)
class LossSettings:
    """What the loss is made of. The first four weights are SAM 2's."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0  # L1 between predicted and true IoU
    presence: float = 1.0  # whether the target is in the frame
    absent: float = 1.0  # how much more than others a frame counts for that where it is not
    semantic: float = 0.5  # TSL: the class of instruments; 0 leaves the CLS token out
    # Of features alone: alike within a target and over its frames, unlike elsewhere. Random
    # weights learn prompts much sooner with it; trained ones do not need it.
    grouping: float = 0.0
    # Of features alone: an instrument's class can be read where the truth says that it is, and
    # memory only has to find the place.
    naming: float = 0.0
    # Of what is no instrument, where the two above look: no name shall be likelier than another.
    # SAM2S leaves it out, and so tissue gets names, too. Instruments must have their classes.
    unnamed: float = 0.0
    semantic_iou: float = 0.5  # TSL counts on frames whose predicted IoU reaches this ...
    semantic_presence: float = 0.5  # ... and whose predicted presence reaches this
    ambiguity: AmbiguityName = "none"  # ARL: how uncertain borders are treated
    border_radius: int = 3  # ARL entropy: half width of the border region, in loss pixels
    border_sigma: float = 2.0  # ARL gaussian: width of the soft border, in loss pixels
    # Masks are compared at so many quarters of the pictures' side, 1, 2 or 4, but not coarser than
    # they are drawn.
    scale: int = 4

    def __post_init__(self) -> None:
        if self.ambiguity not in AMBIGUITY:
            raise LossSettingsError(
                f"ambiguity is '{self.ambiguity}'; it must be one of {', '.join(AMBIGUITY)}"
            )
        if self.scale not in (1, 2, 4):
            raise LossSettingsError(f"the loss's scale is {self.scale}; it must be 1, 2 or 4")
        for name in WEIGHTED:
            if getattr(self, name) < 0:
                raise LossSettingsError(f"the weight {name} is {getattr(self, name)}, below 0")
        if self.absent <= 0:
            raise LossSettingsError(f"absent is {self.absent}; frames must count more than 0")
        if self.border_radius < 1 or self.border_sigma <= 0:
            raise LossSettingsError(
                f"border_radius {self.border_radius} must be at least 1 and border_sigma "
                f"{self.border_sigma} above 0"
            )


def focal_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Cross-entropy that easy pixels hardly take part in, averaged over pixels: [...].

    `alpha` weighs the target's inside against its outside, 1 - alpha.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    hard = (logits.sigmoid() - target).abs() ** gamma
    side = alpha * target + (1 - alpha) * (1 - target)
    loss = side * hard * entropy
    if weight is not None:
        loss = loss * weight
    return loss.mean((-2, -1))


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """One minus the overlap of prediction and target in relation to their sizes: [...]."""
    drawn = logits.sigmoid()
    if weight is not None:
        drawn, target = drawn * weight, target * weight
        # The product holds the weight twice; what lies in both must count like what lies in one.
        both = (drawn * target / weight.clamp_min(1e-6)).sum((-2, -1))
    else:
        both = (drawn * target).sum((-2, -1))
    sizes = drawn.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * both + 1) / (sizes + 1)


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of the drawn mask with the target; 1 where both are empty: [...], without gradient."""
    drawn, wanted = logits.detach() > 0, target > 0.5
    both = (drawn & wanted).sum((-2, -1))
    either = (drawn | wanted).sum((-2, -1))
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))


def presence_loss(score: Tensor, present: Tensor, absent: float = 1.0) -> Tensor:
    """Cross-entropy of the object score, a logit, with presence: [...].

    Where a target is absent it counts `absent` times. Above 1, a target has to be the surer to be
    called present: 0.5 then stands for odds of `absent` to 1.
    """
    loss = F.binary_cross_entropy_with_logits(score, present.to(score), reduction="none")
    return torch.where(present > 0, loss, absent * loss)


def grouping_loss(features: Tensor, masks: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of telling the targets of a picture apart by their features alone.

    Each target, and all the rest together, is stood for by the mean of its features; a place
    belongs to the mean that it is most alike to. Targets count the same, whatever their size.

    Args:
        features: [C, H, W].
        masks: [K, H, W] in 0..1, the share of each place that a target fills.
        temperature: of the cosines.

    Returns:
        Scalar.
    """
    places = F.normalize(features.flatten(1), dim=0)  # [C, HW]
    rest = 1 - masks.sum(0, keepdim=True).clamp(0, 1)
    shares = torch.cat((masks, rest)).flatten(1)
    shares = shares[shares.any(1)]
    shares = shares / shares.sum(1, keepdim=True)
    means = F.normalize(shares @ places.T, dim=1)  # [K + 1, C]
    entropy = -(means @ places / temperature).log_softmax(0)
    return (shares * entropy).sum(1).mean()


# --- ARL ----------------------------------------------------------------------------------


def border(mask: Tensor, radius: int) -> Tensor:
    """The region where dilation and erosion of a mask [N, H, W] differ: [N, H, W] float 0/1."""
    solid = (mask > 0.5).to(mask)[:, None]
    grown, shrunk = _grown(solid, radius), 1 - _grown(1 - solid, radius)
    return (grown - shrunk)[:, 0]


def _grown(x: Tensor, radius: int) -> Tensor:
    """The maximum over squares around each pixel, first along rows, then along columns."""
    side = 2 * radius + 1
    x = F.max_pool2d(x, (1, side), stride=1, padding=(0, radius))
    return F.max_pool2d(x, (side, 1), stride=1, padding=(radius, 0))


def entropy_weight(logits: Tensor, region: Tensor) -> Tensor:
    """ARL `entropy`: pixels of the border region count less the less certain they are.

    Args:
        logits: [N, K, H, W] predictions.
        region: [N, H, W] 0/1, from `border`.

    Returns:
        [N, K, H, W] in 0..1: 1 outside the region, 1 minus the entropy in bits inside. No gradient
        flows, or uncertainty itself would be learned.
    """
    logits = logits.detach().float()
    entropy = F.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")
    entropy = entropy / math.log(2)
    return 1 - region[:, None] * entropy.clamp(0, 1)


def soft_target(mask: Tensor, sigma: float) -> Tensor:
    """ARL `gaussian`: a mask [N, H, W] convolved with a Gaussian kernel of unit sum."""
    radius = max(1, math.ceil(3 * sigma))
    offset = torch.arange(-radius, radius + 1, dtype=mask.dtype, device=mask.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = F.pad(mask[:, None], (radius, radius, radius, radius), mode="replicate")
    x = F.conv2d(x, kernel[None, None, :, None])
    return F.conv2d(x, kernel[None, None, None, :])[:, 0].clamp(0, 1)


# --- TSL ----------------------------------------------------------------------------------


def semantic_loss(vectors: Tensor, text: Tensor, log_scale: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of classes over scaled cosines; 0 where there is no instrument label.

    Args:
        vectors: [N, D] class vectors of unit length.
        text: [K, D] embeddings of the instruments, of unit length.
        log_scale: scalar, ln(1 / temperature).
        classes: [N] long, -1 for what is no instrument.

    Returns:
        [N].
    """
    scores = log_scale.exp() * vectors.float() @ text.T
    return F.cross_entropy(scores, classes, ignore_index=-1, reduction="none")


def unnamed_loss(vectors: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """How far the classes' probabilities are from all being the same; 0 where they are.

    Args:
        vectors: [N, D] class vectors of unit length.
        text: [K, D] embeddings of the instruments, of unit length.
        log_scale: scalar, ln(1 / temperature).

    Returns:
        [N], the divergence in nats.
    """
    scores = log_scale.exp() * vectors.float() @ text.T
    return -scores.log_softmax(1).mean(1) - math.log(len(text))


def confident(iou: Tensor, object_score: Tensor, settings: LossSettings) -> Tensor:
    """Where TSL counts: frames that are tracked with confidence, [N] bool."""
    sure = iou.detach() >= settings.semantic_iou
    seen = object_score.detach().sigmoid() >= settings.semantic_presence
    return sure & seen
