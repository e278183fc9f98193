"""Decoding as a graph: the same function as Sam2s.decode, drawing two masks instead of four."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2s_model.decoder import STABILITY_DELTA, STABILITY_THRESHOLD
from sam2s_model.model import NO_OBJECT_LOGIT, Sam2s
from sam2s_model.prompt import ABSENT

MASKS = 4  # the single mask and the ambiguous three


class Decode(nn.Module):
    """Sam2s.decode; every target brings a mask prompt, which `mask_given` may hide.

    Which of the ambiguous three rates best is known before any mask is drawn, so only that one
    and the single mask are.
    """

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        decoder = model.sam_mask_decoder
        self.prompts = model.sam_prompt_encoder
        self.decoder = decoder
        self.pointer = model.obj_ptr_proj
        outputs = (decoder.obj_score_token, decoder.iou_token, decoder.mask_tokens)
        self.register_buffer("no_pointer", model.no_obj_ptr.detach().clone())
        self.register_buffer("outputs", torch.cat([token.weight for token in outputs]).detach())
        self.register_buffer(
            "grid", model.sam_prompt_encoder.pe_layer.grid(model.config.feature_size)
        )
        self.register_buffer("numbers", torch.arange(MASKS)[None])

    no_pointer: Tensor  # [1, C]
    outputs: Tensor  # [6, C] output tokens
    grid: Tensor  # [1, C, H, W]
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
        always = torch.ones_like(outputs[:, :, 0], dtype=torch.bool)
        seen = torch.cat((always, labels != ABSENT), dim=1)[:, None, None, :]
        image = conditioned + self.prompts.masks(masks, mask_given)
        tokens, flat = decoder.transformer(image, self.grid, tokens, seen)
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
        side = self.grid.shape[-1]
        upscale_8, norm, _, upscale_4, _ = self.decoder.output_upscaling
        x = flat.transpose(1, 2).reshape(len(flat), -1, side, side)
        x = F.gelu(norm(upscale_8(x) + fine_8))
        return F.gelu(upscale_4(x) + fine_4)
