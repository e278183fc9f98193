"""Runs over many clips: what fails is named and the rest goes on; resuming, sharing, merging."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_clips import PLAIN, ColourSpec, block, moving_square, write_clip
from PIL import Image as PilImage

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.clip import Protocol
from sam2s_model.evaluation.report import ReportOptions, write_report
from sam2s_model.evaluation.runner import RunnerError, Shard
from sam2s_model.evaluation.session import MergeError, Source, evaluate_sources, merge_runs
from sam2s_model.evaluation.settings import Settings
from sam2s_model.evaluation.sources import SourceError, find_clips
from sam2s_model.video import write_mask, write_video

FRAMES = 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three good clips."""
    for name in ("a", "b", "c"):
        write_clip(tmp_path / "data", name, moving_square(FRAMES))
    return tmp_path / "data"


def run(out: Path, *sources: Source | Path, spec: ColourSpec | None = None, **more: Any) -> Any:
    listed = [s if isinstance(s, Source) else Source(str(s)) for s in sources]
    settings = Settings(spec or ColourSpec(), Protocol())
    return evaluate_sources(out, listed, settings, **{"options": PLAIN, **more})


def evaluated(results: dict[str, Any]) -> list[str]:
    return sorted(target["clip"] for target in results["targets"])


# --- bad input -----------------------------------------------------------------------------


def test_a_mask_of_the_wrong_size_costs_its_frame_only(data: Path, tmp_path: Path) -> None:
    broken = data / "Annotations" / "b" / "00003.png"
    write_mask(broken, block((1, 1, 1, 9, 9), size=(30, 30)))
    results = run(tmp_path / "out", data)
    assert evaluated(results) == ["a", "b", "c"]
    assert [t["frames"] for t in results["targets"]] == [4, 3, 4]
    (problem,) = results["problems"]
    assert str(broken) in problem
    assert "frame 3" in problem
    assert "30×30" in problem
    assert "64×48" in problem
    assert str(broken) in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize("damage", ["cut", "text", "gone"])
@pytest.mark.parametrize("part", ["JPEGImages", "Annotations"])
def test_an_unreadable_frame_costs_that_frame_only(
    data: Path, tmp_path: Path, part: str, damage: str
) -> None:
    file = data / part / "b" / "00002.png"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        file.write_text("no picture")
    else:
        # A link without its file: listed with the others, but not to be opened.
        file.unlink()
        file.symlink_to("nowhere.png")
    results = run(tmp_path / "out", data)
    assert [t["frames"] for t in results["targets"]] == [4, 3, 4]
    assert any(str(file) in p and "frame 2" in p for p in results["problems"])


def test_coloured_annotations_are_refused_with_a_reason(data: Path, tmp_path: Path) -> None:
    for file in (data / "Annotations" / "b").iterdir():
        PilImage.fromarray(np.zeros((48, 64, 3), np.uint8)).save(file)
    results = run(tmp_path / "out", data)
    assert evaluated(results) == ["a", "c"]
    assert any("palette or grey PNG" in problem for problem in results["problems"])
    assert results["failures"][0] == {
        "clip": "data/b",
        "reason": "no target could be prompted: no frame has a usable annotation",
    }


def test_empty_annotations_fail_their_clip(data: Path, tmp_path: Path) -> None:
    for file in (data / "Annotations" / "b").iterdir():
        write_mask(file, block())
    results = run(tmp_path / "out", data)
    assert evaluated(results) == ["a", "c"]
    (failure,) = results["failures"]
    assert failure["clip"] == "data/b"
    assert "empty on every frame" in failure["reason"]


def test_masks_without_pictures_are_named(data: Path, tmp_path: Path) -> None:
    orphan = data / "Annotations" / "a" / "00077.png"
    write_mask(orphan, block((1, 1, 1, 5, 5)))
    results = run(tmp_path / "out", data)
    assert evaluated(results) == ["a", "b", "c"]
    assert any(str(orphan) in problem for problem in results["problems"])


def test_a_clip_without_pictures_fails_alone(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "JPEGImages" / "b")
    results = run(tmp_path / "out", data)
    assert evaluated(results) == ["a", "c"]
    assert str(data / "JPEGImages" / "b") in results["failures"][0]["reason"]


def test_a_broken_tracker_fails_the_clip_and_not_the_run(data: Path, tmp_path: Path) -> None:
    write_clip(data, "d", moving_square(FRAMES + 4))
    results = run(tmp_path / "out", data, spec=ColourSpec(crash_at=FRAMES))
    assert evaluated(results) == ["a", "b", "c"]
    assert "RuntimeError: the tracker broke" in results["failures"][0]["reason"]


def test_videos_with_masks_and_videos_that_cannot_be_read(tmp_path: Path) -> None:
    masks, video = tmp_path / "masks", tmp_path / "v.mp4"
    masks.mkdir()
    clip = moving_square(FRAMES)
    for n, ids in enumerate(clip):
        write_mask(masks / f"{n}.png", ids)
    write_mask(masks / "99.png", clip[0])
    write_video(video, [np.full((48, 64, 3), 90, np.uint8)] * FRAMES)
    good = Source(str(video), masks=str(masks))
    results = run(tmp_path / "out", good)
    assert evaluated(results) == ["v"]
    assert any("99.png" in problem for problem in results["problems"])

    whole = video.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.mp4").write_text("no video")
    bad = [Source(str(tmp_path / f"{name}.mp4"), masks=str(masks)) for name in ("cut", "text")]
    results = run(tmp_path / "out2", good, *bad)
    assert evaluated(results) == ["v"]
    assert sorted(f["clip"] for f in results["failures"]) == ["cut/cut", "text/text"]
    assert all(".mp4" in f["reason"] for f in results["failures"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: "no-such-suite", "no suite"),
        (lambda root: str(root), "JPEGImages"),
        (lambda root: str(root / "x.txt"), "neither a folder nor a video"),
        (lambda root: str(root / "x.mp4"), "--masks"),
    ],
)
def test_sources_that_are_none_say_what_is_expected(tmp_path: Path, make: Any, words: str) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(Sam2sError, match=words):
        find_clips(make(tmp_path))


def test_suites_are_listed_without_rendering() -> None:
    clips = find_clips("smoke")
    assert {clip.dataset for clip in clips} == {"smoke"}
    assert len({clip.name for clip in clips}) == len(clips) >= 2
    assert len({clip.fingerprint() for clip in clips}) == len(clips), "each is its own definition"
    assert [c.fingerprint() for c in find_clips("smoke")] == [c.fingerprint() for c in clips]


def test_a_split_names_the_clips(data: Path, tmp_path: Path) -> None:
    (data / "ImageSets" / "2017").mkdir(parents=True)
    (data / "ImageSets" / "2017" / "val.txt").write_text("c\na\n")
    assert [clip.name for clip in find_clips(str(data), split="val")] == ["c", "a"]
    with pytest.raises(SourceError, match="ImageSets"):
        find_clips(str(data), split="test")


def test_two_sources_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "other" / "data")
    with pytest.raises(SourceError, match="two sources"):
        run(tmp_path / "out", data, tmp_path / "other" / "data")


# --- resuming ------------------------------------------------------------------------------


def test_a_second_run_does_only_what_is_missing(data: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    # The log is no setting: the key, and so the records, are the same.
    first = run(out, data, spec=ColourSpec(log=log))
    begun = log.read_text().count("reset")
    assert run(out, data, spec=ColourSpec(log=log))["targets"] == first["targets"]
    assert log.read_text().count("reset") == begun
    next((out / "clips").rglob("b.json")).unlink()
    again = run(out, data, spec=ColourSpec(log=log))
    assert again["targets"] == first["targets"]
    # One for making the tracker, one for the clip.
    assert log.read_text().count("reset") == begun + 2


def test_an_interrupted_run_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    # Clip b breaks the run off in the middle, as a kill would: a half-written record is there.
    out, log = tmp_path / "out", tmp_path / "log"
    run(out, data, shard=Shard(1, 3))
    record = next((out / "clips").rglob("a.json"))
    record.with_name("b.json").write_text(record.read_text()[:200])
    results = run(out, data, spec=ColourSpec(log=log))
    assert evaluated(results) == ["a", "b", "c"]
    assert log.read_text().count("reset") == 3, "made once, then b and c"


def test_failed_clips_and_changed_data_are_done_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for file in (data / "Annotations" / "b").iterdir():
        write_mask(file, block())
    assert evaluated(run(out, data)) == ["a", "c"]
    for n, ids in enumerate(moving_square(FRAMES)):
        write_mask(data / "Annotations" / "b" / f"{n:05d}.png", ids)
        write_mask(data / "Annotations" / "c" / f"{n:05d}.png", np.roll(ids, 8, axis=1))
    results = run(out, data)
    assert evaluated(results) == ["a", "b", "c"]
    scores = {t["clip"]: t["figures"]["j"][0] for t in results["targets"]}
    assert scores["a"] == scores["b"] == 1.0
    assert scores["c"] == pytest.approx(8 / 24), "the shifted annotation of c was read anew"


def test_other_settings_do_not_mix(data: Path, tmp_path: Path) -> None:
    exact = run(tmp_path / "out", data)
    shifted = run(tmp_path / "out", data, spec=ColourSpec(shift=8))
    assert exact["key"] != shifted["key"]
    assert shifted["scores"]["macro"]["j"] == pytest.approx(8 / 24)
    assert run(tmp_path / "out", data)["scores"]["macro"]["j"] == 1.0


# --- many processes, many machines ---------------------------------------------------------


def test_several_processes_give_the_same_scores(data: Path, tmp_path: Path) -> None:
    for file in (data / "Annotations" / "b").iterdir():
        write_mask(file, block())
    alone = run(tmp_path / "one", data, spec=ColourSpec(shift=2))
    together = run(tmp_path / "two", data, spec=ColourSpec(shift=2), jobs=2)
    assert together["targets"] == alone["targets"]
    assert together["failures"] == alone["failures"]
    assert together["hosts"][0]["jobs"] == 2


def test_a_process_that_dies_costs_its_clip_only(data: Path, tmp_path: Path) -> None:
    write_clip(data, "aa", moving_square(FRAMES + 4))
    results = run(tmp_path / "out", data, spec=ColourSpec(exit_at=FRAMES), jobs=2)
    assert evaluated(results) == ["a", "b", "c"]
    (failure,) = results["failures"]
    assert failure["clip"] == "data/aa"
    assert "process died" in failure["reason"]


def test_shards_merge_into_the_whole_run(data: Path, tmp_path: Path) -> None:
    spec = ColourSpec(shift=2)
    whole = run(tmp_path / "whole", data, spec=spec)
    parts = [tmp_path / "part1", tmp_path / "part2"]
    for k, part in enumerate(parts, 1):
        shard = run(part, data, spec=spec, shard=Shard(k, 2))
        assert len(evaluated(shard)) == 3 - k
    half, what, clips = merge_runs(parts[:1], tmp_path / "half", "merge")
    assert write_report(half, what, clips, PLAIN)["clips_missing"] == ["data/b"]
    options = ReportOptions(plots=False, worst=1, show_progress=False)
    folder, what, clips = merge_runs(parts, tmp_path / "merged", "merge")
    merged = write_report(folder, what, clips, options)
    for same in ("targets", "failures", "settings", "key", "clips_missing"):
        assert merged[same] == whole[same]
    assert merged["scores"]["datasets"]["data"]["j"] == whole["scores"]["datasets"]["data"]["j"]
    assert len(list((tmp_path / "merged" / "worst").glob("*.mp4"))) == 1


def test_merging_works_without_the_videos(data: Path, tmp_path: Path) -> None:
    run(tmp_path / "part", data, shard=Shard(1, 2))
    data.rename(tmp_path / "moved")
    options = ReportOptions(worst=1, show_progress=False)
    folder, what, clips = merge_runs([tmp_path / "part"], tmp_path / "merged", "merge")
    merged = write_report(folder, what, clips, options)
    assert evaluated(merged) == ["a", "c"]
    assert not list((tmp_path / "merged").rglob("*.mp4"))
    assert any("not on this machine" in problem for problem in merged["problems"])


def test_only_shards_of_one_run_merge(data: Path, tmp_path: Path) -> None:
    run(tmp_path / "a", data)
    run(tmp_path / "b", data, spec=ColourSpec(shift=3))
    with pytest.raises(MergeError, match="shift: 0 and 3"):
        merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "out", "merge")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shards_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(RunnerError, match="shard"):
        Shard.parse(text)


def test_shards_share_all_clips_out(data: Path) -> None:
    clips = find_clips(str(data))
    shares = [Shard.parse(f"{k}/2").take(clips) for k in (1, 2)]
    assert sorted(c.name for share in shares for c in share) == ["a", "b", "c"]


def test_records_hold_every_annotated_frame(data: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", data)
    record = json.loads(next((tmp_path / "out" / "clips").rglob("a.json")).read_text())
    assert record["annotated"] == list(range(FRAMES))
    (target,) = record["targets"]
    for series in ("j", "f", "area", "predicted_area", "said_absent", "follows", "label"):
        assert len(target[series]) == FRAMES
