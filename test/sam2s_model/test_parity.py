"""SAM 2.1 exactly: the reference package runs beside this one on the same random weights."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sam2s_model import ModelConfig, Prompt, Sam2s, StreamTracker
from sam2s_model.config import MemorySettings
from sam2s_model.model import OWN_TENSORS
from sam2s_model.random_weights import lively_weights
from sam2s_model.reference import CONFIGS, ReferenceTracker
from sam2s_model.runtime.eager import scale_to_input

# Twice the work of any other test, on the same two cores.
pytestmark = [pytest.mark.reference, pytest.mark.timeout(900)]

HEIGHT, WIDTH = 400, 560
CLICK = Prompt(points=[[100, 120]], labels=[1])
BOX = Prompt(box=[350, 190, 470, 270])


def ellipse_mask() -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (280, 290), (60, 25), 20, 0, 360, 1, -1)
    return mask.astype(bool)


def clip(length: int) -> list[NDArray[np.uint8]]:
    """Three coloured shapes that move over a drifting, blurred background."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (HEIGHT + 200, WIDTH + 200, 3), dtype=np.uint8)
    ground = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX)
    frames = []
    for i in range(length):
        frame = ground[3 * i : 3 * i + HEIGHT, 4 * i : 4 * i + WIDTH].copy()
        cv2.circle(frame, (100 + 8 * i, 120 + 5 * i), 40, (220, 40, 40), -1)
        cv2.rectangle(frame, (360 - 6 * i, 200), (460 - 6 * i, 260), (40, 200, 60), -1)
        cv2.ellipse(frame, (280, 300 - 3 * i), (60, 25), 20 + 4 * i, 0, 360, (50, 60, 230), -1)
        frames.append(frame)
    return frames


def trackers(
    preset: str, size: int, memory: MemorySettings, seed: int = 0
) -> tuple[StreamTracker, ReferenceTracker]:
    config = ModelConfig.preset(preset, image_size=size)
    weights = lively_weights(config, seed)
    model = Sam2s(config)
    model.load_sam2(weights)
    return StreamTracker(model, memory), ReferenceTracker(preset, size, weights)


def compare(ours: StreamTracker, theirs: ReferenceTracker, frame: NDArray[np.uint8]) -> dict:
    result, expected = ours.step(frame), theirs.step(frame)
    assert set(result) == set(expected)
    for name, reference in expected.items():
        target = result[name]
        np.testing.assert_allclose(target.logits, reference.logits, atol=1e-3, rtol=0)
        assert target.object_score == pytest.approx(reference.object_score, abs=1e-4)
        assert target.iou == pytest.approx(reference.iou, abs=1e-4)
    return result


def test_tiny_clip_with_targets_that_come_are_corrected_and_go() -> None:
    ours, theirs = trackers("tiny", 512, MemorySettings.for_policy("sam2"))
    for number, frame in enumerate(clip(16)):
        for tracker in (ours, theirs):
            if number == 0:
                tracker.add_target("click", CLICK)
                tracker.add_target("box", BOX)
            if number == 5:
                tracker.add_target("mask", Prompt(mask=ellipse_mask()))
            if number == 8:
                tracker.add_target("click", Prompt(points=[[150, 170]], labels=[1]))
            if number == 12:
                tracker.remove_target("box")
        result = compare(ours, theirs, frame)
        assert all(target.object_score > 0 for target in result.values())
        if number == 10:  # memory matters: prompts of ten frames ago still tell targets apart
            for one, other in (("click", "box"), ("click", "mask"), ("box", "mask")):
                apart = np.count_nonzero(result[one].mask != result[other].mask)
                assert apart > 2000, f"{one} and {other} differ in {apart} pixels only"
    assert set(result) == {"click", "mask"}


def test_absent_targets_as_in_sam2() -> None:
    """With write_absent, frames without the target enter the memory as SAM 2 writes them."""
    settings = dataclasses.replace(MemorySettings.for_policy("sam2"), write_absent=True)
    ours, theirs = trackers("tiny", 256, settings)
    head = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
    networks = (ours.runtime.model.state_dict(), theirs.predictor.state_dict())  # type: ignore
    for number, frame in enumerate(clip(7)):
        for tracker in (ours, theirs):
            if number == 0:
                tracker.add_target("click", CLICK)
        if number in (2, 4):  # out of the picture on frames 2 and 3, and back
            for network in networks:
                network[head] += -20.0 if number == 2 else 20.0
        result = compare(ours, theirs, frame)
        assert (result["click"].object_score > 0) == (number not in (2, 3))
        assert result["click"].mask.any() == (number not in (2, 3))


@pytest.mark.parametrize("preset", ["small", "large"])
def test_other_presets(preset: str) -> None:
    ours, theirs = trackers(preset, 256, MemorySettings.for_policy("sam2"))
    for number, frame in enumerate(clip(3)):
        if number == 0:
            for tracker in (ours, theirs):
                tracker.add_target("click", CLICK)
        compare(ours, theirs, frame)


@pytest.mark.slow
def test_base_plus() -> None:
    ours, theirs = trackers("base_plus", 512, MemorySettings.for_policy("sam2"))
    for number, frame in enumerate(clip(8)):
        for tracker in (ours, theirs):
            if number == 0:
                tracker.add_target("click", CLICK)
                tracker.add_target("box", BOX)
            if number == 3:
                tracker.add_target("mask", Prompt(mask=ellipse_mask()))
        compare(ours, theirs, frame)


@pytest.mark.parametrize("preset", list(CONFIGS))
def test_state_dicts_have_the_same_tensors(preset: str) -> None:
    """At 512 and 1024; no tensor of the reference depends on the size."""
    from sam2.build_sam import build_sam2_video_predictor

    reference = build_sam2_video_predictor(CONFIGS[preset], device="cpu").state_dict()
    theirs = {name: tuple(tensor.shape) for name, tensor in reference.items()}
    for size in (512, 1024):
        model = Sam2s(ModelConfig.preset(preset, image_size=size))
        ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        extra = {name for name in ours if name.startswith(OWN_TENSORS)}
        assert {name: shape for name, shape in ours.items() if name not in extra} == theirs
        assert set(model.load_sam2(reference)) == extra
        for name, tensor in model.state_dict().items():
            if name not in extra:
                torch.testing.assert_close(tensor, reference[name], rtol=0, atol=0)


def test_frames_are_scaled_like_the_reference_loads_them(tmp_path) -> None:
    """Bicubic with antialiasing: two grey levels at most, in one of a hundred places at most."""
    from sam2.utils.misc import _load_img_as_tensor

    frame = clip(1)[0]
    cv2.imwrite(str(tmp_path / "frame.png"), frame[..., ::-1])
    expected, height, width = _load_img_as_tensor(tmp_path / "frame.png", 512)
    assert (height, width) == (HEIGHT, WIDTH)
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    levels = (scale_to_input(frame, 512, torch.device("cpu"))[0] * deviation + mean) * 255
    difference = (levels - 255 * expected).abs()
    assert difference.max() < 2.01
    assert (difference > 0.01).float().mean() < 0.01
