"""Simulated annotators: habits that last, borders that differ, targets that stay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from clips import Squares, alike, square_clip

from sam2s_training.data.annotators import AnnotatedSource, Annotator, AnnotatorSettings, annotate
from sam2s_training.data.errors import DataSettingError

SETTINGS = AnnotatorSettings()


def disc(radius: float, size: int = 128) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = (x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2
    return inside[None, None].repeat(1, 4, 1, 1)


def draw(masks: torch.Tensor, seed: int = 0, **habits: float) -> torch.Tensor:
    person = Annotator(**{"grow": 0.0, "smooth": 0.0, "jitter": 0.0, **habits})
    return annotate(masks, person, SETTINGS, np.random.default_rng(seed))


def radius(masks: torch.Tensor) -> float:
    """Radius of the disc of the same area."""
    return float((masks.sum() / masks.shape[1] / np.pi).sqrt())


def test_nobody_without_habits_changes_anything() -> None:
    assert torch.equal(draw(disc(30)), disc(30))


def test_growth_moves_the_border_by_its_length() -> None:
    for pixels in (-4.0, -2.0, 2.0, 4.0):
        drawn = draw(disc(30), grow=pixels / 128)
        assert radius(drawn) == pytest.approx(30 + pixels, abs=0.6)


def test_smoothing_rounds_corners_and_keeps_sides() -> None:
    square = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    square[..., 40:90, 40:90] = True
    drawn = draw(square, smooth=4 / 128)[0, 0]
    assert not drawn[40, 40]
    assert not drawn[89, 89]
    assert torch.equal(drawn[60:70], square[0, 0, 60:70])


def test_jitter_wavers_about_the_border() -> None:
    drawn = draw(disc(30), jitter=3 / 128)
    changed = drawn ^ disc(30)
    assert changed.any()
    assert radius(drawn) == pytest.approx(30, abs=1.0)
    # Nothing changes far from the border.
    assert not (changed & ~(disc(42) & ~disc(18))).any()
    # In and out.
    assert (drawn & ~disc(30)).any()
    assert (disc(30) & ~drawn).any()


def test_wavering_partly_lasts_from_frame_to_frame() -> None:
    def alikeness(per_frame: float) -> float:
        settings = dataclasses.replace(SETTINGS, per_frame=per_frame)
        person = Annotator(0.0, 0.0, 3 / 128)
        drawn = annotate(disc(30), person, settings, np.random.default_rng(0))
        error = (drawn ^ disc(30))[0].flatten(1).float()
        return float((error[0] * error[1]).sum() / error[0].sum())

    assert alikeness(0.0) == 1.0
    assert alikeness(0.5) > alikeness(1.0) + 0.1


def test_targets_never_vanish_nor_appear() -> None:
    masks = torch.zeros(2, 3, 128, 128, dtype=torch.bool)
    masks[0, :, 60] = True  # a line of one pixel
    masks[1, 1, 20:50, 20:50] = True  # absent in two frames
    for seed in range(4):
        drawn = draw(masks, seed, grow=-3 / 128, smooth=0.02, jitter=0.01)
        assert torch.equal(drawn[0], masks[0])
        assert torch.equal(drawn.flatten(2).any(2), masks.flatten(2).any(2))


def test_thin_parts_are_not_forgotten() -> None:
    lollipop = disc(20)
    lollipop[..., 63:65, 80:120] = True  # a stick of two pixels
    for seed in range(4):
        drawn = draw(lollipop, seed, grow=-3 / 128, jitter=1 / 128)
        assert radius(drawn[..., :80]) < 19
        # The stick is there but for what may be hidden in the annotator's inaccuracy.
        assert drawn[..., 63:65, 96:120].all()


def test_the_pictures_border_is_no_border() -> None:
    half = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    half[..., :64] = True
    drawn = draw(half, grow=-4 / 128)[0, 0]
    assert drawn[0, :58].all()
    assert drawn[:, 0].all()
    assert int(drawn[64].sum()) == 60


def test_people_differ_and_stay_themselves() -> None:
    people = [Annotator.number(k, SETTINGS, 0) for k in range(4)]
    assert len(set(people)) == 4
    assert [person.grow > 0 for person in people] == [True, False, True, False]
    assert people == [Annotator.number(k, SETTINGS, 0) for k in range(4)]
    for person in people:
        assert abs(person.grow) <= SETTINGS.grow
        assert person.jitter <= SETTINGS.jitter


def test_a_source_is_annotated_the_same_every_time() -> None:
    settings = AnnotatorSettings(grow=0.03)
    source = AnnotatedSource(Squares(), settings)
    clips = [source.sample(i) for i in range(24)]
    for index in (9, 2):
        assert alike(AnnotatedSource(Squares(), settings).sample(index), clips[index])
    for index, clip in zip([7, 3], source.samples([7, 3]), strict=True):
        assert alike(clip, clips[index])
    # Pictures and classes stay; the square's area tells several people apart.
    assert all(torch.equal(c.images, square_clip(index=i).images) for i, c in enumerate(clips))
    areas = np.array([int(clip.masks[0, 0].sum()) for clip in clips])
    assert (areas > 16 * 16 + 10).any()
    assert (areas < 16 * 16 - 10).any()


def test_without_targets_nothing_is_drawn() -> None:
    assert draw(torch.zeros(0, 4, 64, 64, dtype=torch.bool), grow=0.02).shape == (0, 4, 64, 64)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"annotators": 0}, "annotators"),
        ({"grow": 0.5}, "grow"),
        ({"waves": 0.0}, "waves"),
        ({"per_frame": 1.2}, "per_frame"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(DataSettingError, match=said):
        AnnotatorSettings(**wrong)  # type: ignore[arg-type]
