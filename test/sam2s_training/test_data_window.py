"""Windows of larger clips: nothing changes size, and every window shows a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Squares, alike, square_clip

from sam2s_training.data.clip import Clip
from sam2s_training.data.errors import ShardError
from sam2s_training.data.loader import LoaderSettings
from sam2s_training.data.shards import ShardSource, write_shards
from sam2s_training.data.window import MIN_PIXELS, cut_window

ADDRESS = 64  # of the addressed clip's pictures, pixels


def addressed(masks: torch.Tensor) -> Clip:
    """A clip whose pixels say where they are: red the row, green the column."""
    images = torch.zeros(masks.shape[1], 3, ADDRESS, ADDRESS, dtype=torch.uint8)
    images[:, 0] = torch.arange(ADDRESS, dtype=torch.uint8)[:, None]
    images[:, 1] = torch.arange(ADDRESS, dtype=torch.uint8)
    return Clip(images, masks, torch.arange(len(masks)), "addressed", (0, 1))


def two_targets() -> torch.Tensor:
    """A small square at the top left, and a bar along the bottom that leaves on frame 1."""
    masks = torch.zeros(2, 2, ADDRESS, ADDRESS, dtype=torch.bool)
    masks[0, :, 2:8, 2:8] = True
    masks[1, 0, 50:60, :] = True
    return masks


def test_a_window_is_a_piece_of_pictures_and_masks_alike() -> None:
    clip = addressed(two_targets())
    seen = set()
    for seed in range(60):
        cut = cut_window(clip, 32, np.random.default_rng(seed))
        top, left = int(cut.images[0, 0, 0, 0]), int(cut.images[0, 1, 0, 0])
        window = (..., slice(top, top + 32), slice(left, left + 32))
        assert torch.equal(cut.images, clip.images[window])
        assert len(cut.masks) == len(cut.classes) >= 1
        for mask, number in zip(cut.masks, cut.classes.tolist(), strict=True):
            assert torch.equal(mask, clip.masks[number][window])
            assert mask[0].sum() >= MIN_PIXELS
        seen.add((top, left, tuple(cut.classes.tolist())))
    assert {numbers for _, _, numbers in seen} == {(0,), (1,)}
    # The square is 36 pixels and the bar 640: both are chosen, and in more than one place.
    assert len(seen) > 20


def test_a_window_is_a_function_of_its_random_numbers() -> None:
    clip = addressed(two_targets())
    one, same, other = (cut_window(clip, 32, np.random.default_rng(s)) for s in (5, 5, 6))
    assert alike(one, same)
    assert not alike(one, other)


def test_a_target_smaller_than_enough_is_shown_all_the_same() -> None:
    masks = torch.zeros(1, 2, ADDRESS, ADDRESS, dtype=torch.bool)
    masks[0, 0, 40, 40:43] = True
    for seed in range(20):
        cut = cut_window(addressed(masks), 16, np.random.default_rng(seed))
        assert int(cut.masks[0, 0].sum()) == 3


def test_clips_without_room_or_without_targets_pass() -> None:
    clip = square_clip()
    assert cut_window(clip, 64, np.random.default_rng(0)) is clip
    empty = addressed(torch.zeros(0, 2, ADDRESS, ADDRESS, dtype=torch.bool))
    cut = cut_window(empty, 32, np.random.default_rng(0))
    assert cut.images.shape[-2:] == (32, 32)
    assert len(cut.masks) == 0


def test_shards_give_windows_when_asked(tmp_path: Path) -> None:
    write_shards(
        Squares(), tmp_path / "s", 4, origin="squares", codec="png", progress=False,
        loader=LoaderSettings(ahead="none"),
    )  # fmt: skip
    with pytest.raises(ShardError, match="64 pixels, the training wants 48"):
        ShardSource(tmp_path / "s", size=48)
    source = ShardSource(tmp_path / "s", size=48, window=True)
    clips = [source.sample(i) for i in range(12)]
    assert {clip.images.shape[-1] for clip in clips} == {48}
    assert {clip.masks.shape[-1] for clip in clips} == {48}
    assert alike(source.sample(5), clips[5])
    # As large as the network's input: whole. Smaller: refused.
    assert ShardSource(tmp_path / "s", size=64, window=True).sample(0).images.shape[-1] == 64
    with pytest.raises(ShardError, match="64 pixels, the training wants 96"):
        ShardSource(tmp_path / "s", size=96, window=True)
