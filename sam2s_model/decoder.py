"""The mask decoder: prompt and output tokens exchange with the image, then draw masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.config import ModelConfig
from sam2s_model.layers import LayerNorm2d, Mlp

HEADS = 8
STABILITY_DELTA = 0.05  # logit margin by which a single mask's border is moved out and in
STABILITY_THRESHOLD = 0.98  # IoU of the two below which another mask is taken instead


class Attention(nn.Module):
    """Multi-head attention in a width that may be smaller than the tokens'."""

    def __init__(self, width: int, inner: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """Q [N, Q, C], k and v [N, K, C] -> [N, Q, C]; `seen` [N, 1, 1, K] hides padded keys."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        result: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return result


class TwoWayBlock(nn.Module):
    """Tokens attend to each other and to the image; then the image attends to the tokens."""

    def __init__(self, width: int, mlp: int, first: bool) -> None:
        super().__init__()
        self.first = first  # the first block's tokens are their own positions
        self.self_attn = Attention(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp, width, depth=2)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, width // 2)

    def forward(
        self,
        tokens: Tensor,
        image: Tensor,
        token_pos: Tensor,
        image_pos: Tensor,
        seen: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens [N, T, C], image [N, HW, C] -> both, renewed."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, seen)
        else:
            placed = tokens + token_pos
            tokens = tokens + self.self_attn(placed, placed, tokens, seen)
        tokens = self.norm1(tokens)
        placed_image = image + image_pos
        update = self.cross_attn_token_to_image(tokens + token_pos, placed_image, image)
        tokens = self.norm2(tokens + update)
        tokens = self.norm3(tokens + self.mlp(tokens))
        update = self.cross_attn_image_to_token(placed_image, tokens + token_pos, tokens, seen)
        return tokens, self.norm4(image + update)


class TwoWayTransformer(nn.Module):
    """Two blocks, then the tokens read the image once more."""

    def __init__(self, width: int, mlp: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, mlp, first=i == 0) for i in range(2))
        self.final_attn_token_to_image = Attention(width, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, image: Tensor, image_pos: Tensor, tokens: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Image [N, C, H, W], tokens [N, T, C] -> tokens [N, T, C], image [N, HW, C]."""
        flat, flat_pos = (x.flatten(2).transpose(1, 2) for x in (image, image_pos))
        token_pos = tokens
        for layer in self.layers:
            tokens, flat = layer(tokens, flat, token_pos, flat_pos, seen)
        update = self.final_attn_token_to_image(tokens + token_pos, flat + flat_pos, flat)
        return self.norm_final_attn(tokens + update), flat


class Masks(NamedTuple):
    """What the decoder makes of N targets: all four masks, before one is chosen."""

    # [N, 4, s, s], s = config.mask_size: the single mask, then the ambiguous three
    logits: Tensor
    iou: Tensor  # [N, 4] predicted IoU of each, 0..1
    tokens: Tensor  # [N, 4, C] output token of each
    object_score: Tensor  # [N] logit that the target is in the frame


def enlarged(logits: Tensor, times: int) -> Tensor:
    """Enlarge logits [N, M, H, W] before one of them is chosen: [N, M, times H, times W]."""
    if times == 1:
        return logits
    return F.interpolate(logits, scale_factor=float(times), mode="bilinear", align_corners=False)


class MaskDecoder(nn.Module):
    """Draws masks from conditioned features and embedded prompts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.enlarge = 4 // config.mask_stride
        self.transformer = TwoWayTransformer(width, config.decoder_mlp)
        self.obj_score_token = nn.Embedding(1, width)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(4, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(width, width // 8, kernel_size=1)
        self.conv_s1 = nn.Conv2d(width, width // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(width, width, width // 8, depth=3) for _ in range(4)
        )
        self.iou_prediction_head = Mlp(width, width, 4, depth=3)
        self.pred_obj_score_head = Mlp(width, width, 1, depth=3)

    def forward(
        self,
        image: Tensor,
        image_pos: Tensor,
        fine_4: Tensor,
        fine_8: Tensor,
        points: Tensor,
        dense: Tensor,
        seen: Tensor | None,
    ) -> Masks:
        """Decode N targets in one pass.

        Args:
            image: [N, C, H, W] conditioned features, H = W = S/16.
            image_pos: [1, C, H, W] position encoding of the cells.
            fine_4: [1, C/8, 4H, 4W] fine features of the frame.
            fine_8: [1, C/4, 2H, 2W] likewise.
            points: [N, P, C] embedded point tokens.
            dense: [N, C, H, W] embedded mask prompts.
            seen: [N, P] bool, False for padded point tokens; None where there are none.
        """
        count, _, height, _ = image.shape
        outputs = torch.cat(
            (self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight)
        )
        tokens = torch.cat((outputs.expand(count, -1, -1), points), dim=1)
        if seen is not None:
            always = seen.new_ones(count, len(outputs))
            seen = torch.cat((always, seen), dim=1)[:, None, None, :]
        tokens, flat = self.transformer(image + dense, image_pos, tokens, seen)

        upscale_8, norm, activation, upscale_4, _ = self.output_upscaling
        x = flat.transpose(1, 2).unflatten(2, (height, -1))
        x = activation(norm(upscale_8(x) + fine_8))
        x = activation(upscale_4(x) + fine_4)
        drawn = tokens[:, 2:6]
        hyper = torch.stack(
            [mlp(drawn[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = (hyper @ x.flatten(2)).unflatten(2, x.shape[-2:])
        return Masks(
            logits=enlarged(logits.float(), self.enlarge),
            iou=self.iou_prediction_head(tokens[:, 1]).float().sigmoid(),
            tokens=drawn,
            object_score=self.pred_obj_score_head(tokens[:, 0]).float().squeeze(-1),
        )


def choose_mask(masks: Masks, ambiguous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pick one mask per target, as SAM 2 does at run time.

    An ambiguous target (at most one point) takes the best rated of the three masks. Any other
    takes the single mask, or the best rated of the three when the single one is unstable: when
    moving its border by a small logit margin changes it much.

    Args:
        masks: the decoder's output for N targets.
        ambiguous: [N] bool.

    Returns:
        logits [N, 1, h, w], predicted IoU [N], output token [N, C]. The token of a target that is
        not ambiguous is always the single mask's.
    """
    single = masks.logits[:, 0].flatten(1)
    inner = (single > STABILITY_DELTA).sum(1)
    outer = (single > -STABILITY_DELTA).sum(1)
    stable = (outer == 0) | (inner / outer.clamp_min(1) >= STABILITY_THRESHOLD)
    best = masks.iou[:, 1:].argmax(1) + 1
    chosen = torch.where(ambiguous | ~stable, best, torch.zeros_like(best))
    token = torch.where(ambiguous, best, torch.zeros_like(best))
    row = torch.arange(len(chosen), device=chosen.device)
    return masks.logits[row, chosen][:, None], masks.iou[row, chosen], masks.tokens[row, token]
