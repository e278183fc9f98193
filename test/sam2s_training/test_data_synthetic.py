"""Clips from the simulated endoscope."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import alike

from sam2s_model.classes import INSTRUMENTS
from sam2s_model.synth import SUITES, TRAINING, SurgicalScene
from sam2s_model.video import read_image
from sam2s_training.data.clip import NO_CLASS, take
from sam2s_training.data.errors import DataSettingError, NoTargetError
from sam2s_training.data.resize import resize_ids, resize_images
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.sheet import write_sheet
from sam2s_training.data.synthetic import SyntheticSettings, SyntheticSource

SIZE = 64
SHORT = SamplerSettings(scattered=2, consecutive=2)


def source(seed: int = 0, sampler: SamplerSettings = SHORT, **settings: object) -> SyntheticSource:
    fields = {"scenes": 4, "clips_per_scene": 3, "min_share": 0.004, **settings}
    return SyntheticSource(SIZE, SyntheticSettings(**fields), sampler, seed=seed)  # type: ignore[arg-type]


def scene_of(name: str) -> int:
    return int(name.split("scene ")[1].split(",")[0])


@pytest.fixture(scope="module")
def clips() -> list:
    rendered = source()
    return [rendered.sample(i) for i in range(12)]


def test_a_clip_keeps_its_contract(clips: list) -> None:
    for clip in clips:
        targets = len(clip.masks)
        assert clip.images.shape == (4, 3, SIZE, SIZE)
        assert clip.images.dtype == torch.uint8
        assert clip.masks.shape == (targets, 4, SIZE, SIZE)
        assert clip.masks.dtype == torch.bool
        assert clip.classes.shape == (targets,)
        assert clip.classes.dtype == torch.int64
        assert 1 <= targets <= 3
        # Prompted where it can be seen, and no two targets share a pixel.
        assert clip.masks[:, 0].flatten(1).any(1).all()
        assert clip.masks.sum(0).max() <= 1
        assert len(clip.numbers) == 4
        assert clip.long == 1


def test_the_same_index_is_the_same_clip_in_any_order(clips: list) -> None:
    again = source()
    for index in (7, 0, 11, 3):
        assert alike(again.sample(index), clips[index])


def test_a_batch_is_its_clips(clips: list) -> None:
    indices = [5, 2, 9]
    for index, clip in zip(indices, take(source(), indices), strict=True):
        assert alike(clip, clips[index])


def test_another_seed_gives_other_clips(clips: list) -> None:
    other = source(seed=1).sample(0)
    assert scene_of(other.name) != scene_of(clips[0].name)


def test_masks_and_classes_are_the_scenes_own(clips: list) -> None:
    clip = clips[0]
    scene = SurgicalScene(scene_of(clip.name), round(1.25 * SIZE), SIZE)
    shots = scene.shots(clip.numbers)
    images = resize_images(torch.from_numpy(np.stack([s.image for s in shots])), SIZE)
    assert torch.equal(clip.images, images)
    ids = resize_ids(torch.from_numpy(np.stack([s.masks for s in shots])), SIZE)
    for masks, number in zip(clip.masks, clip.classes.tolist(), strict=True):
        identity = ids[masks].unique().tolist()
        assert len(identity) == 1
        assert torch.equal(masks, ids == identity[0])
        name = scene.classes[identity[0]]
        assert number == (INSTRUMENTS.index(name) if name in INSTRUMENTS else NO_CLASS)


def test_scenes_take_turns_and_are_replaced(clips: list) -> None:
    rendered = source()
    seeds = [scene_of(rendered.sample(i).name) for i in range(24)]
    assert len(set(seeds[:4])) == 4  # the clips of a batch show different scenes
    used = {seed: seeds.count(seed) for seed in seeds}
    assert max(used.values()) == 3  # clips_per_scene
    assert len(used) >= 24 // 3
    # Not all replaced at once: each turn of four keeps some of the one before.
    for turn in range(0, 20, 4):
        assert set(seeds[turn : turn + 4]) & set(seeds[turn + 4 : turn + 8])


def test_scenes_are_trainings_own(clips: list) -> None:
    suites = {clip.seed for suite in SUITES.values() for clip in suite.clips}
    for clip in clips:
        assert scene_of(clip.name) in TRAINING.seeds
        assert scene_of(clip.name) not in suites


def test_instruments_are_preferred(clips: list) -> None:
    sampler = SamplerSettings(scattered=1, consecutive=0)
    few = source(sampler=sampler, max_targets=1, tissue_weight=0.0)
    assert all((few.sample(i).classes >= 0).all() for i in range(8))
    some = torch.cat([clip.classes for clip in clips])
    assert (some >= 0).any()
    assert (some == NO_CLASS).any()


def test_single_images(clips: list) -> None:
    clip = source(sampler=SamplerSettings(scattered=1, consecutive=0)).sample(3)
    assert clip.images.shape == (1, 3, SIZE, SIZE)
    assert clip.masks[:, 0].flatten(1).any(1).all()
    assert clip.long == 0


def test_it_travels_to_another_process(clips: list) -> None:
    rendered = source()
    rendered.sample(0)
    copy = pickle.loads(pickle.dumps(rendered))
    assert alike(copy.sample(5), clips[5])


def test_overrides_stay_inside_trainings_ranges() -> None:
    assert SyntheticSettings(overrides={"bleeding": (0.4, 0.6)}).ranges().bleeding == (0.4, 0.6)
    with pytest.raises(DataSettingError, match=r"noise \(0\.03, 0\.03\) leaves training's range"):
        SyntheticSettings(overrides={"noise": 0.03})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seconds": 0}, "seconds"),
        ({"max_targets": 0}, "max_targets"),
        ({"min_visible": 1.5}, "min_visible"),
        ({"scenes": 0}, "scenes"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataSettingError, match=said):
        SyntheticSettings(**wrong)  # type: ignore[arg-type]


def test_a_bank_without_its_instruments_is_refused() -> None:
    with pytest.raises(DataSettingError, match=r"lacks instruments.*thread"):
        SyntheticSource(SIZE, instruments=[name for name in INSTRUMENTS if name != "thread"])


def test_nothing_to_prompt_is_said() -> None:
    blind = SyntheticSource(
        32,
        SyntheticSettings(min_share=1.0, thin_share=1.0),
        SamplerSettings(scattered=1, consecutive=0),
    )
    with pytest.raises(NoTargetError, match=r"clip 0 .*min_share"):
        blind.sample(0)


def test_ids_are_resized_to_the_nearest(clips: list) -> None:
    ids = torch.randint(0, 9, (2, 50, 77), dtype=torch.uint8)
    for size in (32, 64, 100):
        expected = torch.nn.functional.interpolate(
            ids[:, None], size=(size, size), mode="nearest-exact"
        )[:, 0]
        assert torch.equal(resize_ids(ids, size), expected)


def test_the_sheet_shows_frames_in_rows(tmp_path: Path, clips: list) -> None:
    path = write_sheet(tmp_path / "out" / "sheet.png", source(), [0, 4])
    picture = read_image(path)
    assert picture.shape == (2 * SIZE, 4 * SIZE, 3)
    # Outside the targets a frame is itself; below the caption.
    last = picture[:SIZE, 3 * SIZE :]
    free = ~clips[0].masks[:, 3].any(0)
    free[:30] = False
    plain = clips[0].images[3].permute(1, 2, 0)
    assert np.array_equal(last[free.numpy()], plain[free].numpy())
    inside = clips[0].masks[:, 3].any(0)
    inside[:30] = False
    assert not np.array_equal(last[inside.numpy()], plain[inside].numpy())
