"""Temporal semantics: class vectors, their smoothing, `unknown`, and weights without them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import click, clip, lively_model, small_bank

from sam2s_model import ModelConfig, Prompt, Sam2s, StreamTracker, TextBank, TrackSettings
from sam2s_model.model import CheckpointMismatchError
from sam2s_model.runtime.base import RuntimeUnavailableError
from sam2s_model.textbank import TextBankError

FRAMES = clip(12)
BANK = small_bank()  # hook and scissors are its instruments, along the first and third axis


@pytest.fixture
def model() -> Sam2s:
    return lively_model()


def say(model: Sam2s, *direction: float) -> None:
    """Make every class vector point this way from now on."""
    vector = torch.zeros(model.config.semantic_dim)
    vector[: len(direction)] = torch.tensor(direction)
    with torch.no_grad():
        model.semantic.project.weight.zero_()
        model.semantic.project.bias.copy_(vector)


HOOK, SCISSORS, BETWEEN = (1.0,), (0.0, 0.0, 1.0), (1.0, 0.0, 1.0)


def started(model: Sam2s, **options: Any) -> StreamTracker:
    tracker = StreamTracker(model, **options)
    tracker.add_target("a", click())
    tracker.step(FRAMES[0])
    return tracker


def test_masks_do_not_depend_on_class_vectors(model: Sam2s) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.semantic.parameters():
            parameter.add_(torch.randn_like(parameter))
    trackers = [
        started(model),
        started(model, text_bank=BANK),
        started(other, text_bank=BANK),
    ]
    scores = []
    for frame in FRAMES[1:7]:
        plain, named, others = (tracker.step(frame)["a"] for tracker in trackers)
        for result in (named, others):
            assert torch.equal(result.low_res_logits, plain.low_res_logits)
            assert (result.iou, result.object_score) == (plain.iou, plain.object_score)
        scores.append((named.label_scores, others.label_scores))
    assert all(one != other for one, other in scores)


def test_the_class_vector_comes_from_memory_and_frame(model: Sam2s) -> None:
    """Targets with other memories, and other frames, have other vectors."""
    tracker = started(model, text_bank=BANK)
    tracker.add_target("b", Prompt(box=[45, 20, 75, 55]))
    seen = [tracker.step(frame) for frame in FRAMES[1:5]]
    assert seen[2]["a"].label_scores != seen[2]["b"].label_scores
    assert seen[1]["a"].label_scores != seen[2]["a"].label_scores


def test_without_a_text_bank_every_class_is_unknown(model: Sam2s) -> None:
    say(model, *HOOK)
    target = started(model).step(FRAMES[1])["a"]
    assert (target.label, dict(target.label_scores)) == ("unknown", {})


def test_the_class_is_the_instrument_nearest_to_the_vector(model: Sam2s) -> None:
    for direction, name in ((HOOK, "hook"), (SCISSORS, "scissors")):
        say(model, *direction)
        target = started(model, text_bank=BANK).step(FRAMES[1])["a"]
        assert target.label == name
        assert list(target.label_scores) == ["hook", "scissors"]  # no tissue
        assert sum(target.label_scores.values()) == pytest.approx(1)
        scale = model.semantic.log_scale.exp().item()
        sure = np.exp(scale) / (np.exp(scale) + 1)  # cosines of 1 and 0
        assert target.label_scores[name] == pytest.approx(sure, abs=1e-4)


def test_a_target_has_no_class_on_its_first_frame(model: Sam2s) -> None:
    say(model, *HOOK)
    tracker = StreamTracker(model, text_bank=BANK)
    tracker.add_target("a", click())
    target = tracker.step(FRAMES[0])["a"]
    assert (target.label, dict(target.label_scores)) == ("unknown", {})


def test_scores_are_smoothed_over_time(model: Sam2s) -> None:
    tracker = started(model, text_bank=BANK, track=TrackSettings(label_momentum=0.75))
    say(model, *HOOK)
    sure = tracker.step(FRAMES[1])["a"].label_scores["hook"]
    say(model, *SCISSORS)
    expected, labels = sure, []
    for frame in FRAMES[2:7]:
        target = tracker.step(frame)["a"]
        expected = 0.75 * expected + 0.25 * (1 - sure)
        assert target.label_scores["hook"] == pytest.approx(expected, abs=1e-5)
        labels.append(target.label)
    assert labels == ["hook", "hook", "scissors", "scissors", "scissors"]


def test_without_momentum_only_the_last_frame_counts(model: Sam2s) -> None:
    tracker = started(model, text_bank=BANK, track=TrackSettings(label_momentum=0.0))
    for direction, name in ((HOOK, "hook"), (SCISSORS, "scissors"), (HOOK, "hook")):
        say(model, *direction)
        assert tracker.step(FRAMES[1])["a"].label == name


def test_a_class_that_is_not_likely_enough_is_unknown(model: Sam2s) -> None:
    say(model, *BETWEEN)
    tracker = started(model, text_bank=BANK, track=TrackSettings(label_threshold=0.6))
    target = tracker.step(FRAMES[1])["a"]
    assert target.label == "unknown"
    assert target.label_scores["hook"] == pytest.approx(0.5, abs=1e-4)


def test_the_bank_that_came_with_the_weights_is_used(model: Sam2s) -> None:
    say(model, *HOOK)
    model.text_bank = BANK
    assert started(model).step(FRAMES[1])["a"].label == "hook"


def test_a_bank_may_be_a_file(model: Sam2s, tmp_path: Path) -> None:
    say(model, *SCISSORS)
    path = BANK.save(tmp_path / "bank.npz")
    assert started(model, text_bank=path).step(FRAMES[1])["a"].label == "scissors"


def test_a_bank_of_another_width_is_refused(model: Sam2s) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"16 dimensions.*384"):
        StreamTracker(model, text_bank=small_bank(16, "other"))


def test_a_bank_without_instruments_is_refused(model: Sam2s) -> None:
    tissue = TextBank(("liver",), ("tissue",), np.eye(1, 384, dtype=np.float32), "test")
    with pytest.raises(TextBankError, match="no instrument"):
        StreamTracker(model, text_bank=tissue)


def test_scores_survive_a_snapshot(model: Sam2s) -> None:
    tracker = started(model, text_bank=BANK)
    say(model, *HOOK)
    tracker.step(FRAMES[1])
    again = StreamTracker(model, text_bank=BANK)
    again.load_state_dict(tracker.state_dict())
    say(model, *SCISSORS)
    ours, theirs = again.step(FRAMES[2])["a"], tracker.step(FRAMES[2])["a"]
    assert ours.label == "hook"
    assert ours.label_scores == theirs.label_scores


# --- weights without them ---------------------------------------------------------------------


def sam2_weights(model: Sam2s) -> dict[str, torch.Tensor]:
    """The tensors that a SAM 2.1 checkpoint has."""
    own = ("semantic.", "long_term_tpos_enc")
    return {k: v.clone() for k, v in model.state_dict().items() if not k.startswith(own)}


def fresh() -> Sam2s:
    torch.manual_seed(7)
    return Sam2s(ModelConfig.preset("nano", image_size=64)).eval()


def test_weights_of_sam2_track_with_unknown_classes(model: Sam2s) -> None:
    plain = fresh()
    lacking = plain.load_sam2(sam2_weights(model))
    own = {k for k in plain.state_dict() if k.startswith(("semantic.", "long_term_tpos_enc"))}
    assert set(lacking) == own
    tracker = started(plain, text_bank=BANK)
    reference = started(model)
    for frame in FRAMES[1:]:
        target = tracker.step(frame)["a"]
        assert (target.label, dict(target.label_scores)) == ("unknown", {})
        expected = reference.step(frame)["a"].low_res_logits
        assert torch.equal(target.low_res_logits, expected)


def test_the_long_term_embedding_starts_as_the_conditional_one(model: Sam2s) -> None:
    plain = fresh()
    weights = sam2_weights(model)
    plain.load_sam2(weights)
    assert torch.equal(plain.long_term_tpos_enc, weights["maskmem_tpos_enc"][-1:])
    with torch.no_grad():
        plain.long_term_tpos_enc.add_(1)  # a copy: training it leaves the other alone
    assert torch.equal(plain.maskmem_tpos_enc, weights["maskmem_tpos_enc"])


def test_weights_that_have_it_all_keep_it(model: Sam2s) -> None:
    with torch.no_grad():
        model.long_term_tpos_enc.add_(1)
    say(model, *HOOK)
    whole = fresh()
    assert whole.load_sam2(model.state_dict()) == []
    assert torch.equal(whole.long_term_tpos_enc, model.long_term_tpos_enc)
    assert started(whole, text_bank=BANK).step(FRAMES[1])["a"].label == "hook"


def test_long_term_embedding_without_class_vectors_is_kept_too(model: Sam2s) -> None:
    weights = sam2_weights(model) | {"long_term_tpos_enc": torch.ones(1, 1, 1, 32)}
    plain = fresh()
    assert all(name.startswith("semantic.") for name in plain.load_sam2(weights))
    assert (plain.long_term_tpos_enc == 1).all()


@pytest.mark.parametrize("what", ["missing", "unexpected", "shape", "preset"])
def test_other_weights_are_refused_by_name_and_change_nothing(model: Sam2s, what: str) -> None:
    weights = sam2_weights(model)
    words = {
        "missing": ["1 missing", "no_mem_embed", "SAM 2.1 nano"],
        "unexpected": ["1 unexpected", "head.weight"],
        "shape": ["no_mem_embed is (1, 1, 5) instead of (1, 1, 128)"],
        "preset": ["not those of a 'nano' model", "unexpected", "image_encoder.trunk.blocks"],
    }[what]
    if what == "missing":
        del weights["no_mem_embed"]
    elif what == "unexpected":
        weights["head.weight"] = torch.zeros(1)
    elif what == "shape":
        weights["no_mem_embed"] = torch.zeros(1, 1, 5)
    else:
        tiny = Sam2s(ModelConfig.preset("tiny", image_size=64))
        weights = sam2_weights(tiny)
    plain = fresh()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    with pytest.raises(CheckpointMismatchError) as caught:
        plain.load_sam2(weights)
    for word in words:
        assert word in str(caught.value)
    assert all(torch.equal(before[name], t) for name, t in plain.state_dict().items())
