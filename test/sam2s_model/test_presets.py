"""Every preset with every memory policy in every precision: it tracks, and its shapes are right."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from builders import IOU_BIAS, OBJECT_BIAS, click, clip, lively_model, prompts, set_bias

from sam2s_model import ModelConfig, Sam2s, StreamTracker, TrackState
from sam2s_model.bank import EMPTY
from sam2s_model.config import MEMORY_POLICIES, PRESETS
from sam2s_model.model import MemoryBatch
from sam2s_model.runtime.eager import PRECISIONS

PARAMETERS = {  # millions, as published; nano must stay under 6
    "tiny": 38.9,
    "small": 46.0,
    "base_plus": 80.8,
    "large": 224.4,
}


@lru_cache(maxsize=1)  # the tests come preset by preset
def model_of(preset: str) -> Sam2s:
    torch.manual_seed(0)
    model = Sam2s(ModelConfig.preset(preset, image_size=64)).eval()
    set_bias(model, OBJECT_BIAS, 5.0)
    set_bias(model, IOU_BIAS, 2.0)
    return model


def track(preset: str, policy: str, precision: str) -> list[np.ndarray]:
    """Logits of all targets on each of three frames, checked for what must hold anywhere."""
    tracker = StreamTracker(model_of(preset), policy, precision=precision)
    config = tracker.config
    for name in ("click", "box", "mask"):
        tracker.add_target(name, prompts()[name])
    logits = []
    for n, frame in enumerate(clip(3)):
        result = tracker.step(frame)
        assert list(result) == ["click", "box", "mask"]
        for target in result.values():
            assert target.low_res_logits.shape == (config.mask_size, config.mask_size)
            assert target.low_res_logits.dtype == torch.float32
            assert torch.isfinite(target.low_res_logits).all()
            assert target.logits.shape == (60, 80)
            assert target.state is TrackState.TRACKING
            assert 0.8 < target.iou <= 1
        for kept in tracker.state_dict()["targets"].values():
            bank = kept["bank"]
            assert bank["spatial"].shape[1:] == (config.memory_size**2, config.memory_dim)
            assert bank["pointers"].shape[1] == config.hidden_dim
            assert {frame for frame in bank["frames"] if frame != EMPTY} == set(range(n + 1))
        logits.append(np.stack([target.logits for target in result.values()]))
    return logits


# All combinations of the small presets; of the others each precision, as they take seconds.
SMALL_PRESETS = ("nano", "tiny")
CASES = [
    pytest.param(preset, policy, precision, marks=pytest.mark.xdist_group(preset))
    for preset in PRESETS
    for policy in MEMORY_POLICIES
    for precision in PRECISIONS
    if preset in SMALL_PRESETS or (policy, precision) in (("efp", "fp32"), ("divemem", "bf16"))
]


@pytest.mark.parametrize(("preset", "policy", "precision"), CASES)
def test_every_preset_tracks_with_every_policy_in_every_precision(
    preset: str, policy: str, precision: str
) -> None:
    logits = track(preset, policy, precision)
    exact = fp32_logits(preset)
    for one, other in zip(logits, exact, strict=True):
        if precision == "fp32" and policy != "sam2":
            assert np.array_equal(one, other)  # policies agree while there is nothing to choose
        elif precision == "fp32":  # and but for SAM 2's rounding of memories
            assert np.abs(one - other).max() < 1e-3
        else:
            assert not np.array_equal(one, other)
            assert np.abs(one - other).mean() < 0.15 * other.std()


@lru_cache(maxsize=1)
def fp32_logits(preset: str) -> list[np.ndarray]:
    return track(preset, "divemem", "fp32")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_published_size(preset: str) -> None:
    own = ("semantic.", "long_term_tpos_enc")
    with torch.device("meta"):
        model = Sam2s(ModelConfig.preset(preset))
    counts = {name: p.numel() for name, p in model.named_parameters()}
    millions = sum(n for name, n in counts.items() if not name.startswith(own)) / 1e6
    if preset == "nano":
        assert sum(counts.values()) <= 6e6
    else:
        assert millions == pytest.approx(PARAMETERS[preset], rel=0.01)


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_do_not_depend_on_the_input_size(preset: str) -> None:
    with torch.device("meta"):
        shapes = [
            {
                k: v.shape
                for k, v in Sam2s(ModelConfig.preset(preset, image_size=s)).state_dict().items()
            }
            for s in (256, 512, 1024)
        ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("size", [64, 96, 160, 256, 288])
def test_any_allowed_input_size_tracks(size: int) -> None:
    """Also those that no attention window divides."""
    model = lively_model(image_size=size)
    tracker = StreamTracker(model)
    tracker.add_target("a", click())
    for frame in clip(3):
        target = tracker.step(frame)["a"]
        assert target.low_res_logits.shape == (size // 2, size // 2)
        assert torch.isfinite(target.low_res_logits).all()


def test_the_same_weights_take_another_input_size() -> None:
    small = lively_model(image_size=64)
    small.has_semantics = False
    large = small.with_image_size(128)
    assert large.config.image_size == 128
    assert not large.has_semantics
    assert all(torch.equal(a, b) for a, b in zip(
        small.state_dict().values(), large.state_dict().values(), strict=True
    ))  # fmt: skip
    with torch.no_grad():
        large.no_mem_embed.add_(1)
    assert not torch.equal(small.no_mem_embed, large.no_mem_embed)


def test_a_model_that_has_tracked_can_still_be_trained() -> None:
    """As training does that evaluates between epochs; at a size that no other test uses."""
    model = lively_model(image_size=192)
    tracker = StreamTracker(model)
    tracker.add_target("a", click())
    for frame in clip(2):
        tracker.step(frame)
    model.train()
    cells, width = model.config.memory_size**2, model.config.memory_dim
    features = model.encode_image(torch.randn(1, 3, 192, 192))
    memory = MemoryBatch(
        spatial=torch.randn(1, 2, cells, width),
        role=torch.tensor([[0, 1]]),
        pointers=torch.randn(1, 2, model.config.hidden_dim),
        distance=torch.ones(1, 2),
        seen=None,
    )
    model.attend_memory(features, memory).features.sum().backward()
    gradient = model.get_parameter("image_encoder.trunk.patch_embed.proj.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
