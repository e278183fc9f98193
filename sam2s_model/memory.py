"""Memory: how a frame's mask becomes a memory, and how features attend to memories."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.config import ModelConfig
from sam2s_model.layers import LayerNorm2d, image_position, rotary_table

SCORES_AT_ONCE = (32 << 20) // 4  # 32 MB of float32, see allocator.py


class RotaryAttention(nn.Module):
    """Single-head attention whose queries and keys are turned by their place on the map.

    Rotary encoding turns pairs of channels (2i, 2i + 1). A product of query and key does not
    change when both reorder their channels alike, so the projections' rows are reordered to put
    all first members before all second ones: turning then works on two whole halves.
    """

    halves: Tensor

    def __init__(self, width: int, width_memory: int | None = None) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width_memory or width, width)
        self.v_proj = nn.Linear(width_memory or width, width)
        self.out_proj = nn.Linear(width, width)
        order = torch.cat((torch.arange(0, width, 2), torch.arange(1, width, 2)))
        self.register_buffer("halves", order, persistent=False)

    def _reordered(self, proj: nn.Linear, x: Tensor) -> Tensor:
        assert proj.bias is not None
        return F.linear(x, proj.weight[self.halves], proj.bias[self.halves])

    def queries(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """[N, HW, C] -> turned queries of the same shape."""
        return _turned(self._reordered(self.q_proj, x), turn)

    def keys(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
        """[..., HW, C] -> keys [..., HW, C'], turned unless they have no place (pointers)."""
        keys = self._reordered(self.k_proj, x)
        return keys if turn is None else _turned(keys, turn)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """Attend with ready queries [N, Q, C] and keys [N, K, C] to raw values [N, K, Cv].

        The rows of the attention matrix sum to one, so the values may be projected after they
        are averaged. With memories four times narrower than queries that saves most of the work
        of the second product on a CPU; on a GPU the fused kernel wins instead.
        """
        if q.is_cuda:
            v = self.v_proj(v)
            out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], seen)[:, 0]
        else:
            hidden = None if seen is None else ~seen[:, 0]
            out = self.v_proj(_averages(q * q.shape[-1] ** -0.5, k, v, hidden))
        result: Tensor = self.out_proj(out)
        return result


def _averages(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    """Average the values by softmax(q · k): [N, Q, Cv]; `hidden` [N, 1, K] takes no part.

    One target at a time, and no more queries than fit a block that the allocator keeps: a larger
    score matrix is handed back to the system and faulted in again at each call.
    """
    rows = []
    for n in range(len(k)):
        parts = []
        for part in torch.split(q[n], max(1, SCORES_AT_ONCE // k.shape[1])):
            scores = part @ k[n].T
            if hidden is not None:
                scores = scores.masked_fill(hidden[n], float("-inf"))
            parts.append(scores.softmax(-1) @ v[n])
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = turn
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class MemoryAttentionLayer(nn.Module):
    """Features attend to themselves, then to the memory, then pass a feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.self_attn = RotaryAttention(width)
        self.cross_attn_image = RotaryAttention(width, config.memory_dim)
        self.linear1 = nn.Linear(width, config.attention_mlp)
        self.linear2 = nn.Linear(config.attention_mlp, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        spatial: Tensor,
        spatial_key: Tensor,
        pointers: Tensor,
        pointer_key: Tensor,
        seen: Tensor | None,
        turn: tuple[Tensor, Tensor],
        turn_memory: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Renew the features of N targets.

        Args:
            x: [N or 1, HW, C]; one row while all targets still share the frame's features.
            spatial: [N, S, HWm, Cm] memories, of as many or, pooled, of fewer cells.
            spatial_key: the same with their positions in space and time added.
            pointers: [N, T, Cm] object pointers as tokens.
            pointer_key: the same with their positions in time added.
            seen: [N, 1, 1, S·HWm + T] bool, False for empty slots; None when all are filled.
            turn: the rotary table of the map.
            turn_memory: the rotary table of a memory.

        Returns:
            [N, HW, C].
        """
        normed = self.norm1(x)
        attention = self.self_attn
        q, k = attention.queries(normed, turn), attention.keys(normed, turn)
        x = x + attention(q, k, normed)

        attention = self.cross_attn_image
        k = torch.cat(
            (
                attention.keys(spatial_key, turn_memory).flatten(1, 2),
                attention.keys(pointer_key, None),
            ),
            dim=1,
        )
        v = torch.cat((spatial.flatten(1, 2), pointers), dim=1)
        q = attention.queries(self.norm2(x), turn).expand(len(k), -1, -1)
        x = x + attention(q, k, v, seen)
        renewed: Tensor = x + self.linear2(F.relu(self.linear1(self.norm3(x))))
        return renewed


class MemoryAttention(nn.Module):
    """Conditions a frame's features on each target's memories."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(config) for _ in range(config.attention_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.pool = config.memory_pool

    def forward(
        self,
        features: Tensor,
        spatial: Tensor,
        time: Tensor,
        pointers: Tensor,
        pointer_time: Tensor,
        seen: Tensor | None,
    ) -> Tensor:
        """Attend for N targets in one pass.

        Args:
            features: [1, C, H, W] of the frame.
            spatial: [N, S, HWm, Cm] memories.
            time: [N, S, Cm] temporal embedding of each.
            pointers: [N, T, Cm] pointer tokens.
            pointer_time: [N, T, Cm] temporal encoding of each.
            seen: [N, S·HWm + T] bool, or None when every slot is filled.

        Returns:
            [N, C, H, W].
        """
        _, width, size, _ = features.shape
        turn = rotary_table(width, size, features.device)
        turn_memory = rotary_table(width, size, features.device, self.pool)
        place = image_position(width, size, features.device)
        memory_place = image_position(spatial.shape[-1], size, features.device, self.pool)
        x = (features + 0.1 * place).flatten(2).transpose(1, 2)
        spatial_key = spatial + memory_place.flatten(1).T + time[:, :, None, :]
        pointer_key = pointers + pointer_time
        mask = None if seen is None else seen[:, None, None, :]
        for layer in self.layers:
            x = layer(x, spatial, spatial_key, pointers, pointer_key, mask, turn, turn_memory)
        x = self.norm(x)
        conditioned: Tensor = x.transpose(1, 2).unflatten(2, (size, size))
        return conditioned


class MaskDownSampler(nn.Module):
    """A mask becomes a map of a memory's size: [N, 1, M, M] -> [N, C, M/16, M/16]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(4):
            layers += [
                nn.Conv2d(channels, 4 * channels, kernel_size=3, stride=2, padding=1),
                LayerNorm2d(4 * channels),
                nn.GELU(),
            ]
            channels *= 4
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels, width, kernel_size=1))

    def forward(self, mask: Tensor) -> Tensor:
        """Halve the mask four times."""
        result: Tensor = self.encoder(mask)
        return result


class ConvNextBlock(nn.Module):
    """A wide depthwise convolution, then a feed-forward network: [N, C, H, W] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = LayerNorm2d(width)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's update, scaled per channel."""
        update = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        update = self.gamma * self.pwconv2(F.gelu(self.pwconv1(update)))
        renewed: Tensor = x + update.permute(0, 3, 1, 2)
        return renewed


class Fuser(nn.Module):
    """Mixes image and mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNextBlock(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Features and masks of a frame become one spatial memory per target."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.mask_downsampler = MaskDownSampler(width)
        self.pix_feat_proj = nn.Conv2d(width, width, kernel_size=1)
        self.fuser = Fuser(width)
        self.out_proj = nn.Conv2d(width, config.memory_dim, kernel_size=1)
        self.pool = config.memory_pool

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Features [1, C, H, W] and scaled masks [N, 1, M, M] -> [N, Cm, Hm, Wm]."""
        if self.pool > 1:
            features = F.avg_pool2d(features, self.pool)
        fused = self.fuser(self.pix_feat_proj(features) + self.mask_downsampler(masks))
        result: Tensor = self.out_proj(fused)
        return result
