"""Memory encoding as a graph: the same function as Sam2s.encode_memory."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.export.folding import linear
from sam2s_model.layers import LayerNorm2d
from sam2s_model.memory import ConvNextBlock
from sam2s_model.model import Sam2s

MASK_SCALE = 20.0  # the encoder takes probabilities 0..1 as -10..10


class MixBlock(nn.Module):
    """ConvNextBlock whose channels come last from its norm on, with its scale folded in."""

    def __init__(self, block: ConvNextBlock) -> None:
        super().__init__()
        self.dwconv, self.norm = block.dwconv, channels_last(block.norm)
        self.wide = block.pwconv1
        gamma = block.gamma.detach()
        narrow = block.pwconv2
        self.narrow = linear(narrow.weight * gamma[:, None], narrow.bias * gamma)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        _, width, height, _ = x.shape
        rows = self.dwconv(x).permute(0, 2, 3, 1).reshape(-1, width)
        update = self.narrow(F.gelu(self.wide(self.norm(rows))))
        renewed: Tensor = x + update.view(-1, height, height, width).permute(0, 3, 1, 2)
        return renewed


class HalvingStep(nn.Module):
    """A strided convolution of the mask, normalised over channels and activated.

    The mean over channels is taken out of the convolution's weights, where it costs nothing.
    """

    weight: Tensor  # [C, 1, 1]
    bias: Tensor  # [C, 1, 1]

    def __init__(self, conv: nn.Conv2d, norm: LayerNorm2d, scale: float) -> None:
        """The input comes divided by `scale`."""
        super().__init__()
        assert conv.bias is not None
        weight = (conv.weight - conv.weight.mean(0)) * scale
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 3, stride=2, padding=1)
        self.conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.conv.bias = nn.Parameter((conv.bias - conv.bias.mean()).detach(), requires_grad=False)
        self.register_buffer("weight", norm.weight.detach()[:, None, None].clone())
        self.register_buffer("bias", norm.bias.detach()[:, None, None].clone())
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H/2, W/2]."""
        x = self.conv(x)
        scale = torch.rsqrt((x * x).mean(1, keepdim=True) + self.eps)
        return F.gelu(x * scale * self.weight + self.bias)


class EncodeMemory(nn.Module):
    """Sam2s.encode_memory."""

    absent: Tensor  # [1, Cm] what marks the memory of a frame without the target

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        encoder = model.memory_encoder
        self.size, self.pool = model.config.memory_mask_size, model.config.memory_pool
        parts = list(encoder.mask_downsampler.encoder)
        convs, norms = parts[:-1:3], parts[1::3]
        self.masks = nn.Sequential(
            *(
                HalvingStep(
                    cast(nn.Conv2d, conv), cast(LayerNorm2d, norm), 1.0 if number else MASK_SCALE
                )
                for number, (conv, norm) in enumerate(zip(convs, norms, strict=True))
            ),
            parts[-1],
        )
        self.image = encoder.pix_feat_proj
        self.blocks = nn.ModuleList(
            MixBlock(cast(ConvNextBlock, block)) for block in encoder.fuser.layers
        )
        out = encoder.out_proj
        self.out = linear(out.weight.flatten(1), out.bias)
        self.register_buffer("absent", model.no_obj_embed_spatial.detach().clone())

    def forward(
        self, coarse: Tensor, logits: Tensor, object_score: Tensor, binary: Tensor
    ) -> tuple[Tensor, ...]:
        """See Sam2s.encode_memory -> memories [N, HWm, Cm]."""
        size = (self.size, self.size)
        masks = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        certain = binary[:, None, None, None]
        masks = torch.where(certain, (masks > 0).to(masks), masks.sigmoid())
        if self.pool > 1:
            coarse = F.avg_pool2d(coarse, self.pool)
        x = self.image(coarse) + self.masks(masks - 0.5)
        for block in self.blocks:
            x = block(x)
        cells = x.shape[2] * x.shape[3]
        rows = x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1])
        memory = self.out(rows)
        memory = memory.view(-1, cells, memory.shape[-1])
        missing = (object_score <= 0).to(memory)[:, None, None]
        return (memory + missing * self.absent,)


def channels_last(norm: LayerNorm2d) -> nn.LayerNorm:
    """The same norm for channels that come last."""
    other = nn.LayerNorm(len(norm.weight), eps=norm.eps)
    other.weight, other.bias = norm.weight, norm.bias
    return other
