"""Image encoding as a graph: the same function as Sam2s.encode_image on one image.

Maps are kept as rows of tokens in the order that their windows want, so that projections are
matrix products and hardly anything is moved; all tables that follow from sizes are worked out when
the graph is made.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.backbone import HieraBlock, PyramidLevel, WindowAttention
from sam2s_model.export.folding import linear
from sam2s_model.model import Sam2s


class Rearranged(nn.Module):
    """Takes rows of a table by constant numbers; nothing where the order is already right."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.needed = not torch.equal(rows, torch.arange(len(rows)))

    def forward(self, x: Tensor) -> Tensor:
        """[..., R, C] -> [..., len(rows), C]."""
        return x.index_select(-2, self.rows) if self.needed else x


def places(order: Tensor) -> Tensor:
    """Where each token stands in an order that holds each of them once."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))


def window_order(side_map: int, window: int, pool: bool) -> Tensor:
    """The tokens of a map by windows, HW for a padded one.

    With `pool`, the four tokens that become one follow each other.
    """
    count = -(-side_map // window)
    tokens = torch.full((count * window, count * window), side_map**2)
    tokens[:side_map, :side_map] = torch.arange(side_map**2).view(side_map, side_map)
    cut = tokens.view(count, window, count, window).transpose(1, 2)
    if pool:
        half = window // 2
        cut = cut.reshape(count, count, half, 2, half, 2).transpose(3, 4)
    return cut.flatten()


def halved_order(order: Tensor, side_map: int) -> Tensor:
    """The tokens of the halved map that an order of `window_order` with `pool` leaves."""
    first = order[::4]
    half = side_map // 2
    token = first // side_map // 2 * half + first % side_map // 2
    return torch.where(first < side_map**2, token, half**2)


def quartered(x: Tensor) -> Tensor:
    """Take the maximum of each four tokens in a row: [..., T, C] -> [..., T/4, C]."""
    return torch.unflatten(x, -2, (-1, 4)).amax(-2)


class Heads(nn.Module):
    """A projection whose heads come first, so that nothing needs to be transposed."""

    weight: Tensor  # [heads, C, d]

    def __init__(self, weight: Tensor, heads: int) -> None:
        super().__init__()
        split = torch.unflatten(weight.detach(), 0, (heads, -1)).transpose(1, 2)
        self.register_buffer("weight", split.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """[T, C] -> [heads, T, d]."""
        if len(self.weight) == 1:  # weights of two dimensions are laid out once for all frames
            return (x @ self.weight[0])[None]
        return x @ self.weight


class WindowAttend(nn.Module):
    """WindowAttention on tokens in the order of the windows.

    What all keys have in common moves all scores of a query alike, and what all values have in
    common passes through an average as it is: the bias of the keys is left out, and that of the
    values goes into the last projection. A padded token, which projects to these biases, thus has
    keys and values of zero. The largest of queries may be found before their bias is added.
    """

    bias: Tensor  # [heads, 1, d] of the queries

    def __init__(
        self, attention: WindowAttention, windows: Tensor, order: Tensor, back: Tensor
    ) -> None:
        """Windows cut up a map whose tokens come in as `order` and go out as `back`."""
        super().__init__()
        self.heads, self.pool = attention.heads, attention.pool
        self.cells = len(windows) if not attention.window else attention.window**2
        self.padded = len(windows) > len(order)
        if self.padded:
            nothing = torch.tensor([len(order)])
            self.into = Rearranged(torch.cat((places(order), nothing))[windows])
            out = halved_order(windows, int(len(order) ** 0.5)) if self.pool else windows
            stand = torch.zeros(len(back) + 1, dtype=torch.long)
            stand[out] = torch.arange(len(out))
            self.back = Rearranged(stand[back])
        query, key, value = attention.qkv.weight.chunk(3)
        query_bias, _, value_bias = attention.qkv.bias.chunk(3)
        scale = (len(query_bias) // self.heads) ** -0.5  # maxima of scaled queries scale too
        self.query, self.key, self.value = (
            Heads(weight, self.heads) for weight in (query * scale, key, value)
        )
        bias = (query_bias * scale).detach().view(self.heads, 1, -1)
        self.register_buffer("bias", bias.clone())
        proj = attention.proj
        self.proj = linear(proj.weight, proj.weight @ value_bias + proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[T, C] -> [T, C'], or [T / 4, C'] with pooling."""
        q, k, v = (self._windows(part(x)) for part in (self.query, self.key, self.value))
        if self.pool:
            q = quartered(q)
        q = (q.view(self.heads, -1, q.shape[-1]) + self.bias).view(q.shape)
        out = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        out = out.view(self.heads, -1, out.shape[-1])
        rows = out.transpose(0, 1).flatten(1) if self.heads > 1 else out[0]
        projected: Tensor = self.proj(self.back(rows) if self.padded else rows)
        return projected

    def _windows(self, x: Tensor) -> Tensor:
        """Cut [heads, T, d] up: [heads · windows, side², d]."""
        if self.padded:
            x = self.into(torch.cat((x, x.new_zeros(self.heads, 1, x.shape[-1])), dim=1))
        return x.reshape(-1, self.cells, x.shape[-1])


class Block(nn.Module):
    """HieraBlock on the tokens of a map, which it leaves in the order that suits it.

    Nothing but attention in windows and pooling asks where a token stands, so tokens are moved
    only where the next block needs another order than the last.
    """

    def __init__(self, block: HieraBlock, side_map: int, order: Tensor) -> None:
        """Tokens come in as `order` and go out as `self.order`."""
        super().__init__()
        self.pool, window = block.pool, block.attn.window
        windows = window_order(side_map, window or side_map, self.pool)
        wanted = order  # attention over the whole map takes any
        if len(windows) > len(order):  # padded windows are cut after the projections
            wanted = window_order(side_map, side_map, True) if self.pool else order
        elif window or self.pool:
            wanted = windows
        self.order = halved_order(wanted, side_map) if self.pool else wanted
        self.arrange = Rearranged(places(order)[wanted])
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn = WindowAttend(block.attn, windows, wanted, self.order)
        self.mlp = block.mlp
        self.proj = cast("nn.Linear | None", getattr(block, "proj", None))

    def forward(self, x: Tensor) -> Tensor:
        """[HW, C] -> [HW, C'], or [HW / 4, C'] with pooling."""
        x = self.arrange(x)
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
            if self.pool:
                x = quartered(x)
        x = x + self.attn(normed)
        renewed: Tensor = x + self.mlp(self.norm2(x))
        return renewed


class Lateral(nn.Module):
    """1x1 convolutions that follow one another, as one: [HW, C] -> [1, C', H, W]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, back: Tensor) -> None:
        """`back` is where each token of the map stands among those that come in."""
        super().__init__()
        assert first.bias is not None
        assert second.bias is not None
        outer = second.weight.detach().flatten(1)
        self.side, self.arrange = int(len(back) ** 0.5), Rearranged(back)
        self.register_buffer("weight", outer @ first.weight.detach().flatten(1))
        self.register_buffer("bias", (outer @ first.bias + second.bias).detach()[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Multiply from the left: the channels then come first by themselves."""
        drawn = torch.addmm(self.bias, self.weight, self.arrange(x).T)
        return drawn.view(1, -1, self.side, self.side)


class EncodeImage(nn.Module):
    """Sam2s.encode_image."""

    place: Tensor  # [(S/4)², C]

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        trunk, decoder = model.image_encoder.trunk, model.sam_mask_decoder
        side = model.config.image_size // 4
        self.patches = trunk.patch_embed.proj
        place = trunk.position(side, side).detach().flatten(0, 2)
        sides = [side // 2**stage for stage in range(4)]
        self.stage_ends = trunk.stage_ends
        self.blocks = nn.ModuleList()
        order = torch.arange(side**2)
        orders = []  # of the four maps
        for number, given in enumerate(trunk.blocks):
            block = Block(cast(HieraBlock, given), side, order)
            self.blocks.append(block)
            order, side = block.order, side // 2 if block.pool else side
            if number in self.stage_ends:
                orders.append(order)
        back = [places(kept) for kept in orders]
        level_32, level_16, level_8, level_4 = (
            cast(PyramidLevel, level).conv for level in model.image_encoder.neck.convs
        )
        self.register_buffer("place", place)
        self.level_4 = Lateral(level_4, decoder.conv_s0, back[0])
        self.level_8 = Lateral(level_8, decoder.conv_s1, back[1])
        self.level_16, self.level_32 = (
            linear(level.weight.flatten(1), level.bias) for level in (level_16, level_32)
        )
        coarsest = torch.arange(sides[3] ** 2).view(1, 1, sides[3], sides[3]).float()
        nearest = F.interpolate(coarsest, scale_factor=2.0, mode="nearest").long().flatten()
        self.enlarge = Rearranged(back[3][nearest][orders[2]])
        self.arrange = Rearranged(back[2])
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
        coarse = self.arrange(coarse).T.reshape(1, -1, self.side, self.side)
        return coarse, self.level_4(map_4), self.level_8(map_8)
