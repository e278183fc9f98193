"""Pictures, masks and videos written and read back; what cannot be read is named."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from sam2s_model.video import (
    FolderSequence,
    LayoutError,
    MaskFormatError,
    UnreadableImageError,
    UnreadableVideoError,
    VideoError,
    VideoFileSequence,
    VideoReader,
    VideoWriter,
    davis_palette,
    read_image,
    read_mask,
    write_mask,
    write_video,
)

Image = NDArray[np.uint8]


def numbered(count: int, size: tuple[int, int] = (48, 64)) -> Iterator[Image]:
    """Frames whose brightness tells their number."""
    for n in range(count):
        yield np.full((*size, 3), 20 + 10 * n, np.uint8)


def brightness(image: Image) -> int:
    return round((float(image.mean()) - 20) / 10)


@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_masks_survive(tmp_path: Path, size: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 255, size).astype(np.int32)
    write_mask(tmp_path / "m.png", ids)
    assert (read_mask(tmp_path / "m.png") == ids).all()
    with PilImage.open(tmp_path / "m.png") as picture:
        assert picture.mode == "P"


@pytest.mark.parametrize("ids", [255, 300, -1])
def test_ids_that_do_not_fit_are_refused(tmp_path: Path, ids: int) -> None:
    with pytest.raises(MaskFormatError, match=r"m\.png"):
        write_mask(tmp_path / "m.png", np.full((3, 3), ids))


def test_the_palette_is_davis() -> None:
    # The published colours of the first ids, and of 255, the border in Pascal VOC.
    assert davis_palette()[[0, 1, 2, 3, 4, 8, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [64, 0, 0],
        [224, 224, 192],
    ]


def test_void_is_background_in_palette_files_only(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [255, 2]], np.uint8)
    grey = PilImage.fromarray(ids)
    grey.save(tmp_path / "grey.png")
    palette = grey.copy()
    palette.putpalette(davis_palette().ravel().tolist())
    palette.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[0, 1], [255, 2]]
    assert read_mask(tmp_path / "palette.png").tolist() == [[0, 1], [0, 2]]


def test_masks_of_one_and_sixteen_bits(tmp_path: Path) -> None:
    PilImage.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[1, 0]]
    PilImage.fromarray(np.array([[1000, 0]], np.uint16)).save(tmp_path / "deep.png")
    assert read_mask(tmp_path / "deep.png").tolist() == [[1000, 0]]


def test_pictures_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    PilImage.fromarray(red).save(tmp_path / "red.png")
    assert (read_image(tmp_path / "red.png") == red).all()
    PilImage.fromarray(red[..., 0]).save(tmp_path / "grey.jpg")
    assert read_image(tmp_path / "grey.jpg").shape == (8, 8, 3)


def test_half_a_picture_is_no_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for name in ("a.jpg", "a.png"):
        file = tmp_path / name
        PilImage.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:-600])
        with pytest.raises(UnreadableImageError, match=name):
            read_image(file, 7)
    with pytest.raises(UnreadableImageError, match=r"frame 7"):
        read_image(tmp_path / "none.png", 7)


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MaskFormatError("m.png", "is wrong", 3)))
    assert isinstance(error, MaskFormatError)
    assert str(error) == "m.png (frame 3): is wrong"
    assert error.frame == 3


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_videos_survive(tmp_path: Path, size: tuple[int, int]) -> None:
    file = tmp_path / "v.mp4"
    write_video(file, numbered(12, size), fps=12.5)
    reader = VideoReader(file)
    assert len(reader) == 12
    assert reader.fps == pytest.approx(12.5)
    assert [brightness(reader.frame(n)[: size[0] - 1, : size[1] - 1]) for n in range(12)] == list(
        range(12)
    )
    assert reader.frame(0).shape == (48, 64, 3), "odd sizes are padded to even ones"
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    still = random.integers(0, 255, (80, 96, 3), np.uint8)
    frames = [np.roll(still, (n, 2 * n), (0, 1)) for n in range(24)]
    written = set()
    for n in range(4):
        # Leaves other rubbish in freed memory every time.
        rubbish = [np.full(100_000 + 1000 * i, 50 * n + i, np.uint8) for i in range(50)]
        del rubbish
        write_video(tmp_path / f"{n}.mp4", frames)
        written.add((tmp_path / f"{n}.mp4").read_bytes())
    assert len(written) == 1


def test_frames_can_be_read_in_any_order(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered(12))
    reader = VideoReader(tmp_path / "v.mp4")
    assert [brightness(reader.frame(n)) for n in (5, 5, 2, 11, 0)] == [5, 5, 2, 11, 0]
    with pytest.raises(IndexError, match="12 frames"):
        reader.frame(12)


def write_then_fail(file: Path) -> None:
    with VideoWriter(file) as writer:
        writer.write(next(numbered(1)))
        raise RuntimeError


def test_a_video_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_then_fail(tmp_path / "v.mp4")
    mixed = [*numbered(1), *numbered(1, (50, 50))]
    with pytest.raises(VideoError, match="another size"):
        write_video(tmp_path / "v.mp4", mixed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["text.mp4", "none.mp4"])
def test_videos_that_are_none_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnreadableVideoError, match=name):
        VideoReader(tmp_path / name)


def test_a_video_cut_short_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "v.mkv"
    rng = np.random.default_rng(0)
    write_video(file, (rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(20)))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    masks = tmp_path / "masks"
    masks.mkdir()
    write_mask(masks / "0.png", np.ones((48, 64), int))
    sequence = VideoFileSequence(file, masks)
    assert len(sequence) < 15
    assert f"announces 20 frames and holds {len(sequence)}" in sequence.problems[0]


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_damaged_frames_are_told_and_the_rest_is_read(tmp_path: Path, kept: float) -> None:
    # Without its beginning a packet cannot be decoded; with it, the decoder guesses the rest.
    file = tmp_path / "v.mp4"
    pattern = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    write_video(file, (np.roll(pattern, 3 * n, axis=1) for n in range(20)))
    whole = VideoReader(file)
    pictures = [whole.frame(n) for n in range(20)]
    with av.open(str(file)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    start, size = packets[8].pos, packets[8].size
    assert start is not None
    first = start + max(4, int(kept * size))
    content = bytearray(file.read_bytes())
    content[first : start + size] = bytes(start + size - first)
    file.write_bytes(content)
    reader = VideoReader(file)
    assert len(reader) == 20
    good, bad = [], []
    for n in range(20):
        try:
            image = reader.frame(n)
        except UnreadableImageError as error:
            bad.append(error.frame)
        else:
            good.append(n)
            assert bad or (image == pictures[n]).all()
    assert len(bad) == 1, "the damaged packet's frame"
    assert sorted([*good, *bad]) == list(range(20))


def test_folders_pair_pictures_and_masks_by_name(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for n, frame in enumerate(numbered(5)):
        PilImage.fromarray(frame).save(images / f"{n:03d}.jpg")
    write_mask(masks / "002.png", np.full((48, 64), 3))
    sequence = FolderSequence(images, masks, {3: "hook"})
    assert len(sequence) == 5
    assert [sequence.masks(n) is not None for n in range(5)] == [False, False, True, False, False]
    assert (sequence.masks(2) == 3).all()
    assert brightness(sequence.frame(4)) == 4
    assert sequence.frame_name(2) == "002"
    assert sequence.classes == {3: "hook"}


def test_folders_without_what_they_promise(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(LayoutError, match="no such folder"):
        FolderSequence(tmp_path / "none", tmp_path / "masks")
    with pytest.raises(LayoutError, match="holds no pictures"):
        FolderSequence(tmp_path / "images", tmp_path / "masks")
    PilImage.fromarray(next(numbered(1))).save(tmp_path / "images" / "0.png")
    write_mask(tmp_path / "masks" / "x.png", np.zeros((48, 64), int))
    with pytest.raises(LayoutError, match="name of a picture"):
        FolderSequence(tmp_path / "images", tmp_path / "masks")


def test_masks_of_a_video_are_named_by_frame_number(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", numbered(5))
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("0", "00003", "9", "first"):
        write_mask(masks / f"{name}.png", np.ones((48, 64), int))
    write_mask(masks / "2.png", np.ones((64, 48), int))
    sequence = VideoFileSequence(tmp_path / "v.mp4", masks)
    assert sequence.masks(0) is not None
    assert sequence.masks(1) is None
    assert sequence.masks(3) is not None
    with pytest.raises(MaskFormatError, match=r"2\.png \(frame 2\).*48×64.*64×48"):
        sequence.masks(2)
    assert len(sequence.problems) == 2
    assert sequence.fps == 25
