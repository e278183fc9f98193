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
    enlarged,
)
from sam2s_model.export.attention import HIDDEN
from sam2s_model.export.folding import by_rows, linear
from sam2s_model.layers import Mlp
from sam2s_model.model import NO_OBJECT_LOGIT, Sam2s
from sam2s_model.prompt import ABSENT

MASKS = 4  # the single mask and the ambiguous three


class HeadAttend(nn.Module):
    """Attention among tokens; its queries are scaled beforehand."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        inner = attention.q_proj.out_features
        scale = (inner // self.heads) ** -0.5
        self.q = linear(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.k, self.v, self.out = attention.k_proj, attention.v_proj, attention.out_proj

    def forward(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        """Q, k and v [N, T, C], hidden [N, 1, 1, T] -> [N, T, C]."""
        q, k, v = (
            split(by_rows(layer, x), self.heads)
            for layer, x in ((self.q, q), (self.k, k), (self.v, v))
        )
        scores = q @ k.transpose(-1, -2) + hidden
        out = (scores.softmax(-1) @ v).transpose(1, 2)
        return by_rows(self.out, out.flatten(2))


class ReadImage(nn.Module):
    """Attention of tokens to the image, whose keys and values are never made.

    There are few tokens and many cells. So each head's queries are taken through its projection
    of the keys instead, and its projection of the values follows the average.
    """

    key: Tensor  # [heads, d, C]
    value: Tensor  # [heads, C, d]

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // self.heads) ** -0.5
        self.q = linear(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        # The keys' bias moves all scores of a query alike; the values' passes through the average.
        self.register_buffer("key", by_heads(attention.k_proj.weight, self.heads))
        value = by_heads(attention.v_proj.weight, self.heads).transpose(1, 2)
        self.register_buffer("value", value.contiguous())
        out = attention.out_proj
        self.out = linear(out.weight, out.weight @ attention.v_proj.bias + out.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Q [N, T, C], k and v [N, HW, C] -> [N, T, C]."""
        queries = split(by_rows(self.q, q), self.heads) @ self.key  # [N, heads, T, C]
        scores = queries.flatten(1, 2) @ k.transpose(1, 2)
        averages = torch.unflatten(scores.softmax(-1) @ v, 1, (self.heads, -1))
        out = (averages @ self.value).transpose(1, 2)
        return by_rows(self.out, out.flatten(2))


class ReadTokens(nn.Module):
    """Attention of the image to tokens: theirs is all the work that depends on a head."""

    query: Tensor  # [heads, d, C]
    query_bias: Tensor  # [heads, d, 1]
    out: Tensor  # [heads, d, C]
    bias: Tensor  # [C]

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // self.heads) ** -0.5
        self.k, self.v = attention.k_proj, attention.v_proj
        query, out = attention.q_proj, attention.out_proj
        self.register_buffer("query", by_heads(query.weight * scale, self.heads))
        bias = (query.bias * scale).detach().view(self.heads, -1, 1)
        self.register_buffer("query_bias", bias.clone())
        self.register_buffer("out", by_heads(out.weight.T, self.heads))
        self.register_buffer("bias", out.bias.detach().clone())

    def forward(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        """Q [N, HW, C], k and v [N, T, C], hidden [N, 1, 1, T] -> [N, HW, C]."""
        keys, values = (
            split(by_rows(layer, x), self.heads) for layer, x in ((self.k, k), (self.v, v))
        )
        # What a cell's score has besides the cell: [N, heads, 1, T]
        offset = (keys @ self.query_bias).transpose(2, 3) + hidden
        scores = q @ (keys @ self.query).flatten(1, 2).transpose(1, 2) + offset.flatten(1)[:, None]
        weights = torch.unflatten(scores, 2, (self.heads, -1)).softmax(-1).flatten(2)
        return weights @ (values @ self.out).flatten(1, 2) + self.bias


class Stacked(nn.Module):
    """MLPs of the same shape side by side, each for its own rows: [M, N, C] -> [M, N, C']."""

    def __init__(self, mlps: list[Mlp]) -> None:
        super().__init__()
        layers = [[cast(nn.Linear, layer) for layer in mlp.layers] for mlp in mlps]
        self.depth = len(layers[0])
        for number, same in enumerate(zip(*layers, strict=True)):
            weight = torch.stack([layer.weight.detach().T for layer in same])
            bias = torch.stack([layer.bias.detach()[None] for layer in same])
            self.register_buffer(f"weight_{number}", weight)
            self.register_buffer(f"bias_{number}", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in turn, with ReLU between them."""
        for number in range(self.depth):
            x = F.relu(x) if number else x
            x = x @ self.get_buffer(f"weight_{number}") + self.get_buffer(f"bias_{number}")
        return x


def split(x: Tensor, heads: int) -> Tensor:
    """[N, T, C] -> [N, heads, T, d]."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def by_heads(weight: Tensor, heads: int) -> Tensor:
    """A projection's weight [C', C] as [heads, d, C]."""
    return torch.unflatten(weight.detach(), 0, (heads, -1)).clone()


class Exchange(nn.Module):
    """TwoWayBlock."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first, self.mlp = block.first, block.mlp
        self.self_attn = HeadAttend(block.self_attn)
        self.to_image = ReadImage(block.cross_attn_token_to_image)
        self.to_tokens = ReadTokens(block.cross_attn_image_to_token)
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
        self.last = ReadImage(two_way.final_attn_token_to_image)
        self.last_norm = two_way.norm_final_attn
        self.decoder = decoder
        self.hyper = Stacked([cast(Mlp, mlp) for mlp in decoder.output_hypernetworks_mlps])
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
        hyper = self.hyper(drawn.transpose(0, 1)).transpose(0, 1)
        best = rated[:, 1:].argmax(1, keepdim=True) + 1
        pick = (self.numbers == best).to(rated)[:, None]  # [N, 1, 4]
        pair = torch.cat((hyper[:, :1], pick @ hyper), dim=1) @ fine.flatten(2)
        side = fine.shape[-1]
        if decoder.enlarge > 1:
            pair = enlarged(pair.view(-1, 2, side, side), decoder.enlarge).flatten(2)
            side = decoder.enlarge * side
        single = pair[:, 0]
        inner = (single > STABILITY_DELTA).to(single).sum(1)
        outer = (single > -STABILITY_DELTA).to(single).sum(1)
        stable = (outer == 0) | (inner / outer.clamp_min(1.0) >= STABILITY_THRESHOLD)
        other = ambiguous | ~stable
        logits = torch.where(other[:, None], pair[:, 1], single)
        iou = torch.where(other, (pick @ rated[:, :, None])[:, 0, 0], rated[:, 0])
        token = torch.where(ambiguous[:, None], (pick @ drawn)[:, 0], drawn[:, 0])

        present = object_score > 0
        logits = torch.where(present[:, None], logits, NO_OBJECT_LOGIT)
        pointer = torch.where(present[:, None], self.pointer(token), self.no_pointer)
        return logits.reshape(-1, 1, side, side), iou, object_score, pointer

    def _upscale(self, flat: Tensor, fine_4: Tensor, fine_8: Tensor) -> Tensor:
        """[N, HW, C] -> [N, C/8, 4H, 4W]."""
        upscale_8, norm, _, upscale_4, _ = self.decoder.output_upscaling
        x = flat.transpose(1, 2).reshape(len(flat), -1, self.side, self.side)
        x = F.gelu(norm(upscale_8(x) + fine_8))
        return F.gelu(upscale_4(x) + fine_4)
