"""The simulated endoscope through its door: determinism, masks, ids, sizes, motion, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2s_model.classes import INSTRUMENTS, TISSUES
from sam2s_model.synth import SceneError, SceneRanges, SurgicalScene, render_batch
from sam2s_model.synth.anatomy import THEMES
from sam2s_model.synth.instruments import CATALOGUE

SMALL = (160, 128)
CLEAR: dict[str, float] = {
    "smoke": 0,
    "bleeding": 0,
    "droplets": 0,
    "defocus": 0,
    "vignette": 5,
    "interlace": 0,
    "needle": 0,
    "thread": 0,
    "noise": 0,
    "compression": 0,
    "out_every": 1e6,
    "motion_blur": 0.2,
}


def test_a_frame_depends_on_seed_and_number_alone():
    forward = [SurgicalScene(3, *SMALL).render(n) for n in (0, 40, 41)]
    scene = SurgicalScene(3, *SMALL)
    backward = [scene.render(n) for n in (41, 40, 0)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.masks, b.masks)
    assert not np.array_equal(forward[0].image, SurgicalScene(4, *SMALL).render(0).image)
    assert not np.array_equal(forward[1].image, forward[2].image)


@pytest.mark.parametrize("seed", range(6))
def test_masks_hold_known_ids_of_bank_classes(seed):
    scene = SurgicalScene(seed, *SMALL)
    for n in (0, 333):
        shot = scene.render(n)
        assert shot.image.shape == (128, 160, 3)
        assert shot.image.dtype == np.uint8
        assert shot.masks.shape == (128, 160)
        assert np.issubdtype(shot.masks.dtype, np.integer)
        assert set(np.unique(shot.masks)) <= {0, *shot.classes}
        assert set(shot.classes.values()) <= {*INSTRUMENTS, *TISSUES}
        assert shot.classes == scene.classes
        for identity, visible in shot.visibility.items():
            assert 0.0 <= visible <= 1.0
            assert (visible > 0) == bool((shot.masks == identity).any())


def test_a_batch_gives_what_single_frames_give():
    one, two = SurgicalScene(5, *SMALL), SurgicalScene(6, *SMALL)
    pairs = [(one, 10), (one, 400), (two, 10), (one, 80)]
    batch = render_batch(pairs)
    for i, (scene, n) in enumerate(pairs):
        shot = scene.render(n)
        difference = np.abs(batch.images[i].numpy().astype(int) - shot.image.astype(int))
        assert (difference > 1).mean() < 0.002
        assert (batch.masks[i].numpy() != shot.masks).mean() < 0.0005


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees_within_rounding():
    scene = SurgicalScene(5, *SMALL, overrides={"compression": 0})
    host, card = scene.shots([0, 50]), scene.shots([0, 50], "cuda")
    for a, b in zip(host, card, strict=True):
        assert (np.abs(a.image.astype(int) - b.image.astype(int)) > 2).mean() < 0.005
        assert (a.masks != b.masks).mean() < 0.002


@pytest.mark.parametrize("seed", [1, 2, 8])
def test_masks_are_the_same_shapes_at_every_resolution(seed):
    small = SurgicalScene(seed, 160, 128, overrides=CLEAR).render(30)
    large = SurgicalScene(seed, 480, 384, overrides=CLEAR).render(30)
    reduced = large.masks[1::3, 1::3]
    tried = 0
    for identity in small.classes:
        a, b = small.masks == identity, reduced == identity
        if max(a.sum(), b.sum()) < 150:
            continue
        tried += 1
        assert (a & b).sum() / (a | b).sum() > 0.82, small.classes[identity]
    assert tried >= 2


def test_odd_sizes_render_and_wide_pictures_show_more_at_the_sides():
    shot = SurgicalScene(2, 171, 95).render(3)
    assert shot.image.shape == (95, 171, 3)
    assert shot.masks.shape == (95, 171)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_each_instrument_shows_a_silhouette(name):
    scene = SurgicalScene(11, *SMALL, instruments=[name], overrides={**CLEAR, "present": 60})
    shot = scene.render(20)
    assert shot.classes[1] == name
    assert (shot.masks == 1).mean() > 0.004


def test_silhouettes_differ_between_classes():
    shapes = {}
    for name in CATALOGUE:
        scene = SurgicalScene(
            11, *SMALL, instruments=[name], overrides={**CLEAR, "present": 60, "shaft_radius": 0.06}
        )
        shapes[name] = scene.render(20).masks == 1
    names = sorted(shapes)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            common = (shapes[a] & shapes[b]).sum() / (shapes[a] | shapes[b]).sum()
            assert common < 0.95, f"{a} looks like {b}"


def test_instruments_leave_and_return_under_their_id():
    scene = SurgicalScene(
        21,
        96,
        96,
        instruments=["grasper", "grasper"],
        overrides={**CLEAR, "present": 6, "absent": 4, "elsewhere": 1},
    )
    seen = [(scene.render(n).masks == 1).sum() > 10 for n in range(0, 900, 12)]
    assert seen[0]
    first_absence = seen.index(False)
    assert any(seen[first_absence:])
    assert scene.classes[1] == scene.classes[2] == "grasper"


def test_the_camera_goes_out_and_nothing_is_labelled_there():
    scene = SurgicalScene(31, 96, 96, overrides={"out_every": 10, "out_time": 4})
    numbers = range(0, 250, 5)
    outside = [n for n, c in zip(numbers, scene.cameras(numbers), strict=True) if c.outside > 0.9]
    assert outside
    shot = scene.render(outside[0])
    assert not shot.masks.any()
    assert shot.image.mean() > 60  # gauze is bright
    assert set(shot.visibility.values()) == {0.0}


def test_masks_follow_the_picture():
    # The same scene with and without the tool: what changes is where its mask says it is.
    settings = {**CLEAR, "present": 60, "shadow": 0, "push": 0, "auto_exposure": 0}
    with_tool, without = (
        SurgicalScene(11, 256, 256, instruments=names, overrides=settings).render(20)
        for names in (["suction"], [])
    )
    changed = np.abs(with_tool.image.astype(int) - without.image.astype(int)).max(axis=2) > 24
    mask = with_tool.masks == 1
    assert (changed & mask).sum() / mask.sum() > 0.9
    assert (changed & ~mask).sum() < 0.06 * mask.sum()


@pytest.mark.parametrize("theme", sorted(THEMES))
def test_every_theme_shows_its_organs(theme):
    shot = SurgicalScene(1, *SMALL, theme=theme, instruments=[], overrides=CLEAR).render(0)
    names = {shot.classes[i] for i in np.unique(shot.masks) if i}
    assert names
    assert names <= set(TISSUES)


def test_drawn_values_stay_in_their_ranges_and_can_be_set():
    ranges = SceneRanges()
    for seed in range(50):
        for name, value in ranges.draw(seed).items():
            low, high = getattr(ranges, name)
            assert low <= value <= high
    scene = SurgicalScene(0, *SMALL, overrides={"zoom": 1.1, "noise": (0.01, 0.011)})
    assert scene.values["zoom"] == 1.1
    assert 0.01 <= scene.values["noise"] <= 0.011


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SurgicalScene(0, 8, 128), "width 8 is outside"),
        (lambda: SurgicalScene(0, 128, 9000), "height 9000 is outside"),
        (lambda: SurgicalScene(0, *SMALL).render(-1), "count from 0"),
        (lambda: SurgicalScene(0, *SMALL, fps=0), "fps must be above 0"),
        (lambda: SurgicalScene(0, *SMALL, instruments=["graspr"]), "no instrument 'graspr'"),
        (lambda: SurgicalScene(0, *SMALL, instruments=["liver"]), "a tissue"),
        (lambda: SurgicalScene(0, *SMALL, theme="heart"), "no theme 'heart'"),
        (lambda: SurgicalScene(0, *SMALL, overrides={"zom": 1}), "did you mean 'zoom'"),
        (lambda: SurgicalScene(0, *SMALL, overrides={"zoom": (2, 1)}), "low end comes first"),
        (lambda: render_batch([]), "at least one"),
        (
            lambda: render_batch([(SurgicalScene(0, *SMALL), 0), (SurgicalScene(0, 64, 64), 0)]),
            "same size",
        ),
    ],
)
def test_bad_input_is_named(make, says):
    with pytest.raises(SceneError, match=says):
        make()
