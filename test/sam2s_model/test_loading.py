"""From a file to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sam2s_model import ModelConfig, Sam2s, load_model
from sam2s_model.weights import save_weights
from sam2s_model.weights.verification import verify


def test_the_bank_that_weights_were_trained_with_gives_their_width(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = Sam2s(ModelConfig.preset("nano", semantic_dim=512))
    path = tmp_path / "wide.safetensors"
    save_weights(path, wide.state_dict(), {"preset": "nano", "image_size": "192"})
    model = load_model(path)
    assert (model.config.semantic_dim, model.config.image_size) == (512, 192)
    for name, tensor in wide.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], tensor)
    assert verify(path).preset == "nano"


def test_weights_without_class_vectors_keep_the_presets_width(tmp_path: Path) -> None:
    model = Sam2s(ModelConfig.preset("nano"))
    tensors = {n: t for n, t in model.state_dict().items() if not n.startswith("semantic.")}
    path = tmp_path / "plain.safetensors"
    save_weights(path, tensors, {"preset": "nano"})
    assert load_model(path).config.semantic_dim == ModelConfig.preset("nano").semantic_dim
