"""Shards: what is written is what is read; stopped renderings go on; damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Squares, alike, square_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sam2s_model.classes import INSTRUMENTS
from sam2s_training.data.errors import ClipError, ShardError, UnknownClassError
from sam2s_training.data.loader import LoaderSettings
from sam2s_training.data.runs import decode_runs, encode_runs
from sam2s_training.data.shards import Manifest, ShardSource, write_shards

HERE = LoaderSettings(ahead="none")


def write(folder: Path, clips: int = 7, source: object = None, **more: object) -> Manifest:
    fields = {"origin": "squares", "clips_per_shard": 3, "codec": "png", "loader": HERE, **more}
    return write_shards(source or Squares(), folder, clips, progress=False, **fields)  # type: ignore[arg-type]


class Counting(Squares):
    """Counts what is asked for."""

    def __init__(self, broken: int | None = None) -> None:
        super().__init__(broken)
        self.asked: list[int] = []

    def sample(self, index: int):
        self.asked.append(index)
        return super().sample(index)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 9))))
def test_runs_are_exact(mask: np.ndarray) -> None:
    runs = encode_runs(mask)
    assert np.array_equal(decode_runs(runs, mask.shape), mask)
    assert (runs[1:] > 0).all() or not mask.size


def test_runs_by_hand() -> None:
    mask = np.array([[0, 0, 1], [1, 0, 1]], bool)
    assert encode_runs(mask).tolist() == [2, 2, 1, 1]
    assert encode_runs(~mask).tolist() == [0, 2, 2, 1, 1]


def test_an_epoch_is_every_clip_once(tmp_path: Path) -> None:
    manifest = write(tmp_path / "s")
    assert (manifest.clips, manifest.size, manifest.frames) == (7, 64, 3)
    assert len(list((tmp_path / "s").glob("*.zip"))) == 3
    source = ShardSource(tmp_path / "s")
    orders = []
    for epoch in range(3):
        clips = [source.sample(7 * epoch + k) for k in range(7)]
        order = [int(clip.name.split()[1]) for clip in clips]
        assert sorted(order) == list(range(7))
        for number, clip in zip(order, clips, strict=True):
            assert alike(clip, square_clip(index=number))  # png: every bit
        orders.append(order)
    assert orders[0] != orders[1]
    assert alike(ShardSource(tmp_path / "s").sample(12), source.sample(12))


def test_jpeg_keeps_masks_exactly_and_pictures_nearly(tmp_path: Path) -> None:
    write(tmp_path / "s", codec="jpeg", quality=95)
    clip = ShardSource(tmp_path / "s").sample(0)
    true = square_clip(index=int(clip.name.split()[1]))
    assert torch.equal(clip.masks, true.masks)
    error = (clip.images.float() - true.images.float()).abs().mean()
    assert 0 < error < 4


def test_rendering_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="clip 4: ValueError: the film of 4 tore"):
        write(tmp_path / "s", source=Counting(broken=4))
    with pytest.raises(ShardError, match="stopped"):
        ShardSource(tmp_path / "s")
    counting = Counting()
    write(tmp_path / "s", source=counting)
    assert counting.asked == [3, 4, 5, 6]
    assert {ShardSource(tmp_path / "s").sample(i).name for i in range(7)} == {
        f"square {i}" for i in range(7)
    }
    # A gap in the middle is filled, and no more.
    (tmp_path / "s" / "000001.zip").unlink()
    counting.asked.clear()
    write(tmp_path / "s", source=counting)
    assert counting.asked == [3, 4, 5]
    counting.asked.clear()
    write(tmp_path / "s", source=counting)
    assert counting.asked == []


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s")
    with pytest.raises(ShardError, match="other settings"):
        write(tmp_path / "s", origin="circles")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(ShardError, match="not empty"):
        write(tmp_path / "full")


def test_classes_are_numbered_by_the_bank(tmp_path: Path) -> None:
    write(tmp_path / "s")
    turned = tuple(reversed(INSTRUMENTS))
    clip = ShardSource(tmp_path / "s", instruments=turned).sample(0)
    assert clip.classes.tolist() == [turned.index(INSTRUMENTS[3]), -1]
    with pytest.raises(UnknownClassError, match="'hook' is not in the text bank"):
        ShardSource(tmp_path / "s", instruments=[n for n in INSTRUMENTS if n != "hook"])


def test_shards_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s")
    with pytest.raises(ShardError, match="64 pixels, the training wants 96"):
        ShardSource(tmp_path / "s", size=96)
    with pytest.raises(ShardError, match="3 frames a clip, the training wants 8"):
        ShardSource(tmp_path / "s", frames=8)
    with pytest.raises(ShardError, match="no folder of shards"):
        ShardSource(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write(folder)
    path = folder / "000001.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match=r"000001.zip is missing or damaged"):
        ShardSource(folder)
    # Bytes that changed inside are found when they are read.
    path.write_bytes(whole[:200] + bytes(300) + whole[500:])
    source = ShardSource(folder)
    with pytest.raises(ShardError, match=r"000001.zip"):
        [source.sample(i) for i in range(7)]
    path.write_bytes(whole)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ShardError, match=r"manifest\.json is damaged"):
        ShardSource(folder)
