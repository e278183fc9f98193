"""Which frames make a clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2s_training.data.errors import DataSettingError
from sam2s_training.data.sampler import SamplerSettings, draw_frames


def many(sampler: SamplerSettings, length: int, count: int = 2000) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack([draw_frames(sampler, length, random) for _ in range(count)])


def test_hybrid_is_scattered_then_consecutive() -> None:
    clips = many(SamplerSettings(reverse=0.0), 500)
    assert clips.shape == (2000, 8)
    assert (np.diff(clips[:, 3:], axis=1) == 1).all()
    # Drawn over the whole video: each tenth of it gets about its share of f1, f2 and f3.
    for column in range(3):
        shares = np.histogram(clips[:, column], 10, (0, 500))[0] / 2000
        assert abs(shares - 0.1).max() < 0.03
    # The run too starts anywhere.
    shares = np.histogram(clips[:, 3], 10, (0, 496))[0] / 2000
    assert abs(shares - 0.1).max() < 0.03


def test_scattered_frames_do_not_follow_the_run() -> None:
    clips = many(SamplerSettings(), 500)
    before = (clips[:, 0] < clips[:, 3]).mean()
    assert 0.45 < before < 0.55  # the prompt may come from before or after


def test_no_frame_comes_twice() -> None:
    for sampler in (SamplerSettings(), SamplerSettings("consecutive", max_stride=3)):
        for clip in many(sampler, 9, 500):
            assert len(set(clip.tolist())) == 8


def test_half_of_the_runs_go_back_in_time() -> None:
    steps = np.diff(many(SamplerSettings(reverse=0.5), 200)[:, 3:], axis=1)
    assert set(np.unique(steps)) == {-1, 1}
    assert 0.45 < (steps[:, 0] < 0).mean() < 0.55


def test_strides_are_equally_likely_and_shrink_to_fit() -> None:
    wide = many(SamplerSettings(max_stride=3, reverse=0.0), 500)
    counts = np.bincount(wide[:, 4] - wide[:, 3], minlength=4)[1:] / 2000
    assert abs(counts - 1 / 3).max() < 0.05
    narrow = many(SamplerSettings(max_stride=3, reverse=0.0), 9)
    assert (narrow < 9).all()
    assert (np.diff(narrow[:, 3:], axis=1) <= 2).all()


def test_consecutive_policy_is_one_run() -> None:
    clips = many(SamplerSettings("consecutive", reverse=0.0), 100)
    assert (np.diff(clips, axis=1) == 1).all()
    assert clips.min() == 0
    assert clips.max() == 99
    assert SamplerSettings("consecutive").long == 0
    assert SamplerSettings().long == 2


def test_single_images() -> None:
    clips = many(SamplerSettings(scattered=1, consecutive=0), 10)
    assert clips.shape == (2000, 1)
    assert abs(np.bincount(clips[:, 0], minlength=10) / 2000 - 0.1).max() < 0.03


def test_a_short_video_turns_round() -> None:
    run = draw_frames(
        SamplerSettings("consecutive", reverse=0.0), 3, np.random.default_rng(0)
    ).tolist()
    assert run == [0, 1, 2, 1, 0, 1, 2, 1]
    assert draw_frames(SamplerSettings(), 1, np.random.default_rng(0)).tolist() == [0] * 8


@settings(max_examples=200, deadline=None)
@given(
    policy=st.sampled_from(["hybrid", "consecutive"]),
    scattered=st.integers(1, 5),
    consecutive=st.integers(0, 8),
    stride=st.integers(1, 6),
    length=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_frames_are_in_the_video(
    policy: str, scattered: int, consecutive: int, stride: int, length: int, seed: int
) -> None:
    sampler = SamplerSettings(policy, scattered, consecutive, stride)  # type: ignore[arg-type]
    frames = draw_frames(sampler, length, np.random.default_rng(seed))
    assert frames.shape == (sampler.frames,)
    assert ((frames >= 0) & (frames < length)).all()
    if length >= sampler.frames:
        assert len(set(frames.tolist())) == sampler.frames


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"policy": "hybird"}, "hybrid, consecutive"),
        ({"scattered": 0}, "at least 1"),
        ({"consecutive": -1}, "-1 consecutive"),
        ({"max_stride": 0}, "max_stride"),
        ({"reverse": 1.5}, "probability"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataSettingError, match=said):
        SamplerSettings(**wrong)  # type: ignore[arg-type]
