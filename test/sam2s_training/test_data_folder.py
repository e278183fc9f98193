"""Data sets on disk: read rightly, and refused with their reason before the first step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import alike, davis
from PIL import Image

from sam2s_model.classes import INSTRUMENTS
from sam2s_model.errors import Sam2sError
from sam2s_model.video import LayoutError, write_mask
from sam2s_training.data.errors import FolderError, NoTargetError, UnknownClassError
from sam2s_training.data.folder import FolderSettings, FolderSource
from sam2s_training.data.sampler import SamplerSettings

SAMPLER = SamplerSettings(scattered=2, consecutive=2, reverse=0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return davis(tmp_path / "set", {"one": 9, "two": 6})


def opened(root: Path, size: int = 32, **settings: object) -> FolderSource:
    fields = FolderSettings(str(root), **settings)  # type: ignore[arg-type]
    return FolderSource(size, fields, SAMPLER, progress=False)


def classes(root: Path, content: object, name: str = "classes.json") -> None:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_clips_are_the_files(root: Path) -> None:
    classes(root, {"1": "grasper", "2": "liver"})
    clip = opened(root, size=32).sample(0)
    assert clip.images.shape == (4, 3, 32, 32)
    assert clip.masks.shape == (2, 4, 32, 32)
    assert clip.long == 1
    assert clip.numbers[3] == clip.numbers[2] + 1
    for number, target in zip(clip.classes.tolist(), clip.masks, strict=True):
        assert number in (INSTRUMENTS.index("grasper"), -1)
        for t, frame in enumerate(clip.numbers):
            ids = np.zeros((32, 40), np.uint8)
            ids[4:16, 4 + frame : 20 + frame] = 1
            ids[20:30, 10:30] = 2
            expected = (ids == (1 if number >= 0 else 2))[:, (2 * np.arange(32) + 1) * 40 // 64]
            assert np.array_equal(target[t].numpy(), expected)
    # The picture is the frame that its number names.
    for t, frame in enumerate(clip.numbers):
        assert int(clip.images[t, 0, 1, 1]) == 10 * frame


def test_each_video_comes_once_an_epoch(root: Path) -> None:
    source = opened(root)
    names = ["one" if ": one," in source.sample(i).name else "two" for i in range(20)]
    for epoch in range(0, 20, 2):
        assert sorted(names[epoch : epoch + 2]) == ["one", "two"]
    assert names[:10] != ["one", "two"] * 5  # the order changes


def test_the_same_index_is_the_same_clip(root: Path) -> None:
    first = opened(root)
    clips = [first.sample(i) for i in range(5)]
    assert all(alike(opened(root).sample(i), clips[i]) for i in (4, 1))


def test_classes_by_video_as_yaml(root: Path) -> None:
    classes(root, "one: {1: hook}\ntwo: {1: scissors, 2: fat}\n", "classes.yaml")
    source = opened(root)
    for i in range(4):
        clip = source.sample(i)
        name = "hook" if ": one," in clip.name else "scissors"
        assert set(clip.classes.tolist()) == {INSTRUMENTS.index(name), -1}


def test_without_classes_targets_are_unknown(root: Path) -> None:
    assert opened(root).sample(0).classes.tolist() == [-1, -1]


def test_target_counts_and_sizes_follow_the_settings(root: Path) -> None:
    assert len(opened(root, max_targets=1).sample(0).masks) == 1
    with pytest.raises(NoTargetError, match="min_pixels"):
        opened(root, min_pixels=2000).sample(0)


def test_empty_first_frames_are_passed_over(root: Path) -> None:
    for path in sorted((root / "Annotations" / "one").iterdir())[1:]:
        write_mask(path, np.zeros((32, 40), np.uint8))
    source = opened(root)
    for index in range(8):
        assert source.sample(index).masks[:, 0].flatten(1).any(1).all()


def test_sparse_annotation_samples_annotated_frames_only(root: Path) -> None:
    for path in sorted((root / "Annotations" / "one").iterdir())[1::2]:
        path.unlink()
    with pytest.raises(FolderError, match=r"one: 00001, 00003.*have no mask.*sparse: true"):
        opened(root)
    source = opened(root, sparse=True)
    shown = {
        n for i in range(10) for n in source.sample(i).numbers if ": one," in source.sample(i).name
    }
    assert shown <= {0, 2, 4, 6, 8}
    assert len(shown) > 2


def test_a_split_chooses_videos(root: Path) -> None:
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text("two\n")
    source = opened(root, split="train")
    assert [video.name for video in source.videos] == ["two"]


def test_masks_and_frames_of_different_sizes(root: Path) -> None:
    write_mask(root / "Annotations" / "two" / "00003.png", np.ones((32, 44), np.uint8))
    with pytest.raises(FolderError, match=r"two/00003.png is 44×32, its picture 40×32"):
        opened(root)


def test_a_mask_without_its_picture(root: Path) -> None:
    (root / "JPEGImages" / "one" / "00002.png").unlink()
    with pytest.raises(FolderError, match=r"one: 00002 have no picture"):
        opened(root)


def test_a_video_without_masks(root: Path) -> None:
    shutil.copytree(root / "JPEGImages" / "one", root / "JPEGImages" / "three")
    with pytest.raises(FolderError, match="three without a folder of masks"):
        opened(root)


def test_a_video_without_pictures(root: Path) -> None:
    shutil.rmtree(root / "JPEGImages" / "one")
    with pytest.raises(FolderError, match="one: there is no such folder"):
        opened(root)


def test_a_class_outside_the_bank(root: Path) -> None:
    classes(root, {"1": "graspr"})
    with pytest.raises(
        UnknownClassError, match="'graspr' is not in the text bank; did you mean 'grasper'"
    ):
        opened(root)


def test_classes_of_a_video_that_is_not_there(root: Path) -> None:
    classes(root, {"one": {"1": "hook"}, "tow": {"1": "hook"}})
    with pytest.raises(FolderError, match="names tow, which"):
        opened(root)


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{one: {1: hook}, 2: fat}", "{one: {first: hook}}", "{a: [", "3"]
)
def test_classes_files_that_say_nothing(root: Path, content: str) -> None:
    classes(root, content, "classes.yaml")
    with pytest.raises(FolderError, match=r"classes\.yaml"):
        opened(root)


def test_a_damaged_picture(root: Path) -> None:
    path = root / "JPEGImages" / "two" / "00001.png"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(FolderError, match=r"00001\.png: no readable picture"):
        opened(root)


def test_no_such_folder_and_no_layout(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is no folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="JPEGImages"):
        opened(tmp_path)
    with pytest.raises(Sam2sError, match="split 'vla'"):
        opened(davis(tmp_path / "set", {"a": 2}), split="vla")


def test_ids_above_255(tmp_path: Path) -> None:
    root = davis(tmp_path / "set", {"a": 1})
    ids = np.zeros((32, 40), np.uint16)
    ids[:16] = 700
    Image.fromarray(ids).save(root / "Annotations" / "a" / "00000.png")
    clip = opened(root).sample(0)
    assert torch.equal(clip.masks[0, 0], torch.arange(32)[:, None].expand(32, 32) < 16)
