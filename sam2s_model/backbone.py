"""The image encoder: a Hiera trunk and the feature pyramid on top of it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.config import ModelConfig
from sam2s_model.layers import Mlp, kept_table


class WindowAttention(nn.Module):
    """Multi-head attention inside square windows, which may halve the map on its way.

    Input [B, H, W, C], output [B, H, W, C'] or, with `pool`, [B, H/2, W/2, C'].
    """

    def __init__(self, width_in: int, width_out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window  # side in tokens before pooling; 0 attends over the whole map
        self.pool = pool
        self.qkv = nn.Linear(width_in, 3 * width_out)
        self.proj = nn.Linear(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows; tokens move between map and windows by one gather each way.

        A padded token is zero before the projection, so its projection is the bias: where the
        map must be padded to whole windows, it is projected first and the bias stands in for
        what was padded, which is never computed. Elsewhere the narrower input is moved instead.
        """
        batch, height, width, _ = x.shape
        side = self.window or max(height, width)
        into, back = _window_order(height, width, side, self.pool, x.device)
        if len(into) > height * width:
            qkv = self.qkv(x).flatten(1, 2)
            bias = self.qkv.bias.to(qkv.dtype).expand(batch, 1, -1)
            qkv = torch.cat((qkv, bias), dim=1)[:, into]
        else:
            qkv = self.qkv(x.flatten(1, 2)[:, into])

        # [B·windows, heads, side², d], without copying
        qkv = qkv.view(-1, side * side, 3, self.heads, qkv.shape[-1] // (3 * self.heads))
        q, k, v = qkv.unbind(2)
        if self.pool:
            q = halved(q.reshape(len(q), side, side, *q.shape[2:])).flatten(1, 2)
        out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        out = out.transpose(1, 2).reshape(batch, -1, q.shape[2] * q.shape[3])
        if self.pool:
            height, width = height // 2, width // 2
        projected: Tensor = self.proj(out[:, back])
        return projected.view(batch, height, width, -1)


@kept_table
def _window_order(
    height: int, width: int, side: int, pool: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where tokens go when a map is cut into windows, and back.

    Returns:
        For each place in the windows, row by row, the token of the map that stands there
        (height · width for a padded one), and for each token of the map (halved when pooled)
        its place in the windows (halved likewise).
    """
    rows, columns = -(-height // side), -(-width // side)
    tokens = torch.full((rows * side, columns * side), height * width)
    tokens[:height, :width] = torch.arange(height * width).view(height, width)
    into = tokens.view(rows, side, columns, side).transpose(1, 2).flatten()
    if pool:
        side, height, width = side // 2, height // 2, width // 2
    places = torch.arange(rows * columns * side * side).view(rows, columns, side, side)
    places = places.transpose(1, 2).reshape(rows * side, columns * side)
    return into.to(device), places[:height, :width].flatten().to(device)


def halved(x: Tensor) -> Tensor:
    """Take the maximum of each 2x2 block: [B, H, W, …] -> [B, H/2, W/2, …]."""
    upper = torch.maximum(x[:, 0::2, 0::2], x[:, 0::2, 1::2])
    return torch.maximum(upper, torch.maximum(x[:, 1::2, 0::2], x[:, 1::2, 1::2]))


class HieraBlock(nn.Module):
    """One transformer block of the trunk on a [B, H, W, C] map."""

    def __init__(self, width_in: int, width_out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.norm1 = nn.LayerNorm(width_in, eps=1e-6)
        self.attn = WindowAttention(width_in, width_out, heads, window, pool)
        self.norm2 = nn.LayerNorm(width_out, eps=1e-6)
        self.mlp = Mlp(width_out, 4 * width_out, width_out, depth=2, activation=F.gelu)
        if width_in != width_out:
            self.proj = nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Attention and feed-forward, each added to its input."""
        normed = self.norm1(x)
        if hasattr(self, "proj"):  # the width changes, and so the shortcut is projected
            x = self.proj(normed)
            if self.pool:
                x = halved(x)
        x = x + self.attn(normed)
        renewed: Tensor = x + self.mlp(self.norm2(x))
        return renewed


class PatchEmbed(nn.Module):
    """Overlapping 7x7 patches at stride 4: [B, 3, H, W] -> [B, H/4, W/4, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=7, stride=4, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        """Embed the patches of a normalised RGB image."""
        embedded: Tensor = self.proj(image)
        return embedded.permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """The trunk: one map per stage at strides 4, 8, 16 and 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dim)
        first = config.windows[0]
        self.pos_embed = nn.Parameter(
            torch.zeros(1, config.embed_dim, config.pos_grid, config.pos_grid)
        )
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.embed_dim, first, first))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)

        self.blocks = nn.ModuleList()
        width, heads = config.embed_dim, config.num_heads
        window = config.windows[0]
        self.stage_ends: list[int] = []
        for stage, depth in enumerate(config.stages):
            for index in range(depth):
                opens_stage = stage > 0 and index == 0
                width_in = width
                if opens_stage:
                    width, heads = 2 * width, 2 * heads
                # A stage's first block still works in the windows of the stage before.
                side = 0 if len(self.blocks) in config.global_blocks else window
                self.blocks.append(HieraBlock(width_in, width, heads, side, pool=opens_stage))
                window = config.windows[stage]
            self.stage_ends.append(len(self.blocks) - 1)
        self.widths = [config.embed_dim * 2**stage for stage in range(4)]
        self._kept: tuple[object, Tensor] | None = None  # the position map of the last size

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B, 3, S, S] -> four maps [B, S/4, S/4, C] … [B, S/32, S/32, 8C], channels last."""
        x = self.patch_embed(image)
        x = x + self._kept_position(x.shape[1], x.shape[2])
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                maps.append(x)
        return maps

    def position(self, height: int, width: int) -> Tensor:
        """The learned background, stretched over the map, plus the window pattern, repeated."""
        background = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        side = self.pos_embed_window.shape[-1]
        pattern = self.pos_embed_window.tile(1, 1, height // side, width // side)
        return (background + pattern).permute(0, 2, 3, 1)

    def _kept_position(self, height: int, width: int) -> Tensor:
        """`position`, stretched anew only when the size, the weights or their place changed."""
        parameters = (self.pos_embed, self.pos_embed_window)
        changing = torch.is_grad_enabled() or torch.compiler.is_exporting()
        if changing or any(p.is_inference() for p in parameters):
            return self.position(height, width)
        key = (height, width, *((p.data_ptr(), p._version) for p in parameters))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self.position(height, width).contiguous())
        return self._kept[1]


class PyramidLevel(nn.Module):
    """The lateral 1x1 convolution of one pyramid level."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C'], as a matrix product because channels come last."""
        return F.linear(x, self.conv.weight.flatten(1), self.conv.bias)


class FeaturePyramid(nn.Module):
    """Lateral projections of the four maps; only strides 32 and 16 are summed top-down."""

    def __init__(self, config: ModelConfig, widths: list[int]) -> None:
        super().__init__()
        # Coarsest first: the order that SAM 2's checkpoints keep them in.
        self.convs = nn.ModuleList(PyramidLevel(w, config.hidden_dim) for w in reversed(widths))


class ImageEncoder(nn.Module):
    """Trunk and pyramid: an image becomes one coarse and two fine feature maps."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FeaturePyramid(config, self.trunk.widths)

    def forward(
        self, image: Tensor, fine_4: nn.Conv2d, fine_8: nn.Conv2d
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, S, S] -> features [B, C, S/16, S/16] and the decoder's two fine maps.

        `fine_4` and `fine_8` are the decoder's 1x1 convolutions of the strides 4 and 8. Nothing
        lies between them and the lateral ones, so each pair is multiplied out beforehand and the
        wide map between them is never made: [B, C/8, S/4, S/4] and [B, C/4, S/8, S/8].
        """
        map_4, map_8, map_16, map_32 = self.trunk(image)
        level_32, level_16, level_8, level_4 = cast("list[PyramidLevel]", list(self.neck.convs))
        coarse = level_32(map_32).float().permute(0, 3, 1, 2)
        features = level_16(map_16).permute(0, 3, 1, 2)
        features = features + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return (
            features,
            _two_projections(map_4, level_4.conv, fine_4),
            _two_projections(map_8, level_8.conv, fine_8),
        )


def _two_projections(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Apply two 1x1 convolutions as one: [B, H, W, C] -> [B, C'', H, W]."""
    outer = second.weight.flatten(1)
    weight = outer @ first.weight.flatten(1)
    assert first.bias is not None
    assert second.bias is not None
    bias = outer @ first.bias + second.bias
    return F.linear(x, weight, bias).permute(0, 3, 1, 2)
