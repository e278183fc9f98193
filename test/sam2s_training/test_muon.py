"""Muon: orthogonal steps for matrices, AdamW's for the rest, and a state that resumes."""

import pytest
import torch
from tiny import log_of, same_tensors, state_of, tiny, train
from torch import nn

from sam2s_model.config import ModelConfig
from sam2s_model.model import Sam2s
from sam2s_training import muon, optim
from sam2s_training.recipe import OptimSettings
from sam2s_training.schema import RecipeError

MUON = {"optim": {"kind": "muon"}}


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 64), (1, 96, 20)])
def test_orthogonal_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrices = left @ torch.diag(torch.linspace(70.0, 7.0, min(shape[1:]))) @ right
    out = muon.orthogonal(matrices)
    assert out.shape == matrices.shape
    # The directions stay: U and V of the matrix bring the result to a diagonal.
    inner = left.mT @ out @ right.mT
    values = inner.diagonal(dim1=1, dim2=2)
    assert (inner - torch.diag_embed(values)).abs().max() < 1e-3
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_matrices_are_told_from_heads_norms_and_depthwise_kernels():
    assert muon.suits(torch.zeros(64, 128))
    assert muon.suits(torch.zeros(32, 16, 3, 3))
    for shape in ((128,), (4, 128), (128, 1, 7, 7), (1, 4, 3, 3)):
        assert not muon.suits(torch.zeros(shape))
    with torch.device("meta"):
        model = Sam2s(ModelConfig.preset("nano"))
    names = {p: name for name, p in model.named_parameters()}
    groups = optim.make_optimizer(model, OptimSettings(kind="muon")).param_groups
    kinds = {names[p]: group["orthogonal"] for group in groups for p in group["params"]}
    assert kinds.keys() == set(names.values())
    assert kinds["memory_attention.layers.0.linear1.weight"]
    assert kinds["image_encoder.trunk.blocks.3.attn.qkv.weight"]
    assert not kinds["memory_attention.layers.0.linear1.bias"]
    assert not kinds["semantic.cls"]
    assert not kinds["sam_mask_decoder.mask_tokens.weight"]
    share = sum(p.numel() for p, name in names.items() if kinds[name])
    assert share > 0.9 * sum(p.numel() for p in names)
    plain = optim.make_optimizer(model, OptimSettings()).param_groups
    assert not any(group["orthogonal"] for group in plain)


def test_a_step_has_the_length_of_adamws_and_shrinks_weights():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    before = layer.weight.detach().clone()
    optimizer = optim.make_optimizer(layer, OptimSettings(kind="muon", lr=0.01, weight_decay=0.1))
    optim.set_learning_rate(optimizer, 0.01)
    gradient = torch.randn(32, 64)
    layer.weight.grad, layer.bias.grad = gradient.clone(), torch.ones(32)
    bias = layer.bias.detach().clone()
    optimizer.step()
    moved = layer.weight.detach() - before * (1 - 0.01 * 0.1)
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.25)
    assert float((moved * gradient).sum()) < 0  # downhill
    assert torch.allclose(layer.bias.detach(), bias - 0.01, atol=1e-6)  # as AdamW begins
    assert torch.equal(layer.weight.grad, gradient)  # gradients are left as they were
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_what_has_no_gradient_stays():
    layer = nn.Linear(32, 32)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = optim.make_optimizer(layer, OptimSettings(kind="muon"))
    optimizer.step()
    assert same_tensors(before, dict(layer.named_parameters()))


def test_slices_are_the_training_that_was_never_stopped(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(tiny(**MUON), whole)
    for until in (2, 5, None):
        train(tiny(**MUON), cut, until_step=until)
    assert log_of(whole) == log_of(cut)
    a, b = state_of(whole), state_of(cut)
    assert same_tensors(a.model, b.model)
    assert same_tensors(a.optimizer, b.optimizer)
    assert "momentum" in a.optimizer["memory_attention.layers.0.linear1.weight"]
    assert "exp_avg" in a.optimizer["memory_attention.layers.0.linear1.bias"]


def test_a_phase_may_change_the_kind(tmp_path):
    """What is kept for matrices is started anew, everything else goes on."""
    phases = [
        {"name": "first", "steps": 2},
        {"name": "second", "steps": 2, **MUON},
        {"name": "third", "steps": 1},
    ]
    train(tiny(phases=phases), tmp_path, until_step=4)
    state = state_of(tmp_path).optimizer
    assert state["memory_attention.layers.0.linear1.weight"].keys() == {"momentum"}
    assert int(state["memory_attention.layers.0.linear1.bias"]["step"]) == 4
    train(tiny(phases=phases), tmp_path)
    state = state_of(tmp_path).optimizer
    assert int(state["memory_attention.layers.0.linear1.weight"]["step"]) == 1
    assert int(state["memory_attention.layers.0.linear1.bias"]["step"]) == 5


def test_an_unknown_kind_is_refused():
    with pytest.raises(RecipeError, match="muon"):
        tiny(optim={"kind": "moun"})
