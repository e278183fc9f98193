"""Temporal semantics: a learned token that reads memory and frame and leaves as a class vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.config import ModelConfig
from sam2s_model.layers import Mlp


class TokenAttention(nn.Module):
    """One query per target reads a set of tokens of another width."""

    def __init__(self, width: int, width_tokens: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width_tokens, width)
        self.v_proj = nn.Linear(width_tokens, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """Query [N, C], tokens [N, K, Ct], seen [N, K] -> [N, C]."""
        q = self.q_proj(query)[:, None]
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (q, self.k_proj(tokens), self.v_proj(tokens))
        )
        mask = None if seen is None else seen[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        result: Tensor = self.out_proj(out.transpose(1, 2).flatten(1))
        return result


class SemanticToken(nn.Module):
    """The CLS token of TSL. It never writes to the image tokens, so masks do not depend on it.

    It cross-attends to the target's memory (spatial memories and object pointers), then to the
    frame's features as that memory conditioned them, and is projected to the text bank's space.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.cls = nn.Parameter(torch.zeros(1, width))
        nn.init.trunc_normal_(self.cls, std=0.02)
        self.norm_memory = nn.LayerNorm(width)
        self.read_memory = TokenAttention(width, config.memory_dim, config.semantic_heads)
        self.norm_frame = nn.LayerNorm(width)
        self.read_frame = TokenAttention(width, width, config.semantic_heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width, width, depth=2, activation=F.gelu)
        self.norm_out = nn.LayerNorm(width)
        self.project = nn.Linear(width, config.semantic_dim)
        # ln(1 / temperature) of the class scores; starts at a temperature of 0.07, as in CLIP.
        self.log_scale = nn.Parameter(torch.tensor(2.6593))

    def forward(self, memory: Tensor, conditioned: Tensor, seen: Tensor | None) -> Tensor:
        """Describe N targets.

        Args:
            memory: [N, K, Cm] memory tokens with their positions.
            conditioned: [N, C, H, W] features after memory attention.
            seen: [N, K] bool, False for empty slots; None when all are filled.

        Returns:
            x'c [N, D] of unit length.
        """
        token = self.cls.expand(len(memory), -1)
        token = token + self.read_memory(self.norm_memory(token), memory, seen)
        return self._describe(token, conditioned, None)

    def at_places(self, features: Tensor, places: Tensor) -> Tensor:
        """Describe what fills the given places of frames [N, C, H, W], without any memory.

        Training alone asks this: it teaches features to tell classes apart before memory can
        say where to look.

        Args:
            features: [N, C, H, W], one frame for each target.
            places: [N, H·W] bool, at least one of them True in each row.

        Returns:
            [N, D] of unit length.
        """
        return self._describe(self.cls.expand(len(features), -1), features, places)

    def _describe(self, token: Tensor, frame: Tensor, places: Tensor | None) -> Tensor:
        tokens = frame.flatten(2).transpose(1, 2)
        token = token + self.read_frame(self.norm_frame(token), tokens, places)
        token = token + self.mlp(self.norm_mlp(token))
        return F.normalize(self.project(self.norm_out(token)).float(), dim=-1)

    def class_probabilities(self, vectors: Tensor, text: Tensor) -> Tensor:
        """Softmax over the scaled cosines of x'c [N, D] to text embeddings [K, D]: [N, K]."""
        return (self.log_scale.exp() * vectors @ text.T).softmax(-1)
