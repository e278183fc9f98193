"""The loop: it resumes exactly, stops when told, and refuses what does not belong together."""

import csv
import os
import signal
import threading
import time

import pytest
import torch
from tiny import log_of, same_tensors, state_of, tiny, train

from sam2s_model.config import ModelConfig
from sam2s_model.model import Sam2s
from sam2s_model.random_weights import lively_weights
from sam2s_model.textbank import TextBank, TextBankError, find_bank
from sam2s_model.weights import read_state_dict, save_weights
from sam2s_training.data.errors import DataError
from sam2s_training.schema import RecipeError
from sam2s_training.start import ForeignWeightsError, fresh_model
from sam2s_training.trainer import DivergedError, ForeignCheckpointError

PHASES = [
    {"name": "pictures", "steps": 2, "data": {"sampler": {"consecutive": 0}}},
    {"name": "clips", "steps": 4, "optim": {"accumulate": 2, "lr": 0.0005}},
]


def same_state(a, b):
    assert a.step == b.step
    assert a.clips == b.clips
    assert same_tensors(a.model, b.model)
    assert same_tensors(a.ema, b.ema)
    assert same_tensors(a.optimizer, b.optimizer)


def test_slices_are_the_training_that_was_never_stopped(tmp_path):
    """Stopped within a phase, at its end, and within a row of the log; clips made otherwise."""
    changes = {"phases": PHASES, "log": {"every": 2}}
    whole = train(tiny(**changes), tmp_path / "whole")
    assert (whole.step, whole.reason) == (6, "done")
    for until in (1, 2, 3):
        outcome = train(tiny(**changes), tmp_path / "cut", until_step=until)
        assert (outcome.step, outcome.reason) == (until, "step")
    ahead = {**changes, "data": {"loader": {"ahead": "thread"}}}
    assert train(tiny(**ahead), tmp_path / "cut").done
    same_state(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))
    rows = log_of(tmp_path / "whole")
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert rows == log_of(tmp_path / "cut")


def test_training_changes_the_weights_and_the_averages_follow(tmp_path):
    recipe = tiny(phases=[{"name": "clips", "steps": 2}])
    train(recipe, tmp_path)
    before, after = fresh_model(recipe).state_dict(), state_of(tmp_path)
    name = "sam_mask_decoder.mask_tokens.weight"
    moved, followed = (after.model[name] - before[name]).norm(), after.ema[name] - before[name]
    assert moved > 0
    assert 0 < followed.norm() < moved


def test_a_finished_training_has_nothing_to_do(tmp_path):
    recipe = tiny(phases=[{"name": "clips", "steps": 1}])
    train(recipe, tmp_path)
    first = state_of(tmp_path)
    assert train(recipe, tmp_path).done
    same_state(first, state_of(tmp_path))


def test_micro_steps_add_up_to_a_batch(tmp_path):
    phases = [{"name": "clips", "steps": 2}]
    train(tiny(phases=phases, optim={"batch": 2}), tmp_path / "batch")
    train(tiny(phases=phases, optim={"accumulate": 2}), tmp_path / "steps")
    for a, b in zip(log_of(tmp_path / "batch"), log_of(tmp_path / "steps"), strict=True):
        for name in ("loss", "focal", "dice", "presence", "grad_norm"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3), name


def test_a_time_limit_leaves_a_checkpoint(tmp_path):
    outcome = train(tiny(), tmp_path, minutes=0.0)
    assert (outcome.step, outcome.reason) == (0, "time")
    assert train(tiny(), tmp_path, minutes=1e-4).step in (0, 1)
    assert state_of(tmp_path).step <= 1


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_with_a_checkpoint(tmp_path, kind):
    log = tmp_path / "log.csv"

    def send():
        while not log.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), kind)

    thread = threading.Thread(target=send)
    thread.start()
    before = signal.getsignal(kind)
    outcome = train(tiny(phases=[{"name": "clips", "steps": 1000}]), tmp_path)
    thread.join()
    assert outcome.reason == "signal"
    assert 0 < outcome.step < 1000
    assert state_of(tmp_path).step == outcome.step
    assert signal.getsignal(kind) == before


def test_rows_after_the_checkpoint_are_made_anew(tmp_path):
    train(tiny(), tmp_path, until_step=2)
    rows = log_of(tmp_path)
    with (tmp_path / "log.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["3", "clips", "3", "0.1", "99", "99"])
        file.write("4,cli")  # a crash within a line
    train(tiny(), tmp_path, until_step=3)
    assert log_of(tmp_path)[:2] == rows
    assert [row["step"] for row in log_of(tmp_path)] == ["1", "2", "3"]
    assert log_of(tmp_path)[2]["loss"] != "99"


def test_a_changed_recipe_is_refused_unless_accepted(tmp_path):
    train(tiny(), tmp_path, until_step=1)
    other = tiny(optim={"lr": 0.0625})
    with pytest.raises(ForeignCheckpointError, match=r"optim\.lr: 0\.001 -> 0\.0625") as error:
        train(other, tmp_path)
    assert "--accept-changes" in str(error.value)
    assert train(other, tmp_path, until_step=2, accept_changes=True).step == 2
    # From now on the new settings are those of the run.
    assert train(other, tmp_path, until_step=3).step == 3


def test_a_checkpoint_of_another_preset_is_refused(tmp_path):
    train(tiny(), tmp_path, until_step=1)
    other = tiny(model={"preset": "tiny", "text_bank": "bank-minilm"})
    with pytest.raises(ForeignCheckpointError, match="is of a 'nano' model"):
        train(other, tmp_path, accept_changes=True)


def test_weights_of_another_preset_are_refused_before_the_first_step(tmp_path):
    path = tmp_path / "nano.safetensors"
    save_weights(path, Sam2s(ModelConfig.preset("nano")).state_dict(), {"preset": "nano"})
    with pytest.raises(ForeignWeightsError, match=r"holds weights of 'nano'.*'tiny'"):
        train(tiny(model={"preset": "tiny", "weights": str(path)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_begins_with_the_given_weights(tmp_path):
    weights = lively_weights(ModelConfig.preset("nano"), seed=3)  # without SAM2S's own tensors
    path = tmp_path / "sam2.safetensors"
    save_weights(path, weights, {"preset": "nano"})
    recipe = tiny(model={"weights": str(path)})
    model = fresh_model(recipe)
    assert same_tensors({k: model.state_dict()[k] for k in weights}, weights)
    assert torch.equal(model.long_term_tpos_enc, model.maskmem_tpos_enc[-1:])
    train(recipe, tmp_path / "run", until_step=1)
    assert "semantic.cls" in state_of(tmp_path / "run").model


def test_a_text_bank_of_another_width_renews_the_class_token(tmp_path):
    """Such as CLIP's: weights made with one bank may begin a training with another."""
    path = tmp_path / "nano.safetensors"
    save_weights(path, Sam2s(ModelConfig.preset("nano")).state_dict(), {"preset": "nano"})
    bank = TextBank.load(find_bank("bank-minilm"))
    narrow = bank.embeddings[:, :10] / (bank.embeddings[:, :10] ** 2).sum(1, keepdims=True) ** 0.5
    other = TextBank(bank.names, bank.kinds, narrow, "narrow").save(tmp_path / "narrow.npz")
    recipe = tiny(model={"weights": str(path), "text_bank": str(other)})
    train(recipe, tmp_path / "run", until_step=1)
    trained = state_of(tmp_path / "run").model
    assert trained["semantic.project.weight"].shape == (10, 128)
    start = fresh_model(recipe).state_dict()
    kept = read_state_dict(path)
    assert torch.equal(start["no_obj_ptr"], kept["no_obj_ptr"])
    assert not torch.equal(start["semantic.cls"], kept["semantic.cls"])


def test_a_bank_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TextBankError, match="did you mean 'bank-minilm'"):
        train(tiny(model={"text_bank": "bank-minlm"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_of_a_later_phase_are_checked_before_the_first_step(tmp_path):
    later = {"parts": {"endoscope": None, "mine": {"folder": {"root": str(tmp_path / "none")}}}}
    phases = [{"name": "a", "steps": 1}, {"name": "b", "steps": 1, "data": later}]
    with pytest.raises((DataError, RecipeError), match="none"):
        train(tiny(phases=phases), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_autocast_and_recomputation(tmp_path):
    """bfloat16 trains near the full precision's loss; recomputed activations change nothing."""
    phases = [{"name": "clips", "steps": 1}]
    train(tiny(phases=phases), tmp_path / "full")
    train(tiny(phases=phases, unroll={"checkpoint": True}), tmp_path / "again")
    train(tiny(phases=phases, optim={"precision": "bfloat16"}), tmp_path / "half")
    full, again, half = (log_of(tmp_path / name)[0] for name in ("full", "again", "half"))
    assert float(again["loss"]) == pytest.approx(float(full["loss"]), rel=1e-5)
    assert float(again["grad_norm"]) == pytest.approx(float(full["grad_norm"]), rel=1e-3)
    assert float(half["loss"]) != float(full["loss"])
    assert float(half["loss"]) == pytest.approx(float(full["loss"]), rel=0.1)
    assert all(t.dtype == torch.float32 for t in state_of(tmp_path / "half").model.values())


def test_gradients_without_end_are_left_out_and_then_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2s_training.trainer.MOST_SKIPPED", 2)
    train(tiny(), tmp_path, until_step=1)
    recipe = tiny(losses={"focal": 1e38, "dice": 1e38})
    before = state_of(tmp_path).model
    outcome = train(recipe, tmp_path, until_step=2, accept_changes=True)
    assert outcome.step == 2
    assert state_of(tmp_path).skipped == 1
    assert same_tensors(before, state_of(tmp_path).model)
    with pytest.raises(DivergedError, match="2 steps in a row"):
        train(recipe, tmp_path, accept_changes=True)


def test_pictures_and_averaged_weights_are_written_on_the_way(tmp_path):
    log = {"overlays": 2, "export": 2, "checkpoint_minutes": 0.0, "keep": 1}
    train(tiny(log=log, phases=[{"name": "clips", "steps": 3}]), tmp_path)
    assert [p.name for p in (tmp_path / "overlays").iterdir()] == ["step-00000002.jpg"]
    names = sorted(p.name for p in (tmp_path / "weights").iterdir())
    assert names == ["step-00000002.safetensors", "step-00000003.safetensors"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
