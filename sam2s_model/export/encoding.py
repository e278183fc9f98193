"""Image encoding as a graph: the same function as Sam2s.encode_image on one image.

Maps are kept as rows of tokens, so that every projection is one matrix product with its bias,
and all tables that follow from sizes are worked out when the graph is made.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.backbone import HieraBlock, PyramidLevel, WindowAttention, _window_order
from sam2s_model.export.folding import linear
from sam2s_model.model import Sam2s

CPU = torch.device("cpu")


class Rearranged(nn.Module):
    """Takes rows of a table by constant numbers; nothing where the order is already right."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.needed = not torch.equal(rows, torch.arange(len(rows)))

    def forward(self, x: Tensor) -> Tensor:
        """[R, C] -> [len(rows), C]."""
        return x.index_select(0, self.rows) if self.needed else x


class WindowAttend(nn.Module):
    """WindowAttention on the tokens [HW, C] of one map."""

    padding: Tensor  # [3, 1, C'] what a padded token becomes in queries, keys and values

    def __init__(self, attention: WindowAttention, side_map: int) -> None:
        super().__init__()
        self.heads, self.pool = attention.heads, attention.pool
        self.side = attention.window or side_map
        into, back = _window_order(side_map, side_map, self.side, self.pool, CPU)
        self.into, self.back = Rearranged(into), Rearranged(back)
        self.padded = len(into) > side_map**2
        weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
        scale = (len(biases[0]) // self.heads) ** -0.5  # maxima of scaled queries are scaled too
        self.projections = nn.ModuleList(
            linear(weight * factor, bias * factor)
            for weight, bias, factor in zip(weights, biases, (scale, 1.0, 1.0), strict=True)
        )
        self.register_buffer(
            "padding", torch.stack([cast(nn.Linear, p).bias for p in self.projections])[:, None]
        )
        self.proj = attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """[HW, C] -> [HW, C'], or [HW / 4, C'] with pooling."""
        if not self.padded:
            x = self.into(x)
        q, k, v = (self._windows(x, i) for i in range(3))
        side = self.side
        if self.pool:
            side //= 2
            q = halved(q, self.side).flatten(1, 2)
        q, k, v = (self._heads(t) for t in (q, k, v))
        out = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        if self.heads > 1:
            out = out.transpose(1, 2)
        width = self.proj.in_features
        projected: Tensor = self.proj(self.back(out.reshape(-1, width)))
        return projected

    def _windows(self, x: Tensor, which: int) -> Tensor:
        """Project, and cut into windows: [windows, side², C']."""
        x = self.projections[which](x)
        if self.padded:
            x = self.into(torch.cat((x, self.padding[which])))
        return x.view(-1, self.side**2, x.shape[-1])

    def _heads(self, x: Tensor) -> Tensor:
        """[windows, T, C'] -> [windows, heads, T, d]; with one head as it is."""
        if self.heads == 1:
            return x
        return x.view(len(x), x.shape[1], self.heads, -1).transpose(1, 2)


def halved(x: Tensor, side: int) -> Tensor:
    """Take the maximum of each 2x2 block of a square map: [B, side², C] -> [B, side/2, …, C]."""
    pairs = x.view(len(x), side, side // 2, 2, x.shape[-1])
    wide = torch.maximum(pairs[:, :, :, 0], pairs[:, :, :, 1])
    rows = wide.view(len(x), side // 2, 2, side // 2, x.shape[-1])
    return torch.maximum(rows[:, :, 0], rows[:, :, 1])


class Block(nn.Module):
    """HieraBlock on the tokens of one map."""

    def __init__(self, block: HieraBlock, side_map: int) -> None:
        super().__init__()
        self.side_map, self.pool = side_map, block.pool
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn = WindowAttend(block.attn, side_map)
        self.mlp = block.mlp
        self.proj = cast("nn.Linear | None", getattr(block, "proj", None))

    def forward(self, x: Tensor) -> Tensor:
        """[HW, C] -> [HW, C'], or [HW / 4, C'] with pooling."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
            if self.pool:
                x = halved(x[None], self.side_map).flatten(0, 2)
        x = x + self.attn(normed)
        renewed: Tensor = x + self.mlp(self.norm2(x))
        return renewed


class Lateral(nn.Module):
    """1x1 convolutions that follow one another, as one: [HW, C] -> [1, C', H, W]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, side: int) -> None:
        super().__init__()
        assert first.bias is not None
        assert second.bias is not None
        outer = second.weight.detach().flatten(1)
        self.side = side
        self.register_buffer("weight", outer @ first.weight.detach().flatten(1))
        self.register_buffer("bias", (outer @ first.bias + second.bias).detach()[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Multiply from the left: the channels then come first by themselves."""
        return torch.addmm(self.bias, self.weight, x.T).view(1, -1, self.side, self.side)


class EncodeImage(nn.Module):
    """Sam2s.encode_image."""

    place: Tensor  # [(S/4)², C]

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        trunk, decoder = model.image_encoder.trunk, model.sam_mask_decoder
        side = model.config.image_size // 4
        self.patches = trunk.patch_embed.proj
        self.register_buffer("place", trunk.position(side, side).detach().flatten(0, 2))
        sides = [side // 2**stage for stage in range(4)]
        self.stage_ends = trunk.stage_ends
        self.blocks = nn.ModuleList()
        for block in trunk.blocks:
            block = cast(HieraBlock, block)
            self.blocks.append(Block(block, side))
            side = side // 2 if block.pool else side
        level_32, level_16, level_8, level_4 = (
            cast(PyramidLevel, level).conv for level in model.image_encoder.neck.convs
        )
        self.level_4 = Lateral(level_4, decoder.conv_s0, sides[0])
        self.level_8 = Lateral(level_8, decoder.conv_s1, sides[1])
        self.level_16, self.level_32 = (
            linear(level.weight.flatten(1), level.bias) for level in (level_16, level_32)
        )
        coarsest = torch.arange(sides[3] ** 2).view(1, 1, sides[3], sides[3]).float()
        nearest = F.interpolate(coarsest, scale_factor=2.0, mode="nearest").long().flatten()
        self.enlarge = Rearranged(nearest)
        self.side = sides[2]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [1, 3, S, S], normalised -> the three parts of Features."""
        x = self.patches(image).flatten(2)[0].T + self.place
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.stage_ends:
                maps.append(x)
        map_4, map_8, map_16, map_32 = maps
        coarse = self.level_16(map_16) + self.enlarge(self.level_32(map_32))
        coarse = coarse.T.reshape(1, -1, self.side, self.side)
        return coarse, self.level_4(map_4), self.level_8(map_8)
