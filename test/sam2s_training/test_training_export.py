"""From a training to weights that load, with what is known of them."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import state_of, tiny, train

from sam2s_model import Prompt, StreamTracker, load_model
from sam2s_model.weights import read_metadata, verify
from sam2s_training.__main__ import main
from sam2s_training.checkpoint import CheckpointError
from sam2s_training.export import export_checkpoint
from sam2s_training.scores import SCORES_NAME, note_scores, read_scores

# One worker, so that the run that they share is made once.
pytestmark = pytest.mark.xdist_group("export_run")
FIGURES = {
    "targets": 3,
    **dict.fromkeys(("j", "f", "absence_recall", "absence_precision", "reidentified"), 0.5),
    **dict.fromkeys(("recovery_frames", "wrong_instance", "top1")),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    phases = [{"name": "clips", "steps": 2, "image_size": 96}]
    train(tiny(phases=phases), folder)
    return folder


def test_exported_weights_track_and_say_where_they_are_from(run, tmp_path):
    note = {"memory": "divemem", "prompt": "click1", "shard": "1/1"}
    note_scores(run / SCORES_NAME, 2, note, {"val-short": {**FIGURES, "jf": 0.8125}})
    note_scores(run / SCORES_NAME, 1, note, {"val-short": {**FIGURES, "jf": 0.25}})
    path = export_checkpoint(run, tmp_path / "weights.safetensors")
    metadata = read_metadata(path)
    assert metadata["preset"] == "nano"
    assert metadata["image_size"] == "96"
    assert metadata["text_bank"] == "bank-minilm"
    assert metadata["recipe"] == "tiny"
    assert metadata["steps"] == metadata["clips"] == "2"
    assert len(metadata["recipe_hash"]) == 12
    assert float(metadata["log.loss"]) > 0
    assert metadata["score.val-short.divemem.click1"] == "81.2"
    assert verify(path).preset == "nano"
    model = load_model(path)
    assert model.config.image_size == 96
    assert model.text_bank is not None
    ema = state_of(run).ema
    assert all(torch.equal(tensor, ema[name]) for name, tensor in model.state_dict().items())
    tracker = StreamTracker(model)
    tracker.add_target("a", Prompt(points=[[20, 20]], labels=[1]))
    result = tracker.step(np.zeros((64, 80, 3), np.uint8))
    assert result["a"].mask.shape == (64, 80)


def test_half_precision_fits_what_may_be_shipped(run, tmp_path):
    path = export_checkpoint(run, tmp_path / "half.safetensors", "float16")
    assert path.stat().st_size < 12e6
    model, ema = load_model(path), state_of(run).ema
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == ema[name].dtype
        assert torch.allclose(tensor, ema[name], rtol=1e-3, atol=1e-6), name
    name = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert torch.equal(model.state_dict()[name], ema[name])


def test_by_default_beside_the_run(run):
    assert export_checkpoint(run).parent == run
    with pytest.raises(CheckpointError, match="neither a training checkpoint nor a run folder"):
        export_checkpoint(run / "overlays")


def test_of_several_checkpoints_the_mean_is_written(run, tmp_path):
    first = state_of(run)
    name = "sam_mask_decoder.iou_token.weight"
    later = dataclasses.replace(
        first, step=6, ema={**first.ema, name: first.ema[name] + 4.0}, row={}
    )
    later.save(tmp_path / "later" / "checkpoints", 1)
    out = tmp_path / "mean.safetensors"
    assert main(["export", str(run), str(tmp_path / "later"), "--out", str(out)]) == 0
    mean = load_model(out).state_dict()
    torch.testing.assert_close(mean.pop(name), first.ema[name] + 2.0)
    assert all(torch.equal(tensor, first.ema[key]) for key, tensor in mean.items())
    metadata = read_metadata(out)
    assert "mean over steps 2, 6 " in metadata["averaged"]
    assert metadata["steps"] == "6"
    assert not [key for key in metadata if key.startswith(("log.", "score."))]


@pytest.mark.parametrize("shape", [None, (1, 7)], ids=["missing", "another shape"])
def test_checkpoints_of_two_models_have_no_mean(run, tmp_path, shape):
    state, name = state_of(run), "sam_mask_decoder.iou_token.weight"
    ema = {key: tensor for key, tensor in state.ema.items() if key != name}
    if shape is not None:
        ema[name] = torch.zeros(shape)
    other = dataclasses.replace(state, ema=ema).save(tmp_path / "checkpoints", 1)
    with pytest.raises(CheckpointError, match=f"cannot be averaged: {name} is "):
        export_checkpoint([other, run], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_scores_of_one_kind_are_replaced(tmp_path):
    path = tmp_path / SCORES_NAME
    note = {"memory": "divemem", "prompt": "click1", "shard": "1/1"}
    for jf, how in ((0.25, note), (0.5, note), (0.75, {**note, "memory": "sam2"})):
        note_scores(path, 7, how, {"smoke": {**FIGURES, "jf": jf}})
    assert [(row["memory"], row["jf"], row["top1"]) for row in read_scores(path)] == [
        ("divemem", "0.50000", ""),
        ("sam2", "0.75000", ""),
    ]
