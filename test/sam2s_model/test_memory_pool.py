"""Pooled memories: made of averaged features, told apart by the middles of the averaged squares."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from sam2s_model import ModelConfig, Sam2s
from sam2s_model.config import ConfigError
from sam2s_model.layers import image_position, rotary_table
from sam2s_model.model import MemoryBatch
from sam2s_model.random_weights import lively_model

CPU = torch.device("cpu")
POOLED = ModelConfig.preset("nano", image_size=128)


def half_as_large(model: Sam2s) -> Sam2s:
    """The same weights for images half as large, and memories that are not pooled."""
    side = model.config.image_size // 2
    other = Sam2s(dataclasses.replace(model.config, image_size=side, memory_pool=1))
    other.load_state_dict(model.state_dict())
    return other.eval()


def test_places_are_the_middles_of_squares() -> None:
    cos, sin = rotary_table(8, 4, CPU, 2)
    # The first pair of each half turns by 1 a cell: x of four squares, then their y.
    torch.testing.assert_close(cos[:, 0], torch.tensor([0.5, 2.5, 0.5, 2.5]).cos())
    torch.testing.assert_close(sin[:, 2], torch.tensor([0.5, 0.5, 2.5, 2.5]).sin())
    place = image_position(8, 4, CPU, 2)
    assert place.shape == (8, 2, 2)
    # Coordinates run from 1 to the size over 2π; the first square's middle lies at 1.5.
    wave = (torch.tensor([1.5, 3.5]) / 4 * 2 * torch.pi).sin()
    torch.testing.assert_close(place[0, :, 0], wave, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(place[4, 0], wave, atol=1e-5, rtol=1e-5)


def test_a_memory_is_made_from_averaged_features() -> None:
    """It is the memory that an image half as large would leave."""
    model = lively_model(POOLED, seed=4)
    features = model.encode_image(torch.randn(1, 3, 128, 128))
    args = (features, torch.randn(2, 1, 32, 32), torch.ones(2), torch.tensor([True, False]))
    halved = features._replace(coarse=F.avg_pool2d(features.coarse, 2))
    other = half_as_large(model)
    with torch.no_grad():
        pooled = model.encode_memory(*args)
        same = other.encode_memory(halved, *args[1:])
    assert pooled.shape == (2, 16, 32)
    torch.testing.assert_close(pooled, same, atol=1e-5, rtol=1e-4)


def test_where_a_memory_lies_decides_what_attends_to_it() -> None:
    """A square moved to another place is another memory."""
    model = lively_model(POOLED, seed=4)
    torch.manual_seed(0)
    features = model.encode_image(torch.randn(1, 3, 128, 128))
    spatial = torch.randn(1, 2, 16, 32)
    batch = MemoryBatch(
        spatial, torch.tensor([[6, 0]]), torch.randn(1, 2, 128), torch.ones(1, 2), None
    )
    with torch.no_grad():
        here = model.attend_memory(features, batch).features
        moved = batch._replace(spatial=spatial.roll(1, dims=2))
        there = model.attend_memory(features, moved).features
    assert (here - there).abs().max() > 1e-3


@pytest.mark.parametrize("pool", [0, 3, 16])
def test_a_pool_must_divide_the_features(pool: int) -> None:
    with pytest.raises(ConfigError, match=rf"memory_pool is {pool}; .* divide the 8 cells"):
        ModelConfig.preset("nano", image_size=128, memory_pool=pool)


def test_only_nano_pools() -> None:
    pools = {n: ModelConfig.preset(n).memory_pool for n in ("nano", "tiny", "base_plus", "large")}
    assert pools == {"nano": 2, "tiny": 1, "base_plus": 1, "large": 1}
