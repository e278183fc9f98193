"""Simulated prompts and corrections."""

import numpy as np
import pytest
import torch

from sam2s_model.prompt import ABSENT, NEGATIVE, NOT_A_POINT, POSITIVE
from sam2s_training.prompts import (
    BOX,
    CLICK,
    MASK,
    Dice,
    PromptSettings,
    PromptSettingsError,
    boxes,
    clicks,
    corrections,
    first_frame,
    frames_to_correct,
    kind_of_prompt,
    point_tokens,
)


def square(size: int, top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


def dice(count: int, seed: int = 0) -> list[Dice]:
    return [Dice(seed + i) for i in range(count)]


def test_clicks_lie_in_their_regions_and_everywhere_in_them():
    region = square(32, 4, 20, 6).expand(400, -1, -1)
    x, y = clicks(region, PromptSettings(middle=0.0), dice(400)).long().T
    assert region[0, y, x].all()
    assert len(set(zip(x.tolist(), y.tolist(), strict=True))) > 30  # of 36 pixels


def test_clicks_in_the_middle_lie_deep():
    region = square(64, 10, 20, 15).expand(50, -1, -1)
    xy = clicks(region, PromptSettings(middle=1.0), dice(50))
    # The middle is (27, 17); erosions of 1, 2 and 4 leave one pixel, and 8 would leave none.
    assert xy.tolist() == [[27.0, 17.0]] * 50


def test_the_picture_ends_a_region():
    region = square(16, 0, 0, 16)
    xy = clicks(region, PromptSettings(middle=1.0), dice(1))
    assert ((xy >= 7) & (xy <= 8)).all()


def test_corrections_go_into_the_larger_error():
    truth = square(32, 4, 4, 10)
    less = truth & ~square(32, 4, 4, 5)
    more = truth | square(32, 20, 20, 8)
    drawn = torch.cat((less, more, truth))
    xy, labels, wrong = corrections(truth.expand(3, -1, -1), drawn, PromptSettings(), dice(3))
    assert wrong.tolist() == [True, True, False]
    assert labels[:2].tolist() == [POSITIVE, NEGATIVE]
    x, y = xy.long().T
    assert (truth[0] & ~less[0])[y[0], x[0]]
    assert (more[0] & ~truth[0])[y[1], x[1]]


def test_boxes_end_where_masks_end():
    mask = square(32, 4, 20, 6)
    exact = boxes(mask, PromptSettings(box_jitter=0.0), dice(1))
    assert exact.tolist() == [[[20.0, 4.0], [26.0, 10.0]]]
    moved = boxes(mask.expand(200, -1, -1), PromptSettings(box_jitter=0.1), dice(200))
    offset = moved - exact
    assert offset.std() == pytest.approx(0.6, rel=0.2)
    assert offset.abs().max() <= 1.2 + 1e-5


def test_prompts_follow_their_shares():
    settings = PromptSettings(click=3, box=1, mask=0)
    drawn = [kind_of_prompt(settings, Dice(seed)) for seed in range(400)]
    assert drawn.count(MASK) == 0
    assert drawn.count(CLICK) / 400 == pytest.approx(0.75, abs=0.07)
    assert drawn.count(BOX) == 400 - drawn.count(CLICK)


def test_the_first_prompt_comes_where_the_target_is_seen():
    never_late = PromptSettings(late=0.0)
    assert first_frame([True] * 4, never_late, Dice(0)) == 0
    assert first_frame([False, True, True], never_late, Dice(0)) == 1
    assert first_frame([False] * 3, never_late, Dice(0)) == 3
    late = {
        first_frame([True, False, True, True, True], PromptSettings(late=1.0), Dice(s))
        for s in range(40)
    }
    assert late == {2, 3}  # not the last one: something must be left to track


def test_corrected_frames_are_later_ones_and_few():
    settings = PromptSettings(correct=1.0, max_corrected=2)
    drawn = [frames_to_correct(settings, 8, Dice(seed)) for seed in range(100)]
    assert {len(frames) for frames in drawn} == {1, 2}
    assert set().union(*drawn) == set(range(1, 8))
    assert frames_to_correct(settings, 1, Dice(0)) == set()


def test_tokens_end_as_the_tracker_ends_them():
    xy = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(0, 2)]
    labels = [torch.tensor([1, 0]), torch.zeros(0).long()]
    places, kinds = point_tokens(xy, labels, ABSENT, torch.device("cpu"))
    assert kinds.tolist() == [[1, 0, NOT_A_POINT], [NOT_A_POINT, NOT_A_POINT, ABSENT]]
    assert places[0, :2].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_the_same_seed_draws_the_same():
    region = torch.from_numpy(np.random.default_rng(0).random((4, 32, 32)) > 0.5)
    settings = PromptSettings()
    torch.testing.assert_close(clicks(region, settings, dice(4)), clicks(region, settings, dice(4)))


@pytest.mark.parametrize("change", [{"click": 0, "box": 0, "mask": 0}, {"late": 1.5}, {"box": -1}])
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(PromptSettingsError):
        PromptSettings(**change)
