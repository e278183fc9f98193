"""Scores of whole runs, against trackers whose faults are known and so whose scores are too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_clips import PLAIN, ColourSpec, block, moving_square, write_clip
from PIL import Image as PilImage

from sam2s_model.evaluation.clip import Protocol
from sam2s_model.evaluation.report import ReportOptions
from sam2s_model.evaluation.session import Source, evaluate_sources
from sam2s_model.evaluation.settings import Settings
from sam2s_model.video import VideoReader


def run(
    root: Path,
    spec: ColourSpec | None = None,
    protocol: Protocol | None = None,
    options: ReportOptions = PLAIN,
    out: str = "out",
    **more: Any,
) -> dict[str, Any]:
    settings = Settings(spec or ColourSpec(), protocol or Protocol())
    return evaluate_sources(
        root.parent / out, [Source(str(root))], settings, options=options, **more
    )


def figure(results: dict[str, Any], key: str, target: int = 0) -> tuple[float, float]:
    hits, total = results["targets"][target]["figures"][key]
    return hits, total


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("prompt", ["click1", "click3", "box", "mask"])
def test_a_perfect_tracker_scores_one_with_every_prompt(data: Path, prompt: Any) -> None:
    write_clip(data, "a", moving_square(8))
    results = run(data, protocol=Protocol(prompt=prompt))
    macro = results["scores"]["macro"]
    assert macro["j"] == macro["f"] == macro["jf"] == 1.0
    assert results["targets"][0]["frames"] == 6, "DAVIS leaves out the first and the last of 8"
    assert macro["latency_seconds"]["steps"] == 7, "the prompted frame is no plain step"


@pytest.mark.parametrize("shift", [1, 4, 15])
def test_a_moved_square_scores_its_closed_form(data: Path, shift: int) -> None:
    write_clip(data, "a", moving_square(6))
    results = run(data, ColourSpec(shift=shift))
    assert figure(results, "j") == (pytest.approx((16 - shift) / (16 + shift), abs=1e-12), 1)


def test_absence_is_judged_on_absent_frames(data: Path) -> None:
    away = range(10, 16)
    write_clip(data, "a", moving_square(22, away=away))
    honest = run(data, out="honest")
    assert figure(honest, "absence_recall") == figure(honest, "absence_precision") == (6, 6)
    clinging = run(data, ColourSpec(clings=True), out="clinging")
    assert figure(clinging, "absence_recall") == (0, 6)
    assert figure(clinging, "absence_precision") == (0, 0)
    assert clinging["scores"]["macro"]["absence_precision"] is None
    assert figure(clinging, "j")[0] == pytest.approx(14 / 20), "6 of 20 counted frames are 0"
    blinking = run(data, ColourSpec(blind=[3, 12]), out="blinking")
    assert figure(blinking, "absence_precision") == (6, 7)


@pytest.mark.parametrize(
    ("blind", "recovered", "frames"),
    [((), (1, 1), (0, 1)), (range(16, 20), (1, 1), (4, 1)), (range(16, 30), (0, 1), (0, 0))],
)
def test_returns_are_followed_until_the_target_is_found(
    data: Path, blind: Any, recovered: tuple[int, int], frames: tuple[int, int]
) -> None:
    write_clip(data, "a", moving_square(30, away=range(10, 16)))
    results = run(data, ColourSpec(blind=list(blind)))
    assert figure(results, "reidentified") == recovered
    assert figure(results, "recovery_frames") == frames


def test_a_mask_on_another_instance_is_told(data: Path) -> None:
    # After frame 3 the annotation swaps the two squares' ids: the colours stay, so the tracker
    # follows the wrong one from the annotation's point of view.
    shown = [block((1, 5, 5, 12, 12), (2, 5, 40, 12, 12))] * 8
    truth = [ids if n < 4 else np.where(ids > 0, 3 - ids, 0) for n, ids in enumerate(shown)]
    write_clip(data, "a", shown, truth)
    results = run(data)
    assert figure(results, "wrong_instance") == (3, 6)
    assert figure(results, "j")[0] == pytest.approx(0.5)


def test_late_targets_are_prompted_when_they_appear_or_left_out(data: Path) -> None:
    clip = [
        block((1, 2, 2, 10, 10), *([(2, 20, 2 + n, 12, 12)] if n >= 4 else [])) for n in range(10)
    ]
    write_clip(data, "a", clip)
    both = run(data)
    assert [(t["target"], t["prompt_frame"], t["frames"]) for t in both["targets"]] == [
        ("1", 0, 8),
        ("2", 4, 4),
    ]
    first = run(data, protocol=Protocol(late=False), out="first")
    assert [t["target"] for t in first["targets"]] == ["1"]
    assert first["problems"] == [
        "data/a (frame 4): target 2 left out: it is not on the first frame"
    ]


@pytest.mark.parametrize(("rule", "frames"), [("tracked", 4), ("davis", 8), ("sav", 5), ("all", 6)])
def test_the_frame_rule_says_what_counts(data: Path, rule: Any, frames: int) -> None:
    write_clip(data, "a", [block(*([(1, 20, 2 + n, 12, 12)] if n >= 4 else [])) for n in range(10)])
    results = run(data, options=ReportOptions(rule=rule, plots=False, worst=0, show_progress=False))
    assert results["targets"][0]["frames"] == frames


def test_davis_counts_the_empty_frames_before_a_late_prompt(data: Path) -> None:
    # Empty on 0..3, exact on the prompted frame 4, then J 1/3: of 1..8, 4 of 1 and 4 of 1/3.
    write_clip(data, "a", [block(*([(1, 20, 2, 16, 16)] if n >= 4 else [])) for n in range(10)])
    for rule, expected in (("davis", (4 + 4 / 3) / 8), ("tracked", 1 / 3)):
        options = ReportOptions(rule=rule, plots=False, worst=0, show_progress=False)  # type: ignore[arg-type]
        assert figure(run(data, ColourSpec(shift=8), options=options), "j")[0] == pytest.approx(
            expected
        )
    assert len(list((data.parent / "out" / "clips").rglob("a.json"))) == 1, "tracked once"


def test_a_target_is_prompted_once_it_is_large_enough(data: Path) -> None:
    # It enters through the left border by 2 columns of 16 pixels a frame.
    write_clip(data, "a", [block((1, 10, 0, 16, 2 * n + 2)) for n in range(10)])
    results = run(data, protocol=Protocol(min_area=100))
    (target,) = results["targets"]
    assert (target["prompt_frame"], target["frames"]) == (3, 5)
    options = ReportOptions(rule="davis", plots=False, worst=0, show_progress=False)
    results = run(data, protocol=Protocol(min_area=100), options=options)
    assert figure(results, "j")[0] == pytest.approx(6 / 8), "frames 1 and 2 are missed"


def test_a_mask_that_brushes_a_neighbour_is_not_on_it(data: Path) -> None:
    # Moved by 8 pixels it overlaps the neighbour by 4 of 12 columns: J 4 / 20.
    write_clip(data, "a", [block((2, 5, 5, 12, 12), (1, 5, 21, 12, 12))] * 5)
    results = run(data, ColourSpec(shift=8))
    assert figure(results, "wrong_instance", target=1) == (0, 3)
    results = run(data, ColourSpec(shift=16))
    assert figure(results, "wrong_instance", target=1) == (3, 3)


def test_three_clicks_mend_what_one_leaves(data: Path) -> None:
    write_clip(data, "a", moving_square(8), halves=True)
    one = run(data, protocol=Protocol(prompt="click1"), out="one")
    three = run(data, protocol=Protocol(prompt="click3"), out="three")
    assert figure(one, "j")[0] < 0.7
    assert figure(three, "j")[0] == 1.0


def test_corrections_show_the_other_targets_a_frame_once(data: Path) -> None:
    # The colour tracker counts the frames it sees: blind on its frame 6, it misses frame 6 of the
    # clip exactly if the late target's three clicks on frame 3 did not count as frames.
    clip = [
        block((1, 2, 2, 10, 10), *([(2, 20, 2 + n, 16, 16)] if n >= 3 else [])) for n in range(10)
    ]
    write_clip(data, "a", clip, halves=True)
    run(data, ColourSpec(blind=[6]), Protocol(prompt="click3"))
    record = json.loads(next((data.parent / "out" / "clips").rglob("a.json")).read_text())
    assert [k for k, j in enumerate(record["targets"][0]["j"]) if j == 0] == [6]


def test_classes_are_counted_per_frame_and_per_target(data: Path) -> None:
    clip = [block((1, 2, 2, 10, 10), (2, 2, 30, 10, 10), (3, 25, 5, 15, 30))] * 5
    write_clip(data, "a", clip)
    (data / "classes.json").write_text(json.dumps({"1": "grasper", "2": "hook", "3": "liver"}))
    spec = ColourSpec(labels={"1": "grasper", "2": "grasper", "3": "unknown"})
    scores = run(data, spec)["scores"]["datasets"]["data"]
    assert scores["top1"] == scores["target_top1"] == 0.5, "tissue takes no part"
    assert scores["confusion"] == {
        "true": ["grasper", "hook", "liver"],
        "reported": ["grasper", "unknown"],
        "frames": [[3, 0], [3, 0], [0, 3]],
    }


def test_a_target_that_is_never_named_counts_as_unknown(data: Path) -> None:
    clip = [block((1, 2, 2, 10, 10), (2, 2, 30, 10, 10))] * 5
    write_clip(data, "a", clip)
    (data / "classes.json").write_text(json.dumps({"1": "grasper", "2": "hook"}))
    scores = run(data, ColourSpec(labels={"1": "grasper"}), out="some")["scores"]
    assert scores["datasets"]["data"]["top1"] == 0.5
    assert scores["datasets"]["data"]["confusion"]["reported"] == ["grasper", "unknown"]
    scores = run(data, ColourSpec(), out="none")["scores"]
    assert scores["datasets"]["data"]["top1"] is None, "a tracker without classes is not asked"


def test_sparse_annotation_counts_annotated_frames_only(data: Path) -> None:
    clip = moving_square(13)
    write_clip(data, "a", clip, [ids if n % 4 == 0 else None for n, ids in enumerate(clip)])
    results = run(data)
    assert results["targets"][0]["frames"] == 2, "of 0, 4, 8, 12 the first and last are left out"
    assert figure(results, "j") == (1, 1)


def test_the_macro_average_weighs_data_sets_alike(tmp_path: Path) -> None:
    for name, clips in (("few", 1), ("many", 3)):
        for k in range(clips):
            ids = [block((1, 5, 5, 16, 16))] * 6
            # In `many` the annotation is twice as wide as what is seen: J 0.5 for every target.
            truth = ids if name == "few" else [block((1, 5, 5, 16, 32))] * 6
            write_clip(tmp_path / name, f"clip{k}", ids, truth)
    settings = Settings(ColourSpec(), Protocol(prompt="click1"))
    sources = [Source(str(tmp_path / "few")), Source(str(tmp_path / "many"))]
    results = evaluate_sources(tmp_path / "out", sources, settings, PLAIN)
    scores = results["scores"]
    assert scores["datasets"]["few"]["j"] == 1.0
    assert scores["datasets"]["many"]["j"] == pytest.approx(0.5)
    assert scores["macro"]["j"] == pytest.approx(0.75)
    assert scores["datasets"]["many"]["targets"] == 3


def test_the_report_is_complete(data: Path) -> None:
    write_clip(data, "good", moving_square(20, away=range(8, 14)))
    write_clip(data, "bad", moving_square(20, away=range(8, 14)), moving_square(20)[::-1])
    options = ReportOptions(worst=1, show_progress=False)
    results = run(data, ColourSpec(clings=True), options=options, command="sam2s eval data")
    out = data.parent / "out"
    text = (out / "results.md").read_text()
    assert "sam2s eval data" in text
    assert "| data " in text
    assert "macro average" in text
    assert json.loads((out / "results.json").read_text()) == results
    assert results["versions"][0]["numpy"] == np.__version__
    assert results["key"]
    assert results["hosts"][0]["cores"]
    videos = list((out / "worst").iterdir())
    assert [video.name for video in videos] == ["data_bad.mp4"]
    reader = VideoReader(videos[0])
    assert len(reader) == 20
    assert reader.frame(19).shape[1] == 64
    plots = sorted(path.name for path in (out / "plots").rglob("*.png"))
    assert plots == ["bad.png", "good.png"]
    picture = np.array(PilImage.open(out / "plots" / "data" / "good.png").convert("RGB"))
    shaded = (picture == (217, 221, 226)).all(-1)
    assert shaded.sum() > 500, "the absence is shaded"


def test_kept_masks_give_the_same_scores_again(data: Path) -> None:
    write_clip(data, "a", moving_square(8))
    results = run(data, ColourSpec(shift=3))
    folder = next((data.parent / "out" / "masks").rglob("a"))
    scores = []
    for n in range(1, 7):
        drawn = np.array(PilImage.open(folder / f"{n:05d}.png")) == 1
        real = np.array(PilImage.open(data / "Annotations" / "a" / f"{n:05d}.png")) == 1
        scores.append((drawn & real).sum() / (drawn | real).sum())
    assert math.isclose(figure(results, "j")[0], float(np.mean(scores)))
