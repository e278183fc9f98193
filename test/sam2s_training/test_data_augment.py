"""Augmentation: the same change for pictures and masks, in all frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from clips import Squares, alike, square_clip

from sam2s_training.data.augment import AugmentedSource, AugmentSettings, augment, blur
from sam2s_training.data.clip import randomness
from sam2s_training.data.errors import DataSettingError

NOTHING = AugmentSettings(flip=0, flip_vertical=0, geometry=0, colour=0, grey=0, blur=0, noise=0)


def only(**changes: object) -> AugmentSettings:
    return dataclasses.replace(NOTHING, **changes)  # type: ignore[arg-type]


def colour(**changes: object) -> AugmentSettings:
    """Only the named changes of colour."""
    none = dict.fromkeys(
        ("brightness", "contrast", "saturation", "hue", "gamma", "tint", "shade", "flicker"), 0.0
    )
    return only(**{"colour": 1.0, **none, **changes})


def changed(settings: AugmentSettings, seed: int = 0):
    return augment(square_clip(), settings, np.random.default_rng(seed))


def red(images: torch.Tensor) -> torch.Tensor:
    """Where the bright square's colour is: [T, S, S]."""
    return (images[:, 0].int() - images[:, 2].int()) > 90


def test_nothing_changes_nothing() -> None:
    assert alike(changed(NOTHING), square_clip())


def test_flips_are_exact() -> None:
    clip = square_clip()
    mirrored = changed(only(flip=1.0))
    assert torch.equal(mirrored.images, clip.images.flip(-1))
    assert torch.equal(mirrored.masks, clip.masks.flip(-1))
    both = changed(only(flip=1.0, flip_vertical=1.0))
    assert torch.equal(both.images, clip.images.flip((-1, -2)))
    assert torch.equal(both.masks, clip.masks.flip((-1, -2)))
    halves = [alike(changed(only(flip=0.5), seed), clip) for seed in range(60)]
    assert 15 < sum(halves) < 45


def test_masks_follow_the_picture() -> None:
    for seed in range(20):
        clip = changed(AugmentSettings(geometry=1, colour=0, grey=0, blur=0, noise=0), seed)
        square = clip.masks[clip.classes.tolist().index(3)]
        agree = (square & red(clip.images)).sum((1, 2)) / (square | red(clip.images)).sum((1, 2))
        # Borders are interpolated in the picture and sharp in the mask.
        assert (agree > 0.75).all(), f"seed {seed}"


def test_geometry_is_one_for_all_frames() -> None:
    """Equal frames stay equal, and a square moving by 4 pixels still moves evenly."""
    still = square_clip()
    still = type(still)(
        still.images[:1].repeat(3, 1, 1, 1),
        still.masks[:, :1].repeat(1, 3, 1, 1),
        still.classes,
        still.name,
        still.numbers,
    )
    for seed in range(5):
        clip = augment(still, AugmentSettings(noise=0, flicker=0), np.random.default_rng(seed))
        for t in (1, 2):
            assert torch.equal(clip.images[0], clip.images[t])
            assert torch.equal(clip.masks[:, 0], clip.masks[:, t])


def test_shake_moves_frames_one_by_one() -> None:
    clip = changed(only(shake=0.03))
    centres = [torch.nonzero(mask).float().mean(0) for mask in clip.masks[0]]
    true = [torch.nonzero(mask).float().mean(0) for mask in square_clip().masks[0]]
    moved = torch.stack(centres) - torch.stack(true)
    assert moved.std(0).min() > 0.3
    assert moved.abs().max() < 64 * 0.03 * 5


def test_zoom_by_two_doubles_lengths() -> None:
    zoomed = changed(
        only(geometry=1.0, rotate=0, zoom=(2.0, 2.0), aspect=0, shear=0, shift=0), seed=1
    )
    # About the middle: rows 20..35 of 64 become 8..39, as 32 + 2 (y - 32).
    square = zoomed.masks[0, 2]
    rows = torch.nonzero(square.any(1)).ravel()
    assert (int(rows.min()), int(rows.max())) == (8, 39)
    assert int(square.any(1).sum()) == 32


def test_zoom_out_shows_black_without_targets() -> None:
    clip = changed(only(geometry=1.0, rotate=0, zoom=(0.5, 0.5), aspect=0, shear=0, shift=0))
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[15:49, 15:49] = False
    assert clip.images[:, :, outside].max() == 0
    assert not clip.masks[:, :, outside].any()
    assert int(clip.masks[1, 0].sum()) == 4 * 32  # the bar, 8 × 64 before


def test_targets_that_leave_the_first_frame_are_left_out() -> None:
    far = only(geometry=1.0, rotate=0, zoom=(3.0, 3.0), aspect=0, shear=0, shift=0)
    clip = changed(far)  # shows rows and columns 21 to 43: the square, not the bar
    assert clip.classes.tolist() == [3]
    assert len(clip.masks) == 1
    # Where none would stay, the geometry is kept.
    nothing_left = only(geometry=1.0, rotate=0, zoom=(30.0, 30.0), aspect=0, shear=0, shift=0)
    assert alike(changed(nothing_left), square_clip())


def test_more_targets_than_bits() -> None:
    clip = square_clip(frames=1)
    rows = torch.zeros(30, 1, 64, 64, dtype=torch.bool)
    for n in range(30):
        rows[n, 0, 2 * n : 2 * n + 2] = True
    many = type(clip)(clip.images, rows, torch.arange(30), clip.name, clip.numbers)
    turned = only(geometry=1.0, rotate=0, zoom=(1.0, 1.0), aspect=0, shear=0, shift=0)
    assert torch.equal(augment(many, turned, np.random.default_rng(0)).masks, rows)


def test_colour_leaves_masks_alone() -> None:
    clip = changed(AugmentSettings(flip=0, geometry=0, colour=1, blur=1, noise=1))
    assert torch.equal(clip.masks, square_clip().masks)
    assert not torch.equal(clip.images, square_clip().images)


def test_brightness_is_a_factor() -> None:
    settings = colour(brightness=0.5)
    factors = []
    for seed in range(30):
        levels = changed(settings, seed).images[:, :, 60, 60].float()  # 90 before
        assert levels.max() - levels.min() <= 1  # grey stays grey, and every frame is alike
        factors.append(float(levels[0, 0]) / 90)
    assert 1 / 1.5 - 0.01 <= min(factors) < 0.85
    assert 1.15 < max(factors) <= 1.5 + 0.01


def test_contrast_pivots_and_grey_has_no_colour() -> None:
    settings = colour(contrast=1.0)
    clip = square_clip()
    mean = type(clip)(
        torch.full_like(clip.images, 115), clip.masks, clip.classes, clip.name, clip.numbers
    )
    # 115 of 255 is the pivot: it stays while 90 moves.
    out = augment(mean, settings, np.random.default_rng(3)).images.float()
    assert (out - 115).abs().max() <= 1
    assert abs(float(changed(settings, 3).images[0, 0, 60, 60]) - 90) > 2
    grey = changed(only(grey=1.0)).images.int()
    assert (grey[:, 0] - grey[:, 2]).abs().max() <= 1
    # 0.299 R + 0.587 G + 0.114 B of (220, 60, 40) is 105.6.
    assert abs(int(grey[0, 0, 25, 12]) - 106) <= 1


def test_hue_keeps_grey() -> None:
    settings = colour(hue=90)
    clip = changed(settings, 1)
    assert (clip.images[:, :, 60, 60].int() - 90).abs().max() <= 1
    before = square_clip().images[0, :, 25, 12].int()
    assert (clip.images[0, :, 25, 12].int() - before).abs().max() > 10


def test_tint_is_a_factor_for_each_channel() -> None:
    gains = []
    for seed in range(20):
        images = changed(colour(tint=0.4), seed).images.float()
        assert (images - images[:1])[..., 53:, :].abs().max() <= 1  # in every frame alike
        gains.append(images[0, :, 60, 60] / 90)
        # The same factors for the square's colour (220, 60, 40) as for the grey ground.
        square = images[0, :, 25, 12] / torch.tensor([220.0, 60.0, 40.0])
        assert torch.allclose(square[1:], gains[-1][1:], atol=0.02)
    spread = torch.stack(gains)
    assert 1 / 1.4 - 0.02 <= spread.min() < 0.8
    assert 1.25 < spread.max() <= 1.4 + 0.02
    assert (spread[:, 0] - spread[:, 2]).abs().max() > 0.2  # and not one factor for all


def test_shade_takes_light_from_one_side() -> None:
    for seed in range(10):
        images = changed(colour(shade=0.6), seed).images.float()
        assert torch.equal(images[0, :, 53:], images[1, :, 53:])
        kept = images[0, :, 1:] / square_clip().images[0, :, 1:].float()
        assert kept.max() <= 1.02
        assert kept.min() >= 0.4 - 0.02
        # A corner lies farthest from the lit point, the opposite one nearer to it.
        corners = [float(kept[0, y, x]) for y in (0, -1) for x in (0, -1)]
        assert min(corners) == pytest.approx(float(kept.min()), abs=0.03)
    with pytest.raises(DataSettingError, match="below 1"):
        AugmentSettings(shade=1.0)


def test_a_round_picture_is_black_and_without_targets_outside_its_circle() -> None:
    before = square_clip()
    before = dataclasses.replace(before, images=before.images.clamp_min(1))
    settings, seen = only(round=0.5, round_radius=(0.6, 0.9)), set()
    for seed in range(40):
        clip = augment(before, settings, np.random.default_rng(seed))
        seen.add(alike(clip, before))
        if alike(clip, before):
            continue
        black = (clip.images == 0).all(1).all(0)  # the same in all frames
        assert bool(black[0, 0])
        assert bool(black[-1, -1])
        assert (
            1 - np.pi * 0.9**2 / 4 - 0.02
            < float(black.float().mean())
            < 1 - np.pi * 0.6**2 / 4 + 0.02
        )
        assert not bool((clip.masks & black).any())
        rest = ~black
        assert torch.equal(clip.images[:, :, rest], before.images[:, :, rest])
    assert seen == {True, False}


def test_a_target_outside_the_circle_is_left_out() -> None:
    clip = square_clip()
    corner = torch.zeros_like(clip.masks[:1])
    corner[:, :, :6, :6] = True
    classes = torch.cat((clip.classes, torch.tensor([7])))
    clip = dataclasses.replace(clip, masks=torch.cat((clip.masks, corner)), classes=classes)
    round_picture = only(round=1.0, round_radius=(0.9, 0.9), min_pixels=20)
    out = augment(clip, round_picture, np.random.default_rng(0))
    assert 7 not in out.classes.tolist()
    assert len(out.masks) == len(out.classes)


@pytest.mark.parametrize("name", ["zoom", "round_radius"])
def test_a_range_that_ends_before_it_begins_is_refused(name: str) -> None:
    with pytest.raises(DataSettingError, match=name):
        AugmentSettings(**{name: (1.2, 0.8)})  # type: ignore[arg-type]


def test_noise_has_its_strength() -> None:
    clip = changed(only(noise=1.0, noise_sigma=0.1), 5)
    error = (clip.images.float() - square_clip().images.float())[:, :, 53:, :] / 255
    assert 0.005 < float(error.std()) <= 0.1
    assert abs(float(error.mean())) < 0.005
    # Each frame has noise of its own.
    assert abs(float((error[0] * error[1]).mean() / error.std() ** 2)) < 0.1


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1.0
    out = blur(point, 2.0)[0, 0]
    assert float(out.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float(out[20, 20]) == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)
    offsets = torch.arange(41.0) - 20
    assert float((out.sum(0) * offsets**2).sum()) == pytest.approx(4.0, rel=0.05)
    # The border repeats: an even picture stays even.
    assert torch.allclose(blur(torch.ones(1, 3, 9, 9), 3.0), torch.ones(1, 3, 9, 9), atol=1e-5)


def test_a_source_is_augmented_the_same_every_time() -> None:
    source = AugmentedSource(Squares(), seed=4)
    first = [source.sample(i) for i in range(6)]
    for index in (5, 0, 3):
        assert alike(AugmentedSource(Squares(), seed=4).sample(index), first[index])
    assert not alike(AugmentedSource(Squares(), seed=5).sample(0), first[0])
    for index, clip in zip([4, 1], source.samples([4, 1]), strict=True):
        assert alike(clip, first[index])


def test_switching_one_change_off_leaves_the_others() -> None:
    quiet = AugmentSettings(noise=0.0, blur=0.0)
    loud = AugmentSettings(noise=1.0, blur=0.0)
    for seed in range(5):
        one, other = (augment(square_clip(), s, randomness(seed, 1)) for s in (quiet, loud))
        assert torch.equal(one.masks, other.masks)
        assert (one.images.float() - other.images.float()).abs().mean() < 12


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"flip": 2.0}, "flip"),
        ({"rotate": -1.0}, "rotate"),
        ({"zoom": (1.5, 0.5)}, "zoom"),
        ({"zoom": (0.0, 1.0)}, "zoom"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataSettingError, match=said):
        AugmentSettings(**wrong)  # type: ignore[arg-type]
