"""Several clicks on a new target: drawn one by one where the model's configuration says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sam2s_model import ModelConfig, Prompt, StreamTracker
from sam2s_model.batch import MaskPrompts, prompt_batch
from sam2s_model.config import PRESETS
from sam2s_model.prompt import drawn_before
from sam2s_model.random_weights import lively_model
from sam2s_model.runtime.eager import EagerRuntime

IN_TURN = ModelConfig.preset("nano", image_size=64)
AT_ONCE = dataclasses.replace(IN_TURN, clicks_in_turn=False)
CLICKS = [[50.0, 40.0], [70.0, 30.0], [20.0, 80.0], [60.0, 60.0]]
LABELS = [1, 0, 1, 1]


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def clicks(count: int) -> Prompt:
    return Prompt(points=CLICKS[:count], labels=LABELS[:count])


def tracked(
    config: ModelConfig, frame: NDArray[np.uint8], *prompts: Prompt
) -> tuple[torch.Tensor, ...]:
    """The logits of each target, prompted on the first frame, there and on the next."""
    tracker = StreamTracker(lively_model(config))
    for n, prompt in enumerate(prompts):
        tracker.add_target(f"{n}", prompt)
    results = [tracker.step(frame), tracker.step(frame)]
    return tuple(
        torch.stack([result[f"{n}"].low_res_logits for result in results])
        for n in range(len(prompts))
    )


def test_nano_alone_takes_clicks_in_turn():
    assert [name for name, config in PRESETS.items() if config.clicks_in_turn] == ["nano"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_click_is_drawn_over_the_mask_before(count: int, frame: NDArray[np.uint8]):
    runtime = EagerRuntime(lively_model(IN_TURN))
    with torch.inference_mode():
        features = runtime.encode_image(frame)
        conditioned = runtime.unconditioned(features)
        over = None
        for taken in (1, 2, 3) if count > 3 else range(1, count + 1):
            prompt = clicks(count if taken == 3 else taken)
            drawn = runtime.decode(
                features, conditioned, prompt_batch([prompt], over, 128, 96, runtime)
            )
            before = drawn_before(drawn.logits, 16)
            over = MaskPrompts(before, before, torch.ones(1, dtype=torch.bool))
    first = tracked(IN_TURN, frame, clicks(count))[0][0]
    torch.testing.assert_close(first, drawn.logits[0, 0])
    assert float((first - tracked(AT_ONCE, frame, clicks(count))[0][0]).abs().max()) > 0.01


def test_targets_with_more_and_fewer_clicks_do_not_disturb_each_other(frame: NDArray[np.uint8]):
    mask = np.zeros((96, 128), np.bool_)
    mask[20:50, 30:70] = True
    prompts = [clicks(3), Prompt(mask=mask), clicks(1), clicks(2), Prompt(box=[10, 10, 60, 50])]
    together = tracked(IN_TURN, frame, *prompts)
    for got, prompt in zip(together, prompts, strict=True):
        torch.testing.assert_close(got, tracked(IN_TURN, frame, prompt)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "prompt",
    [
        clicks(1),
        Prompt(points=CLICKS[1:3], labels=LABELS[1:3]),
        Prompt(points=CLICKS[:2], labels=LABELS[:2], box=[10, 10, 90, 80]),
    ],
    ids=["one click", "first beside the target", "with a box"],
)
def test_other_prompts_are_one_pass(prompt: Prompt, frame: NDArray[np.uint8]):
    assert prompt.in_turn() == [prompt]
    assert torch.equal(tracked(IN_TURN, frame, prompt)[0], tracked(AT_ONCE, frame, prompt)[0])


def test_what_corrects_a_known_target_is_one_pass(frame: NDArray[np.uint8]):
    drawn = []
    for config in (IN_TURN, AT_ONCE):
        tracker = StreamTracker(lively_model(config))
        tracker.add_target("a", clicks(1))
        tracker.step(frame)
        tracker.add_target("a", clicks(3))
        drawn.append(tracker.step(frame)["a"].low_res_logits)
    assert torch.equal(*drawn)
