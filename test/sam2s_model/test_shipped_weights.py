"""The weights that come with the package: small, sound, described, and better than chance."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2s_model import ModelConfig, StreamTracker, load_model
from sam2s_model.evaluation.protocol import first_prompt
from sam2s_model.random_weights import lively_model
from sam2s_model.synth.suites import load_suite
from sam2s_model.tracker_parameters import USUAL, track_settings
from sam2s_model.weights import resolve, verify

ROOT = Path(__file__).parents[2]
FRAMES = 20
CLIPS = 3  # one alone is a matter of luck: its figure may fall by 0.05 while the suite's rises
FLOOR = 0.7  # mean IoU that the shipped weights must reach on these frames


@pytest.fixture(scope="module")
def path() -> Path:
    return resolve("nano")


@cache
def beginnings() -> list[list[tuple[NDArray[np.uint8], NDArray[np.int32]]]]:
    """The first frames of val-short's first clips, with their ids."""
    clips = [known.open(cache=False) for known in load_suite("val-short").clips[:CLIPS]]
    return [[(clip.frame(n), clip.masks(n)) for n in range(FRAMES)] for clip in clips]


def mean_iou(tracker: StreamTracker) -> float:
    """Click every target once, and track it over the first frames."""
    scores = []
    for frames in beginnings():
        tracker.reset()
        ids = frames[0][1]
        targets = [int(target) for target in np.unique(ids) if target]
        for target in targets:
            tracker.add_target(str(target), first_prompt("click1", ids == target)[0])
        for number, (frame, ids) in enumerate(frames):
            result = tracker.step(frame)
            for target in targets:
                drawn, true = result[str(target)].mask, ids == target
                either = np.count_nonzero(drawn | true)
                if number and true.any():
                    scores.append(np.count_nonzero(drawn & true) / either)
    return float(np.mean(scores))


def test_one_click_is_tracked_far_better_than_chance():
    track = track_settings(USUAL)  # as in the node
    chance_model = lively_model(ModelConfig.preset("nano"), seed=0)
    reached = mean_iou(StreamTracker(load_model("nano"), track=track))
    chance = mean_iou(StreamTracker(chance_model, track=track))
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
