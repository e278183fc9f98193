"""Decoding as a graph: the same function as Sam2s.decode, drawing two masks instead of four."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.decoder import (
    STABILITY_DELTA,
    STABILITY_THRESHOLD,
    Attention,
    TwoWayBlock,
)
from sam2s_model.export.attention import HIDDEN
from sam2s_model.export.folding import by_rows, linear
from sam2s_model.model import NO_OBJECT_LOGIT, Sam2s
from sam2s_model.prompt import ABSENT

MASKS = 4  # the single mask and the ambiguous three


class HeadAttend(nn.Module):
    """Attention of the decoder; its queries are scaled beforehand."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        inner = attention.q_proj.out_features
        scale = (inner // self.heads) ** -0.5
        self.q = linear(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.k, self.v, self.out = attention.k_proj, attention.v_proj, attention.out_proj

    def forward(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Q [N, Q, C], k and v [N, K, C], hidden [N, 1, 1, K] -> [N, Q, C]."""
        q, k, v = (
            self._split(by_rows(layer, x)) for layer, x in ((self.q, q), (self.k, k), (self.v, v))
        )
        scores = q @ k.transpose(-1, -2)
        if hidden is not None:
            scores = scores + hidden
        out = (scores.softmax(-1) @ v).transpose(1, 2)
        return by_rows(self.out, out.flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Exchange(nn.Module):
    """TwoWayBlock."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first, self.mlp = block.first, block.mlp
        self.self_attn = HeadAttend(block.self_attn)
        self.to_image = HeadAttend(block.cross_attn_token_to_image)
        self.to_tokens = HeadAttend(block.cross_attn_image_to_token)
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.norm4 = block.norm4

    def forward(
        self, tokens: Tensor, image: Tensor, token_pos: Tensor, image_pos: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens [N, T, C], image [N, HW, C], hidden [N, 1, 1, T] -> both, renewed."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, hidden)
        else:
            placed = tokens + token_pos
            tokens = tokens + self.self_attn(placed, placed, tokens, hidden)
        tokens = self.norm1(tokens)
        placed_image = image + image_pos
        tokens = self.norm2(tokens + self.to_image(tokens + token_pos, placed_image, image))
        inner, outer = self.mlp.layers
        tokens = self.norm3(tokens + by_rows(outer, F.relu(by_rows(inner, tokens))))
        update = self.to_tokens(placed_image, tokens + token_pos, tokens, hidden)
        return tokens, self.norm4(image + update)


class Decode(nn.Module):
    """Sam2s.decode; every target brings a mask prompt, which `mask_given` may hide.

    Which of the ambiguous three rates best is known before any mask is drawn, so only that one
    and the single mask are.
    """

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        decoder = model.sam_mask_decoder
        self.prompts = model.sam_prompt_encoder
        two_way = decoder.transformer
        self.blocks = nn.ModuleList(Exchange(cast(TwoWayBlock, b)) for b in two_way.layers)
        self.last = HeadAttend(two_way.final_attn_token_to_image)
        self.last_norm = two_way.norm_final_attn
        self.decoder = decoder
        self.pointer = model.obj_ptr_proj
        outputs = (decoder.obj_score_token, decoder.iou_token, decoder.mask_tokens)
        self.register_buffer("no_pointer", model.no_obj_ptr.detach().clone())
        self.register_buffer("outputs", torch.cat([token.weight for token in outputs]).detach())
        grid = model.sam_prompt_encoder.pe_layer.grid(model.config.feature_size)
        self.side = model.config.feature_size
        self.register_buffer("grid", grid.flatten(2).transpose(1, 2).clone())
        self.register_buffer("numbers", torch.arange(MASKS)[None])

    no_pointer: Tensor  # [1, C]
    outputs: Tensor  # [6, C] output tokens
    grid: Tensor  # [1, HW, C] position encoding of the cells
    numbers: Tensor  # [1, 4]

    def forward(
        self,
        fine_4: Tensor,
        fine_8: Tensor,
        conditioned: Tensor,
        xy: Tensor,
        labels: Tensor,
        masks: Tensor,
        mask_given: Tensor,
        ambiguous: Tensor,
    ) -> tuple[Tensor, ...]:
        """See PromptBatch for the prompts -> the parts of Decoded."""
        decoder = self.decoder
        outputs = self.outputs.expand(len(conditioned), -1, -1)
        tokens = torch.cat((outputs, self.prompts.points(xy, labels)), dim=1)
        seen = torch.cat((torch.ones_like(outputs[:, :, 0]), (labels != ABSENT).to(tokens)), dim=1)
        hidden = ((1.0 - seen) * HIDDEN)[:, None, None, :]
        image = conditioned + self.prompts.masks(masks, mask_given)
        flat = image.flatten(2).transpose(1, 2)
        token_pos = tokens
        for block in self.blocks:
            tokens, flat = block(tokens, flat, token_pos, self.grid, hidden)
        update = self.last(tokens + token_pos, flat + self.grid, flat)
        tokens = self.last_norm(tokens + update)
        fine = self._upscale(flat, fine_4, fine_8)

        object_score = decoder.pred_obj_score_head(tokens[:, 0]).squeeze(-1)
        rated = decoder.iou_prediction_head(tokens[:, 1]).sigmoid()
        drawn = tokens[:, 2:6]
        hyper = torch.stack(
            [mlp(drawn[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        best = rated[:, 1:].argmax(1, keepdim=True) + 1
        pick = (self.numbers == best).to(rated)[:, None]  # [N, 1, 4]
        pair = torch.cat((hyper[:, :1], pick @ hyper), dim=1) @ fine.flatten(2)
        single = pair[:, 0]
        inner = (single > STABILITY_DELTA).to(single).sum(1)
        outer = (single > -STABILITY_DELTA).to(single).sum(1)
        stable = (outer == 0) | (inner / outer.clamp_min(1.0) >= STABILITY_THRESHOLD)
        other = ambiguous | ~stable
        logits = torch.where(other[:, None], pair[:, 1], single)
        iou = torch.where(other, (pick @ rated[:, :, None])[:, 0, 0], rated[:, 0])
        token = torch.where(ambiguous[:, None], (pick @ drawn)[:, 0], drawn[:, 0])

        present = object_score > 0
        side = fine.shape[-1]
        logits = torch.where(present[:, None], logits, NO_OBJECT_LOGIT)
        pointer = torch.where(present[:, None], self.pointer(token), self.no_pointer)
        return logits.reshape(-1, 1, side, side), iou, object_score, pointer

    def _upscale(self, flat: Tensor, fine_4: Tensor, fine_8: Tensor) -> Tensor:
        """[N, HW, C] -> [N, C/8, 4H, 4W]."""
        upscale_8, norm, _, upscale_4, _ = self.decoder.output_upscaling
        x = flat.transpose(1, 2).reshape(len(flat), -1, self.side, self.side)
        x = F.gelu(norm(upscale_8(x) + fine_8))
        return F.gelu(upscale_4(x) + fine_4)
