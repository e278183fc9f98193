"""Masks at stride 2: SAM 2's, enlarged before one of the four is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2s_model import ModelConfig, Prompt, StreamTracker
from sam2s_model.config import PRESETS, ConfigError
from sam2s_model.model import PromptBatch, Sam2s
from sam2s_model.prompt import drawn_before
from sam2s_model.random_weights import lively_model

FINE = ModelConfig.preset("nano", image_size=64)
PLAIN = dataclasses.replace(FINE, mask_stride=4)


def test_nano_draws_at_stride_2_and_sam2s_presets_at_stride_4():
    for name, config in PRESETS.items():
        stride = 2 if name == "nano" else 4
        assert config.mask_size * stride == config.image_size
        assert config.prompt_mask_size * 4 == config.image_size


@pytest.mark.parametrize("stride", [0, 1, 3, 8])
def test_another_stride_is_refused(stride: int):
    with pytest.raises(ConfigError, match=f"mask_stride is {stride}; it must be 2 or 4"):
        ModelConfig.preset("nano", mask_stride=stride)


def drawn(model: Sam2s) -> torch.Tensor:
    """All four masks of three clicked targets."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    click = PromptBatch(
        xy=torch.tensor([[[30.0, 30.0]], [[10.0, 50.0]], [[45.0, 20.0]]]),
        labels=torch.ones(3, 1, dtype=torch.long),
        masks=None,
        mask_given=torch.zeros(3, dtype=torch.bool),
        ambiguous=torch.ones(3, dtype=torch.bool),
        padded=False,
    )
    with torch.no_grad():
        features = model.encode_image(image)
        conditioned = model.unconditioned(features).expand(3, -1, -1, -1)
        return model.draw(features, conditioned, click).logits


def test_the_masks_are_those_of_stride_4_enlarged():
    fine, plain = lively_model(FINE, seed=2), lively_model(PLAIN, seed=2)
    expected = F.interpolate(drawn(plain), scale_factor=2.0, mode="bilinear", align_corners=False)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(drawn(fine), expected)


def test_weights_are_the_same_for_both_strides():
    fine = Sam2s(FINE)
    assert fine.load_sam2(lively_model(PLAIN).state_dict()) == []


def test_a_correction_takes_the_mask_before_averaged_to_stride_4():
    logits = torch.full((1, 1, 32, 32), -1024.0)
    logits[:, :, :2, :2] = 8.0
    logits[:, :, 2:4, :1] = 8.0
    before = drawn_before(logits, FINE.prompt_mask_size)
    assert before.shape == (1, 1, 16, 16)
    assert float(before[0, 0, 0, 0]) == 8.0
    assert float(before[0, 0, 1, 0]) == -12.0  # two cells of 8, two of -32
    assert float(before[0, 0, 5, 5]) == -32.0
    assert torch.equal(drawn_before(logits, 32), logits.clamp_min(-32.0))


def test_masks_clicks_and_corrections_are_tracked_at_stride_2():
    tracker = StreamTracker(lively_model(FINE))
    frame = np.random.default_rng(4).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    mask = np.zeros((96, 128), dtype=np.bool_)
    mask[21:60, 31:70] = True
    tracker.add_target("given", Prompt(mask=mask))
    tracker.add_target("clicked", Prompt(points=[[50, 40]], labels=[1]))
    result = tracker.step(frame)
    assert result["given"].low_res_logits.shape == (32, 32)
    assert (result["given"].mask == mask).mean() > 0.98
    tracker.step(frame)
    tracker.add_target("clicked", Prompt(points=[[60, 50]], labels=[0]))
    assert tracker.step(frame)["clicked"].low_res_logits.shape == (32, 32)
