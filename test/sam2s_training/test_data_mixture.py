"""Mixtures: exact shares, random order, each source's clips in turn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from clips import Squares, alike

from sam2s_training.data.errors import DataSettingError
from sam2s_training.data.folder import FolderSettings
from sam2s_training.data.mixture import MixtureSource, Part
from sam2s_training.data.sources import PartSettings
from sam2s_training.data.synthetic import SyntheticSettings


def mixture(seed: int = 0, **weights: float) -> MixtureSource:
    return MixtureSource({k: Part(Squares(), w) for k, w in weights.items()}, seed=seed)


def test_each_hundred_has_the_weights_shares() -> None:
    mixed = mixture(a=3, b=1, c=1)
    for start in (0, 100, 700):
        counts = Counter(mixed.locate(i)[0] for i in range(start, start + 100))
        assert counts == {0: 60, 1: 20, 2: 20}


def test_shares_are_rounded_to_a_whole_hundred() -> None:
    mixed = mixture(a=1, b=1, c=1)
    counts = Counter(mixed.locate(i)[0] for i in range(100))
    assert sorted(counts.values()) == [33, 33, 34]


def test_the_order_is_random_but_fixed() -> None:
    order = [mixture(a=1, b=1).locate(i)[0] for i in range(300)]
    assert order == [mixture(a=1, b=1).locate(i)[0] for i in range(300)]
    assert order[:100] != order[100:200]
    assert order != [mixture(1, a=1, b=1).locate(i)[0] for i in range(300)]
    assert 30 < np.count_nonzero(np.diff(order[:101])) < 70


def test_every_source_gives_its_clips_one_after_the_other() -> None:
    mixed = mixture(a=7, b=3)
    for which in (0, 1):
        numbers = [n for w, n in map(mixed.locate, range(400)) if w == which]
        assert numbers == list(range(len(numbers)))


def test_clips_come_from_their_source() -> None:
    mixed = MixtureSource({"three": Part(Squares(), 1), "five": Part(Squares(frames=5), 1)})
    for index in range(20):
        which, number = mixed.locate(index)
        clip = mixed.sample(index)
        assert len(clip.images) == (3, 5)[which]
        assert clip.name == f"square {number}"
    for index, clip in zip([9, 3, 3], mixed.samples([9, 3, 3]), strict=True):
        assert alike(clip, mixed.sample(index))


@pytest.mark.parametrize(
    ("weights", "said"),
    [({}, "no sources"), ({"a": 0}, "'a' is 0"), ({"a": 1000, "b": 1}, "'b', 1 of 1001")],
)
def test_impossible_weights_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(DataSettingError, match=said):
        mixture(**weights)


def test_a_part_is_of_one_kind() -> None:
    with pytest.raises(DataSettingError, match="none given"):
        PartSettings()
    with pytest.raises(DataSettingError, match="synthetic, folder given"):
        PartSettings(synthetic=SyntheticSettings(), folder=FolderSettings("x"))
