"""Memory attention as a graph: the same function as Sam2s.attend_memory, multiplied out.

What weights alone decide is worked out when the graph is made: position tables, products of
projections that follow one another, and the queries of the class token, which never change.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.export.folding import by_rows, linear
from sam2s_model.export.manifest import Capacities
from sam2s_model.export.operators import ROTARY_OPSET, attend, rotary_embedding
from sam2s_model.layers import image_position, rotary_table
from sam2s_model.memory import MemoryAttentionLayer, RotaryAttention
from sam2s_model.model import Sam2s
from sam2s_model.semantic import SemanticToken, TokenAttention

# Added to the scores of hidden slots: far below any score, and still a number in float16, so
# that a row without any visible slot stays a number too.
HIDDEN = -1e4


class Hidden(NamedTuple):
    """Which memory tokens take no part."""

    added: Tensor  # [N, 1, K] what is added to their scores
    any: Tensor  # bool, whether there are any


class Rotary(nn.Module):
    """Turns queries and keys [N, K, C] by their places; one place more stands still.

    Places are numbered: the map's cells, then those of a pooled memory, then what stands still.
    """

    def __init__(self, width: int, size: int, pool: int, rows: int) -> None:
        super().__init__()
        device = torch.device("cpu")
        tables = [rotary_table(width, size, device)]
        if pool > 1:
            tables.append(rotary_table(width, size, device, pool))
        cos, sin = (torch.cat(parts) for parts in zip(*tables, strict=True))
        self.memory = len(cos) - len(tables[-1][0])  # place of a memory's first cell
        self.still = len(cos)
        # The operator wants a table as long as its input; all rows after the maps' stand still.
        more = max(1, rows - len(cos))
        self.register_buffer("cos", torch.cat((cos, torch.ones(more, width // 2))))
        self.register_buffer("sin", torch.cat((sin, torch.zeros(more, width // 2))))

    cos: Tensor
    sin: Tensor

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """Turn x [N, K, C] by the rows `places` [N, K] of the table."""
        turned: Tensor = rotary_embedding(x, self.cos, self.sin, places)
        return turned


class Attend(nn.Module):
    """One attention with its projections folded: queries scaled, values and output as one."""

    def __init__(self, attention: RotaryAttention) -> None:
        super().__init__()
        order = attention.halves
        width = len(order)
        scale = width**-0.5
        q, k, v, out = (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.out_proj,
        )
        self.query = linear(q.weight[order] * scale, q.bias[order] * scale)
        self.key = linear(k.weight[order], k.bias[order])
        self.output = linear(out.weight @ v.weight, out.weight @ v.bias + out.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, hidden: Hidden | None) -> Tensor:
        """Turned queries [N, Q, C], turned keys [N, K, C], raw values [N, K, Cv] -> [N, Q, C]."""
        if hidden is None:
            averages = (q @ k.transpose(1, 2)).softmax(-1) @ v
        else:
            averages = attend(q, k, v, *hidden)
        return by_rows(self.output, averages)


class AttendLayer(nn.Module):
    """One layer of memory attention."""

    def __init__(self, layer: MemoryAttentionLayer) -> None:
        super().__init__()
        self.self_attn = Attend(layer.self_attn)
        self.cross_attn = Attend(layer.cross_attn_image)
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.linear1, self.linear2 = layer.linear1, layer.linear2

    def forward(
        self,
        x: Tensor,
        tokens: Tensor,
        placed: Tensor,
        hidden: Hidden,
        rotary: Rotary,
        cells: Tensor,
        places: Tensor,
    ) -> Tensor:
        """Renew x [N or 1, HW, C] by tokens [N, K, Cm], whose keys are made of `placed`."""
        count = len(tokens)
        normed = self.norm1(x)
        own = self.self_attn
        cells_x = cells.expand(len(x), -1)
        q = rotary(by_rows(own.query, normed), cells_x)
        k = rotary(by_rows(own.key, normed), cells_x)
        x = x + own(q, k, normed, None)
        cross = self.cross_attn
        q = rotary(by_rows(cross.query, self.norm2(x)), cells_x).expand(count, -1, -1)
        k = rotary(by_rows(cross.key, placed), places)
        x = x + cross(q, k, tokens, hidden)
        hidden_layer = F.relu(by_rows(self.linear1, self.norm3(x)))
        return x + by_rows(self.linear2, hidden_layer)


class ReadTokens(nn.Module):
    """TSL's cross-attention of one query: keys and values are never made, only read through."""

    def __init__(self, attention: TokenAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        width = attention.q_proj.out_features
        inner = width // self.heads
        self.query = attention.q_proj
        # q · (Wk t + b) = (q Wk) · t + a constant that softmax does not see
        self.register_buffer(
            "key", attention.k_proj.weight.detach().view(self.heads, inner, -1) * inner**-0.5
        )
        value, out = attention.v_proj, attention.out_proj
        mixed = torch.einsum(
            "ohi,hit->oht",
            out.weight.detach().view(-1, self.heads, inner),
            value.weight.detach().view(self.heads, inner, -1),
        )
        self.output = linear(mixed.flatten(1), out.weight @ value.bias + out.bias)

    key: Tensor  # [heads, inner, Ct]

    def forward(self, query: Tensor, tokens: Tensor, hidden: Tensor | None) -> Tensor:
        """Query [N, C], tokens [N, K, Ct], hidden [N, 1, K] -> [N, C]."""
        q = self.query(query).unflatten(-1, (self.heads, -1))  # [N, heads, inner]
        through = (q.transpose(0, 1) @ self.key).transpose(0, 1)  # [N, heads, Ct]
        scores = through @ tokens.transpose(1, 2)
        if hidden is not None:
            scores = scores + hidden
        result: Tensor = self.output((scores.softmax(-1) @ tokens).flatten(1))
        return result


class ClassVector(nn.Module):
    """The class token of TSL."""

    def __init__(self, semantic: SemanticToken) -> None:
        super().__init__()
        self.read_memory = ReadTokens(semantic.read_memory)
        self.read_frame = ReadTokens(semantic.read_frame)
        self.parts = semantic

    def forward(self, tokens: Tensor, hidden: Tensor, x: Tensor) -> Tensor:
        """Memory tokens [N, K, Cm] with their times, features [N, HW, C] -> x'c [N, D]."""
        parts = self.parts
        token = parts.cls + self.read_memory(parts.norm_memory(parts.cls), tokens, hidden)
        token = token + self.read_frame(parts.norm_frame(token), x, None)
        token = token + parts.mlp(parts.norm_mlp(token))
        return F.normalize(parts.project(parts.norm_out(token)), dim=-1)


class AttendMemory(nn.Module):
    """Sam2s.attend_memory with a dynamic number of targets and of slots."""

    def __init__(self, model: Sam2s, capacities: Capacities, opset: int) -> None:
        super().__init__()
        config = model.config
        self.size, self.parts = config.feature_size, config.hidden_dim // config.memory_dim
        self.layers = nn.ModuleList(
            AttendLayer(cast(MemoryAttentionLayer, layer))
            for layer in model.memory_attention.layers
        )
        self.norm = model.memory_attention.norm
        longest = capacities.slots * config.memory_size**2 + capacities.pointers * self.parts
        longest = max(longest, self.size**2)
        self.rotary = Rotary(
            config.hidden_dim,
            self.size,
            config.memory_pool,
            rows=longest if opset >= ROTARY_OPSET else 0,
        )
        self.semantic = ClassVector(model.semantic) if model.has_semantics else None
        self.pointer_time = model.obj_ptr_tpos_proj
        device = torch.device("cpu")
        place = image_position(config.hidden_dim, self.size, device)
        narrow_place = image_position(config.memory_dim, self.size, device, config.memory_pool)
        half = config.hidden_dim // 2
        pair = torch.div(torch.arange(half), 2, rounding_mode="floor")
        speed = 10000.0 ** (-2.0 * pair / half) / (config.num_pointers - 1)
        self.register_buffer("place", 0.1 * place[None])
        self.register_buffer("narrow_place", narrow_place.flatten(1).T[None, None].clone())
        self.register_buffer("speed", speed)
        self.register_buffer("roles", model.temporal_embedding().detach().clone())
        self.register_buffer("cells", torch.arange(self.size**2)[None])
        memory_cells = torch.arange(config.memory_size**2) + self.rotary.memory
        self.register_buffer("memory_cells", memory_cells[None])

    place: Tensor  # [1, C, H, W]
    narrow_place: Tensor  # [1, 1, HWm, Cm]
    speed: Tensor  # [C / 2]
    roles: Tensor  # [R + 2, Cm]
    cells: Tensor  # [1, HW] places of the map
    memory_cells: Tensor  # [1, HWm] places of a memory

    def forward(
        self,
        coarse: Tensor,
        spatial: Tensor,
        role: Tensor,
        pointers: Tensor,
        distance: Tensor,
        seen: Tensor,
    ) -> tuple[Tensor, ...]:
        """See MemoryBatch for the arguments; -> conditioned [N, C, H, W], class vectors [N, D]."""
        count, slots, cells, narrow = spatial.shape
        parts = self.parts
        pointer_tokens = pointers.reshape(count, -1, narrow)
        held = pointer_tokens.shape[1]
        time = F.embedding(role, self.roles)[:, :, None, :]
        angle = distance[..., None] * self.speed
        age = self.pointer_time(torch.cat((angle.sin(), angle.cos()), dim=-1))
        age = age[:, :, None, :].expand(-1, -1, parts, -1).reshape(count, held, narrow)

        tokens = torch.cat((spatial.flatten(1, 2), pointer_tokens), dim=1)
        pointer_key = pointer_tokens + age
        timed = spatial + time
        placed = torch.cat(((timed + self.narrow_place).flatten(1, 2), pointer_key), dim=1)

        hidden = torch.where(seen, 0.0, HIDDEN)
        any_hidden = ~seen.all()
        hidden = torch.cat(
            (
                hidden[:, :slots, None].expand(-1, -1, cells).reshape(count, slots * cells),
                hidden[:, slots:, None].expand(-1, -1, parts).reshape(count, held),
            ),
            dim=1,
        )[:, None]
        still = torch.full_like(hidden[:, 0, slots * cells :], self.rotary.still, dtype=torch.long)
        moving = self.memory_cells[:, None].expand(count, slots, cells)
        moving = moving.reshape(count, slots * cells)
        places = torch.cat((moving, still), dim=1)

        told = Hidden(hidden, any_hidden)
        x = (coarse + self.place).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, tokens, placed, told, self.rotary, self.cells, places)
        x = self.norm(x)
        conditioned = x.transpose(1, 2).unflatten(2, (self.size, self.size))
        if self.semantic is None:
            return (conditioned,)
        timed_tokens = torch.cat((timed.flatten(1, 2), pointer_key), dim=1)
        return conditioned, self.semantic(timed_tokens, hidden, x)
