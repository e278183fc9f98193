"""The losses on cases small enough to work out by hand."""

import math

import pytest
import torch

from sam2s_training.losses import (
    LossSettings,
    LossSettingsError,
    border,
    confident,
    dice_loss,
    entropy_weight,
    focal_loss,
    grouping_loss,
    presence_loss,
    semantic_loss,
    soft_target,
    true_iou,
    unnamed_loss,
)

LN2 = math.log(2)


def test_focal_of_an_undecided_pixel():
    # p = 0.5: cross-entropy ln 2, hardness 0.25, and alpha or 1 - alpha by side.
    logits = torch.zeros(1, 1, 2)
    target = torch.tensor([[[1.0, 0.0]]])
    expected = (0.25 * 0.25 * LN2 + 0.75 * 0.25 * LN2) / 2
    assert focal_loss(logits, target).item() == pytest.approx(expected)


def test_focal_hardly_counts_what_is_right():
    p = 0.9
    logits = torch.full((1, 1, 1), math.log(p / (1 - p)))
    expected = 0.25 * (1 - p) ** 2 * -math.log(p)
    assert focal_loss(logits, torch.ones(1, 1, 1)).item() == pytest.approx(expected, rel=1e-4)


def test_focal_is_smallest_at_a_soft_target():
    target = torch.full((1, 1, 1), 0.3)
    at = {
        p: focal_loss(torch.full((1, 1, 1), math.log(p / (1 - p))), target).item()
        for p in (0.1, 0.3, 0.5)
    }
    assert at[0.3] == pytest.approx(0.0, abs=1e-9)
    assert min(at.values()) == at[0.3]


def test_focal_weight_scales_pixels():
    logits, target = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    weight = torch.tensor([[[1.0, 0.0]]])
    assert focal_loss(logits, target, weight) == pytest.approx(focal_loss(logits, target) / 2)


def test_dice_by_hand():
    # drawn 0.5 + 0.5, target 1 + 0: 1 - (2 * 0.5 + 1) / (1 + 1 + 1)
    logits, target = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    assert dice_loss(logits, target).item() == pytest.approx(1 - 2 / 3)


def test_dice_of_a_sure_right_mask_is_nothing():
    target = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert dice_loss(target * 200 - 100, target).item() == pytest.approx(0.0, abs=1e-6)


def test_dice_leaves_out_what_has_no_weight():
    target = torch.tensor([[[1.0, 0.0, 1.0]]])
    logits = torch.tensor([[[100.0, -100.0, -100.0]]])
    weight = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert dice_loss(logits, target, weight).item() == pytest.approx(0.0, abs=1e-5)
    assert dice_loss(logits, target).item() > 0.2


def test_a_weight_of_one_changes_no_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 8, generator=generator)
    target = (torch.rand(3, 8, 8, generator=generator) > 0.5).float()
    ones = torch.ones_like(logits)
    torch.testing.assert_close(dice_loss(logits, target, ones), dice_loss(logits, target))
    torch.testing.assert_close(focal_loss(logits, target, ones), focal_loss(logits, target))


def test_true_iou_counts_pixels():
    logits = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]])
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert true_iou(logits, target).item() == pytest.approx(1 / 3)
    assert true_iou(-torch.ones(1, 2, 2), torch.zeros(1, 2, 2)).item() == 1.0


def test_presence_is_cross_entropy():
    score = torch.tensor([0.0, 2.0])
    present = torch.tensor([True, False])
    expected = [LN2, math.log(1 + math.exp(2.0))]
    assert presence_loss(score, present).tolist() == pytest.approx(expected, rel=1e-5)


def test_absent_frames_may_count_more():
    score = torch.tensor([0.4, 0.4])
    present = torch.tensor([True, False])
    one, three = presence_loss(score, present), presence_loss(score, present, 3.0)
    assert three.tolist() == pytest.approx([one[0].item(), 3 * one[1].item()])


def test_who_is_present_at_odds_is_undecided():
    # Present three times in four, absences counted three times: best at a score of 0.
    score = torch.zeros(4, requires_grad=True)
    presence_loss(score, torch.tensor([True, True, True, False]), 3.0).sum().backward()
    assert score.grad is not None
    assert score.grad.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_grouping_by_hand():
    # One target and the rest, a place each, with features at right angles: each place has cosine 1
    # with its own mean and 0 with the other.
    features = torch.tensor([[[3.0, 0.0]], [[0.0, 0.5]]])
    mask = torch.tensor([[[1.0, 0.0]]])
    expected = math.log(1 + math.exp(-2.0))
    assert grouping_loss(features, mask, temperature=0.5).item() == pytest.approx(expected)


def test_grouping_of_features_all_alike_is_a_guess():
    masks = torch.eye(3)[:2, None]  # two targets, a place each; the third is the rest
    assert grouping_loss(torch.ones(4, 1, 3), masks).item() == pytest.approx(math.log(3))


def test_grouping_counts_small_targets_like_large_ones():
    # The target's single place is like the rest's mean; the rest's nine places are right.
    features = torch.zeros(2, 1, 10)
    features[0] = 1.0
    masks = torch.zeros(1, 1, 10)
    masks[..., 0] = 1.0
    alike = grouping_loss(features, masks)
    features[:, 0, 0] = torch.tensor([0.0, 1.0])
    apart = grouping_loss(features, masks)
    assert alike.item() == pytest.approx(LN2)
    assert apart.item() < 0.01


def test_grouping_leaves_out_a_target_that_is_not_there():
    features = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 2, 2)
    mask[0, 0] = 1.0
    with_absent = torch.cat((mask, torch.zeros(1, 2, 2)))
    assert grouping_loss(features, with_absent) == pytest.approx(
        grouping_loss(features, mask).item()
    )


def test_border_is_a_band_on_both_sides():
    mask = torch.zeros(1, 1, 9)
    mask[..., :4] = 1
    # Radius 2 takes the last two pixels inside and the first two outside.
    assert border(mask, 2).tolist() == [[[0, 0, 1, 1, 1, 1, 0, 0, 0]]]


def test_entropy_weight_is_full_where_the_border_is_not():
    logits = torch.zeros(1, 1, 1, 3)  # undecided everywhere: one bit of entropy
    region = torch.tensor([[[1.0, 0.0, 1.0]]])
    assert entropy_weight(logits, region).flatten().tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    p = 0.25
    bits = -(p * math.log2(p) + (1 - p) * math.log2(1 - p))
    weight = entropy_weight(torch.full((1, 1, 1, 3), math.log(p / (1 - p))), region)
    assert weight.flatten().tolist() == pytest.approx([1 - bits, 1, 1 - bits], rel=1e-5)


def test_entropy_weight_gives_no_gradient():
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    assert not entropy_weight(logits, torch.ones(1, 2, 2)).requires_grad


def test_soft_target_of_an_edge_is_half_at_the_edge():
    mask = torch.zeros(1, 9, 20)
    mask[..., :10] = 1
    soft = soft_target(mask, 1.5)
    # The edge lies between pixels 9 and 10, so the two are as far from one half as each other.
    torch.testing.assert_close(soft[0, 4, 9] + soft[0, 4, 10], torch.tensor(1.0))
    assert soft[0, 4, 0] == pytest.approx(1.0)
    assert soft[0, 4, 19] == pytest.approx(0.0, abs=1e-6)
    assert (soft[0, 4, :-1] >= soft[0, 4, 1:] - 1e-6).all()
    torch.testing.assert_close(soft[:, 0], soft[:, 4])  # the picture's rim changes nothing


def test_semantic_loss_by_hand():
    text = torch.eye(2)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    classes = torch.tensor([0, 0, -1])
    loss = semantic_loss(vectors, text, torch.tensor(0.0), classes)
    right = math.log(math.e + 1) - 1  # scores 1 and 0, the first is right
    assert loss.tolist() == pytest.approx([right, right + 1, 0.0])


def test_unnamed_loss_by_hand():
    text = torch.eye(2)
    between = torch.tensor([0.5, 0.5]).sqrt()
    vectors = torch.stack((between, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])))
    loss = unnamed_loss(vectors, text, torch.tensor(0.0))
    # Scores 1 and 0: the mean of ln(1 + e) - 1 and ln(1 + e), less ln 2.
    one = math.log(1 + math.e) - 0.5 - LN2
    assert loss.tolist() == pytest.approx([0.0, one, one], abs=1e-6)


def test_semantics_count_on_confident_frames_alone():
    settings = LossSettings(semantic_iou=0.5, semantic_presence=0.5)
    iou = torch.tensor([0.9, 0.4, 0.9])
    score = torch.tensor([1.0, 1.0, -1.0])
    assert confident(iou, score, settings).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ambiguity": "entropie"}, "entropy"),
        ({"scale": 3}, "1, 2 or 4"),
        ({"focal": -1.0}, "focal"),
        ({"unnamed": -1.0}, "unnamed"),
        ({"absent": 0.0}, "absent"),
        ({"border_radius": 0}, "border_radius"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(LossSettingsError, match=message):
        LossSettings(**change)
