"""What the endoscope can show: the simulator's eyes, videos and folders, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2s_model.synth import SurgicalScene
from sam2s_model.video import VideoError, write_mask, write_video
from sam2s_ros.endoscope_sources import EndoscopeError, SimulatedSource, open_files

HEIGHT, WIDTH = 64, 80


def picture(number: int) -> np.ndarray:
    """A smooth picture whose green says which one it is."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[:, :, 1] = 30 + 20 * number
    return image


def ids(*values: int) -> np.ndarray:
    """A mask with a column for each of these ids."""
    mask = np.zeros((HEIGHT, WIDTH), np.int32)
    for place, value in enumerate(values):
        mask[10:30, 10 * place : 10 * place + 5] = value
    return mask


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures a, b, c; masks of a and c."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number, name in enumerate("abc"):
        cv2.imwrite(str(path / f"{name}.png"), picture(number)[:, :, ::-1])
    (path / "notes.txt").write_text("no picture")
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "a.png", ids(2))
    write_mask(tmp_path / "masks" / "c.png", ids(0, 5))
    return path


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, [picture(n) for n in range(6)], fps=12.5)
    return path


def test_the_mono_eye_is_the_scene_itself():
    source = SimulatedSource(5, 160, 128, 10.0)
    shot = SurgicalScene(5, 160, 128, fps=10.0).render(3)
    frame = source.frame(3)
    assert source.size == (128, 160)
    assert source.length is None
    assert np.array_equal(frame.image, shot.image)
    assert np.array_equal(frame.ids, shot.masks)
    assert frame.classes == shot.classes


def test_what_both_eyes_see_lies_as_far_apart_as_asked():
    left, right = (
        SimulatedSource(5, 160, 128, 10.0, side=side, disparity=20) for side in ("left", "right")
    )
    seen_left, seen_right = left.frame(2), right.frame(2)
    assert left.size == right.size == (128, 160)
    assert seen_left.image.shape == seen_right.image.shape == (128, 160, 3)
    assert np.array_equal(seen_left.image[:, 20:], seen_right.image[:, :-20])
    assert np.array_equal(seen_left.ids[:, 20:], seen_right.ids[:, :-20])
    assert not np.array_equal(seen_left.image, seen_right.image)


def test_a_folder_shows_its_pictures_by_name(folder):
    source = open_files(folder, "", "")
    assert (source.size, source.length) == ((HEIGHT, WIDTH), 3)
    for number in (0, 2, 1):
        frame = source.frame(number)
        assert np.array_equal(frame.image, picture(number))
        assert frame.ids is None


def test_masks_are_the_truth_where_there_are_some(folder):
    classes = folder.parent / "classes.json"
    classes.write_text(json.dumps({"2": "grasper", "9": "hook"}))
    source = open_files(folder, str(folder.parent / "masks"), str(classes))
    first, second, third = (source.frame(number) for number in range(3))
    assert np.array_equal(first.ids, ids(2))
    assert first.ids.dtype == np.uint8
    # Named ones are listed whether or not they are in view, others once they have been seen.
    assert first.classes == {2: "grasper", 9: "hook"}
    assert second.ids is None
    assert np.array_equal(third.ids, ids(0, 5))
    assert third.classes == {2: "grasper", 5: "unknown", 9: "hook"}


def test_a_video_shows_its_frames(video, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    write_mask(masks / "00001.png", ids(3))
    source = open_files(video, str(masks), "")
    assert (source.size, source.length) == ((HEIGHT, WIDTH), 6)
    assert source.fps == pytest.approx(12.5)
    for number in (*range(6), 0):  # and once more from the beginning
        frame = source.frame(number)
        assert np.abs(frame.image.astype(int) - picture(number)).max() < 8
        assert (frame.ids is not None) == (number == 1)


@pytest.mark.parametrize(
    ("source", "masks", "classes", "sentence"),
    [
        ("nowhere", "", "", "does not exist; give a video file, a folder"),
        ("pictures/notes.txt", "", "", r"is no folder and no video \(\.mp4, "),
        ("empty", "", "", "holds no pictures"),
        ("pictures", "nowhere", "", "no such folder; masks"),
        ("pictures", "", "bad.json", "but no masks are given"),
        ("pictures", "masks", "nowhere", "No such file.* expected JSON"),
        ("pictures", "masks", "bad.json", "expected JSON such as"),
        ("broken.mp4", "", "", "no readable video"),
    ],
)
def test_bad_files_are_refused_with_a_sentence(
    folder, source, masks, classes, sentence, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    Path("bad.json").write_text('["grasper"]')
    Path("broken.mp4").write_bytes(b"no video" * 50)
    with pytest.raises((EndoscopeError, VideoError), match=sentence):
        open_files(Path(source), masks, classes)


def test_masks_that_do_not_fit_are_refused(folder):
    masks = folder.parent / "masks"
    source = open_files(folder, str(masks), "")
    write_mask(masks / "a.png", ids(1)[:32])
    with pytest.raises(EndoscopeError, match=r"a\.png is 80×32, its picture 80×64"):
        source.frame(0)
    cv2.imwrite(str(masks / "b.png"), ids(300).astype(np.uint16))
    with pytest.raises(EndoscopeError, match=r"b\.png has the id 300; a label map has room"):
        source.frame(1)


def test_a_damaged_picture_is_named(folder):
    source = open_files(folder, "", "")
    data = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"b\.png \(frame 1\): no readable picture"):
        source.frame(1)
