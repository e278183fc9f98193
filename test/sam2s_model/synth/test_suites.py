"""Suites: disjoint from training, openable, cached safely."""

from __future__ import annotations

import numpy as np
import pytest

from sam2s_model.synth import SUITES, TRAINING, SuiteError, load_suite
from sam2s_model.synth.sequence import CACHE_VARIABLE
from sam2s_model.synth.suites import SHIFTED


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)


def test_no_seed_is_shared_by_suites_or_with_training():
    seeds = [clip.seed for suite in SUITES.values() for clip in suite.clips]
    assert len(seeds) == len(set(seeds))
    assert not any(seed in TRAINING.seeds for seed in seeds)


def test_val_shift_lies_outside_training():
    for clip in load_suite("val-shift").clips:
        drawn = clip.scene().values
        for name in SHIFTED:
            low, high = getattr(TRAINING.ranges, name)
            assert not low <= drawn[name] <= high, name


def test_the_suites_have_the_promised_sizes():
    sizes = {name: (len(s.clips), s.clips[0].frames) for name, s in SUITES.items()}
    assert sizes["val-short"] == (24, 120)
    assert sizes["val-long"] == (6, 3000)
    assert {"smoke", "val-hard", "val-shift"} <= set(sizes)
    assert all(clip.fps == 25 for clip in load_suite("val-long").clips)


def test_clips_open_with_targets_that_are_visible_first():
    for clip in load_suite("smoke").clips:
        sequence = clip.open()
        assert len(sequence) == clip.frames
        first = sequence.masks(0)
        assert sequence.targets
        assert set(np.unique(first)) == {0, *sequence.targets}
        assert set(sequence.classes) == set(sequence.targets)
        last = sequence.masks(len(sequence) - 1)
        assert set(np.unique(last)) <= {0, *sequence.targets}
        assert sequence.frame(0).shape == (*first.shape, 3)


def test_val_long_targets_leave_and_come_back():
    clip = load_suite("val-long").clips[0]
    scene = clip.scene()
    amounts = scene.state(np.arange(0, clip.frames, 5)).poses.amount  # type: ignore[union-attr]
    for tool in range(2):
        inside = amounts[:, tool] > 0.5
        assert inside[0]
        assert (np.diff(inside.astype(int)) == 1).any()  # comes back
    assert scene.classes[1] == scene.classes[2]  # look-alikes


def test_the_cache_gives_the_same_frames_and_survives_a_broken_file(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    clip = load_suite("smoke").clips[0]
    fresh = clip.open(cache=False)
    first = clip.open()
    image, masks = first.frame(3), first.masks(3)
    stored = sorted(tmp_path.rglob("00003.png"))
    assert len(stored) == 1
    again = clip.open()
    assert np.array_equal(again.frame(3), image)
    assert np.array_equal(again.masks(3), masks)
    assert np.array_equal(fresh.frame(3), image)
    stored[0].write_bytes(stored[0].read_bytes()[:100])
    assert np.array_equal(clip.open().frame(3), image)
    assert not list(tmp_path.rglob("*.part"))


def test_bad_requests_are_named(tmp_path, monkeypatch):
    with pytest.raises(SuiteError, match="no suite 'val-shrt'; there are smoke"):
        load_suite("val-shrt")
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    with pytest.raises(SuiteError, match="cannot be made"):
        load_suite("smoke").clips[0].open()
