"""The weights that come with the package: small, sound, described, and better than chance."""

from pathlib import Path

import numpy as np
import pytest

from sam2s_model import ModelConfig, StreamTracker, load_model
from sam2s_model.evaluation.protocol import first_prompt
from sam2s_model.random_weights import lively_model
from sam2s_model.synth.suites import load_suite
from sam2s_model.weights import resolve, verify

ROOT = Path(__file__).parents[2]
FRAMES = 20
FLOOR = 0.65  # mean IoU that the shipped weights must reach on this clip


@pytest.fixture(scope="module")
def path() -> Path:
    return resolve("nano")


def mean_iou(tracker: StreamTracker) -> float:
    """Click every target of val-short's first clip once, and track it over the first frames."""
    clip = load_suite("val-short").clips[0].open(cache=False)
    ids = clip.masks(0)
    for target in clip.targets:
        tracker.add_target(str(target), first_prompt("click1", ids == target)[0])
    scores = []
    for number in range(FRAMES):
        result, ids = tracker.step(clip.frame(number)), clip.masks(number)
        for target in clip.targets:
            drawn, true = result[str(target)].mask, ids == target
            either = np.count_nonzero(drawn | true)
            if number and true.any():
                scores.append(np.count_nonzero(drawn & true) / either)
    return float(np.mean(scores))


def test_one_click_is_tracked_far_better_than_chance():
    reached = mean_iou(StreamTracker(load_model("nano")))
    chance = mean_iou(StreamTracker(lively_model(ModelConfig.preset("nano"), seed=0)))
    print(f"mean IoU {reached:.3f}, random weights {chance:.3f}")
    assert reached >= FLOOR
    assert reached >= 3 * chance


def test_the_file_is_small_sound_and_says_what_made_it(path: Path):
    assert path.stat().st_size <= 12_000_000
    report = verify(path)
    assert (report.preset, report.absent) == ("nano", ())
    metadata = report.metadata
    assert metadata["image_size"] == "256"
    assert metadata["text_bank"] == "bank-minilm"
    assert metadata["recipe"] == "nano"
    assert int(metadata["steps"]) > 0


def test_the_card_speaks_of_this_very_file(path: Path):
    card = (ROOT / "docs" / "nano.md").read_text(encoding="utf-8")
    assert verify(path).sha256 in card
    assert "clinical" in card
