"""Learning rates by layer, the schedule, and averaged weights."""

import itertools

import pytest
import torch
from torch import nn

from sam2s_model.config import PRESETS, ModelConfig
from sam2s_model.model import Sam2s
from sam2s_training import optim
from sam2s_training.recipe import OptimSettings


def model_of(preset):
    with torch.device("meta"):
        return Sam2s(ModelConfig.preset(preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_is_in_one_group_with_its_own_rate(preset):
    settings = OptimSettings(lr=1.0, trunk_lr=0.5, layer_decay=0.9, new_lr=4.0)
    model = model_of(preset)
    names = {p: name for name, p in model.named_parameters()}
    rates = {}
    for group in optim.make_optimizer(model, settings).param_groups:
        for parameter in group["params"]:
            assert names[parameter] not in rates
            rates[names[parameter]] = group["factor"]
    assert rates.keys() == {name for name, _ in model.named_parameters()}
    blocks = sum(ModelConfig.preset(preset).stages)
    trunk = "image_encoder.trunk."
    assert rates[f"{trunk}blocks.{blocks - 1}.norm1.weight"] == 0.5
    assert rates[f"{trunk}blocks.{blocks - 2}.norm1.weight"] == pytest.approx(0.5 * 0.9)
    assert rates[f"{trunk}blocks.0.norm1.weight"] == pytest.approx(0.5 * 0.9 ** (blocks - 1))
    assert rates[f"{trunk}patch_embed.proj.weight"] == pytest.approx(0.5 * 0.9**blocks)
    assert rates[f"{trunk}pos_embed"] == pytest.approx(0.5 * 0.9**blocks)
    assert rates["semantic.cls"] == rates["long_term_tpos_enc"] == 4.0
    assert rates["maskmem_tpos_enc"] == rates["image_encoder.neck.convs.0.conv.weight"] == 1.0


def test_weight_decay_spares_norms_biases_and_embeddings():
    model = model_of("nano")
    decayed = {name for name, p in model.named_parameters() if optim.is_decayed(name, p)}
    rest = {name for name, _ in model.named_parameters()} - decayed
    assert "image_encoder.trunk.patch_embed.proj.weight" in decayed
    assert "memory_attention.layers.0.linear1.weight" in decayed
    assert not any(name.endswith(("bias", "norm1.weight")) for name in decayed)
    assert rest > {
        "semantic.cls",
        "semantic.log_scale",
        "maskmem_tpos_enc",
        "long_term_tpos_enc",
        "no_mem_embed",
        "no_obj_ptr",
        "image_encoder.trunk.pos_embed",
        "sam_prompt_encoder.point_embeddings.0.weight",
        "sam_mask_decoder.mask_tokens.weight",
    }


def test_the_rate_rises_then_follows_a_cosine():
    settings = OptimSettings(lr=2.0, warmup=4, lr_end=0.1)
    rates = [optim.learning_rate(settings, step, 24) for step in range(25)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[14] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way down
    assert rates[24] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    assert optim.learning_rate(settings, 99, 24) == pytest.approx(0.2)


def test_groups_follow_the_rate_by_their_factors():
    model = model_of("nano")
    optimizer = optim.make_optimizer(model, OptimSettings(new_lr=3.0))
    optim.set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5, 1.5}


def step_of(model, optimizer, value):
    optimizer.zero_grad()
    sum((p * value).sum() for p in model.parameters()).backward()
    optimizer.step()


def test_another_grouping_takes_the_optimisers_state_over():
    """A phase may change layer decay; Adam's moments must go on as if it had not."""
    torch.manual_seed(0)
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    b.load_state_dict(a.state_dict())
    first = optim.make_optimizer(a, OptimSettings())
    for value in (1.0, -2.0):
        step_of(a, first, value)
    state = optim.optimizer_state(first, optim.named_parameters(a))
    b.load_state_dict(a.state_dict())
    # The same rates and decays, in one group a parameter.
    second = torch.optim.AdamW(
        [
            {"params": [p], "factor": 1.0, "weight_decay": 0.05 if p.ndim > 1 else 0.0}
            for p in reversed(list(b.parameters()))
        ],
        lr=1e-3,
        fused=True,
    )
    optim.load_optimizer_state(second, optim.named_parameters(b), state)
    step_of(a, first, 0.5)
    step_of(b, second, 0.5)
    assert torch.equal(a.weight, b.weight)
    assert torch.equal(a.bias, b.bias)


def test_a_state_of_other_parameters_is_refused():
    a, b = nn.Linear(3, 2), nn.Linear(4, 2)
    optimizer = optim.make_optimizer(a, OptimSettings())
    step_of(a, optimizer, 1.0)
    state = optim.optimizer_state(optimizer, optim.named_parameters(a))
    other = optim.make_optimizer(b, OptimSettings())
    with pytest.raises(optim.OptimizerStateError, match="weight"):
        optim.load_optimizer_state(other, optim.named_parameters(b), state)
    with pytest.raises(optim.OptimizerStateError, match="bias"):
        optim.load_optimizer_state(other, {"weight": a.weight}, state)


def test_the_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = optim.Ema(model, 0.5)
    nn.init.constant_(model.weight, 3.0)
    ema.update(model)  # the first decays are lower: (1 + 1) / (10 + 1)
    first = 1.0 * (2 / 11) + 3.0 * (9 / 11)
    assert float(ema.weights["weight"]) == pytest.approx(first)
    ema.updates = 10**6
    ema.update(model)
    assert float(ema.weights["weight"]) == pytest.approx((first + 3.0) / 2)
    assert model.weight.item() == 3.0
    other = optim.Ema(model, 0.5)
    other.load(ema.weights, ema.updates)
    assert other.updates == ema.updates
    assert torch.equal(other.weights["weight"], ema.weights["weight"])
