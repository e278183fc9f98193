"""Sam2s: the network as four pure stages; whoever calls them keeps the state."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.backbone import ImageEncoder
from sam2s_model.config import ModelConfig
from sam2s_model.decoder import MaskDecoder, Masks, choose_mask
from sam2s_model.errors import Sam2sError
from sam2s_model.layers import Mlp, distance_encoding
from sam2s_model.memory import MemoryAttention, MemoryEncoder
from sam2s_model.prompt import ABSENT, PromptEncoder
from sam2s_model.semantic import SemanticToken
from sam2s_model.textbank import TextBank

NO_OBJECT_LOGIT = -1024.0  # every pixel's logit when the target is not in the frame
OWN_TENSORS = ("long_term_tpos_enc", "semantic.")  # what SAM 2.1 checkpoints lack: names, prefixes


class CheckpointMismatchError(Sam2sError):
    """Weights that do not belong to this model."""


class Features(NamedTuple):
    """What one frame looks like, before any target is thought of."""

    coarse: Tensor  # [1, C, S/16, S/16]
    fine_4: Tensor  # [1, C/8, S/4, S/4]
    fine_8: Tensor  # [1, C/4, S/8, S/8]


class MemoryBatch(NamedTuple):
    """The memories of N targets in slots; unfilled slots are hidden by `seen`."""

    spatial: Tensor  # [N, S, HWm, Cm], HWm = config.memory_size²
    role: Tensor  # [N, S] long: row of the temporal embedding, see Sam2s.temporal_embedding
    pointers: Tensor  # [N, P, C] object pointers
    distance: Tensor  # [N, P] float: how many frames ago each pointer was made
    seen: Tensor | None  # [N, S + P] bool; None when every slot of every target is filled


class Conditioned(NamedTuple):
    """The frame's features as each target's memory sees them."""

    features: Tensor  # [N, C, S/16, S/16]
    semantics: Tensor  # [N, D] class vectors x'c of unit length; D = 0 if there are none


class PromptBatch(NamedTuple):
    """The prompts of N targets as padded tensors; without a prompt, two not-a-point tokens."""

    xy: Tensor  # [N, P, 2] pixels of the network's input
    labels: Tensor  # [N, P] long, the labels of prompt.py
    masks: Tensor | None  # [N, 1, S/4, S/4] mask logits, or None when no target has any
    mask_given: Tensor  # [N] bool
    ambiguous: Tensor  # [N] bool: at most one point, so the best of three masks is taken
    padded: bool = True  # whether any label is ABSENT


class Decoded(NamedTuple):
    """One mask per target."""

    logits: Tensor  # [N, 1, s, s], s = config.mask_size
    iou: Tensor  # [N] predicted IoU, 0..1
    object_score: Tensor  # [N] logit that the target is in the frame
    pointer: Tensor  # [N, C] object pointer


class Sam2s(nn.Module):
    """SAM 2.1 with a long-term memory slot and temporal semantics.

    The attribute names are those of SAM 2.1's checkpoints, so its tensors load as they are.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, narrow = config.hidden_dim, config.memory_dim
        self.image_encoder = ImageEncoder(config)
        self.memory_attention = MemoryAttention(config)
        self.memory_encoder = MemoryEncoder(config)
        self.sam_prompt_encoder = PromptEncoder(config)
        self.sam_mask_decoder = MaskDecoder(config)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.obj_ptr_proj = Mlp(width, width, width, depth=3)
        self.obj_ptr_tpos_proj = nn.Linear(width, narrow)
        # Row i - 1 belongs to the memory of i frames ago, the last row to conditional entries.
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.num_recent + 1, 1, 1, narrow))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, width))  # in checkpoints, never used
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, width))
        self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, narrow))
        for parameter in (
            self.maskmem_tpos_enc,
            self.no_mem_embed,
            self.no_mem_pos_enc,
            self.no_obj_ptr,
            self.no_obj_embed_spatial,
        ):
            nn.init.trunc_normal_(parameter, std=0.02)

        self.long_term_tpos_enc = nn.Parameter(self.maskmem_tpos_enc[-1:].detach().clone())
        self.semantic = SemanticToken(config)
        self.has_semantics = True  # False after loading weights without TSL tensors
        self.text_bank: TextBank | None = None  # the bank that the weights were trained with

    # --- the four stages -------------------------------------------------------------------

    def encode_image(self, image: Tensor) -> Features:
        """Encode a normalised RGB image [1, 3, S, S]."""
        decoder = self.sam_mask_decoder
        return Features(*self.image_encoder(image, decoder.conv_s0, decoder.conv_s1))

    def attend_memory(
        self, features: Features, memory: MemoryBatch, semantics: bool = True
    ) -> Conditioned:
        """Condition a frame's features on the memories of N targets, with their class vectors."""
        narrow = self.config.memory_dim
        spatial = memory.spatial.float()
        time = self.temporal_embedding()[memory.role]
        parts = self.config.hidden_dim // narrow
        pointers = memory.pointers.reshape(len(spatial), -1, narrow)
        age = distance_encoding(
            memory.distance / (self.config.num_pointers - 1), self.config.hidden_dim
        )
        pointer_time = self.obj_ptr_tpos_proj(age).repeat_interleave(parts, dim=1)
        seen = None
        if memory.seen is not None:
            slots = spatial.shape[1]
            seen = torch.cat(
                (
                    memory.seen[:, :slots].repeat_interleave(spatial.shape[2], dim=1),
                    memory.seen[:, slots:].repeat_interleave(parts, dim=1),
                ),
                dim=1,
            )
        conditioned = self.memory_attention(
            features.coarse, spatial, time, pointers, pointer_time, seen
        )
        if not (semantics and self.has_semantics):
            return Conditioned(conditioned, spatial.new_zeros(len(spatial), 0))
        placed = (spatial + time[:, :, None, :]).flatten(1, 2)
        tokens = torch.cat((placed, pointers + pointer_time), dim=1)
        return Conditioned(conditioned, self.semantic(tokens, conditioned, seen))

    def draw(self, features: Features, conditioned: Tensor, prompts: PromptBatch) -> Masks:
        """Draw all four masks of N targets: `conditioned` [N, C, S/16, S/16] and their prompts."""
        encoder = self.sam_prompt_encoder
        size = self.config.feature_size
        if prompts.masks is None:
            dense = encoder.no_masks(len(conditioned), size)
        else:
            dense = encoder.masks(prompts.masks, prompts.mask_given)
        masks: Masks = self.sam_mask_decoder(
            conditioned,
            encoder.pe_layer.grid(size),
            features.fine_4,
            features.fine_8,
            encoder.points(prompts.xy, prompts.labels),
            dense,
            prompts.labels != ABSENT if prompts.padded else None,
        )
        return masks

    def choose(self, masks: Masks, ambiguous: Tensor) -> Decoded:
        """Keep one mask of each of N targets, and make its object pointer."""
        logits, iou, token = choose_mask(masks, ambiguous)
        present = masks.object_score > 0
        logits = torch.where(present[:, None, None, None], logits, NO_OBJECT_LOGIT)
        pointer = torch.where(present[:, None], self.obj_ptr_proj(token).float(), self.no_obj_ptr)
        return Decoded(logits, iou, masks.object_score, pointer)

    def decode(self, features: Features, conditioned: Tensor, prompts: PromptBatch) -> Decoded:
        """Draw the masks of N targets and keep one of each."""
        return self.choose(self.draw(features, conditioned, prompts), prompts.ambiguous)

    def encode_memory(
        self, features: Features, logits: Tensor, object_score: Tensor, binary: Tensor
    ) -> Tensor:
        """Make the spatial memories of N targets from their masks on this frame.

        Args:
            features: of the frame.
            logits: [N, 1, s, s] mask logits.
            object_score: [N]; where it is not positive, the memory is marked as empty.
            binary: [N] bool, whether a prompt made the mask: it is then taken as certain.

        Returns:
            [N, HWm, Cm].
        """
        size = (self.config.memory_mask_size, self.config.memory_mask_size)
        masks = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        masks = torch.where(binary[:, None, None, None], (masks > 0).to(masks), masks.sigmoid())
        memory = self.memory_encoder(features.coarse, masks * 20.0 - 10.0)
        memory = memory.float().flatten(2).transpose(1, 2)
        absent = (object_score <= 0)[:, None, None]
        return torch.where(absent, memory + self.no_obj_embed_spatial, memory)

    # --- small pure helpers of the stages -----------------------------------------------------

    def temporal_embedding(self) -> Tensor:
        """Embeddings by role: recent entries newest first, conditional, long-term: [R + 2, Cm]."""
        return torch.cat((self.maskmem_tpos_enc, self.long_term_tpos_enc)).flatten(0, 2)

    def unconditioned(self, features: Features) -> Tensor:
        """The features of a target's first frame, on which it has no memory yet: [1, C, h, w]."""
        return features.coarse + self.no_mem_embed.flatten()[None, :, None, None]

    def mask_to_logits(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A mask prompt [N, 1, S, S] in 0..1 as an output and as an input of the decoder.

        Returns:
            The mask as logits of ±10 [N, 1, s, s] and as the decoder's mask prompt
            [N, 1, S/4, S/4].
        """
        size = (self.config.mask_size, self.config.mask_size)
        output = F.interpolate(
            mask * 20.0 - 10.0, size=size, mode="bilinear", align_corners=False, antialias=True
        )
        return output, self.mask_downsample(mask)

    # --- weights --------------------------------------------------------------------------

    def load_sam2(self, weights: Mapping[str, Tensor] | str | PathLike[str]) -> list[str]:
        """Load SAM 2.1 or SAM2S weights, a state dict or a checkpoint's path.

        Returns:
            The names of SAM2S's own tensors that the weights lack. The long-term embedding then
            starts as a copy of the conditional one, and targets get the class `unknown`.
        """
        if isinstance(weights, (str, PathLike)):
            from sam2s_model.weights import read_state_dict

            weights = read_state_dict(Path(weights))
        expected = self.state_dict()
        own = [name for name in expected if name.startswith(OWN_TENSORS)]
        absent = [name for name in own if name not in weights]
        missing = [name for name in expected if name not in weights and name not in own]
        unexpected = [name for name in weights if name not in expected]
        if missing or unexpected:
            raise CheckpointMismatchError(
                f"the weights are not those of a '{self.config.name}' model: "
                f"{_some('missing', missing)}{_some('unexpected', unexpected)}"
                f"expected the {len(expected) - len(own)} tensors of SAM 2.1 {self.config.name}"
            )
        shapes = [
            f"{name} is {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ]
        if shapes:
            raise CheckpointMismatchError(
                f"the weights are not those of a '{self.config.name}' model: {shapes[0]}"
                + (f", and {len(shapes) - 1} more" if len(shapes) > 1 else "")
            )
        self.load_state_dict({**{name: expected[name] for name in absent}, **weights})
        if "long_term_tpos_enc" in absent:
            with torch.no_grad():
                self.long_term_tpos_enc.copy_(self.maskmem_tpos_enc[-1:])
        self.has_semantics = not any(name.startswith("semantic.") for name in absent)
        return absent

    def fingerprint(self) -> str:
        """Tell these weights from others, by small tensors that every training changes."""
        small = (self.no_mem_embed, self.no_obj_ptr, self.maskmem_tpos_enc, self.long_term_tpos_enc)
        content = b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in small)
        return hashlib.sha256(content).hexdigest()[:16]

    def with_image_size(self, image_size: int) -> Sam2s:
        """The same weights for another input size."""
        other = Sam2s(dataclasses.replace(self.config, image_size=image_size))
        other.load_state_dict(copy.deepcopy(self.state_dict()))
        other.has_semantics, other.text_bank = self.has_semantics, self.text_bank
        return other


def _some(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{len(names)} {kind} ({', '.join(names[:2])}{more}); "
