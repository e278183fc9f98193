"""The demonstration: a short run over DDS, its failures, and its judgement and pictures alone."""

from __future__ import annotations

import json
import re
import signal
import time

import cv2
import numpy as np
import psutil
import pytest

from sam2s_model.synth import SurgicalScene
from sam2s_model.video import VideoReader
from sam2s_ros.demo import __main__ as demo
from sam2s_ros.demo import hero, pictures
from sam2s_ros.demo.stream import Frame, choose_targets
from sam2s_ros.demo.summary import NO_WEIGHTS, Summary, judge, scores
from sam2s_ros.demo.tracking import Result

pytestmark = pytest.mark.ros

MODULE = "sam2s_ros.demo"
SMALL = ("--width", "192", "--height", "160", "--rate", "8", "--seed", "8")


@pytest.mark.serial
def test_short_run_succeeds_and_writes_its_files(ros_process, tmp_path):
    process = ros_process(MODULE, *SMALL, "--seconds", "3", "--out", str(tmp_path / "out"))
    assert process.wait(120.0) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["failures"] == []
    assert results["received"] >= 0.9 * results["published"] > 0
    assert results["tracked"] >= 2
    assert results["tracked"] + results["skipped"] <= results["received"]
    assert len(results["targets"]) == 2
    assert 0 < results["latency_p50"] <= results["latency_p99"] < 10
    video = VideoReader(tmp_path / "out" / "overlay.mp4")
    assert len(video) == results["received"]
    sheet = cv2.imread(str(tmp_path / "out" / "contact_sheet.png"))
    assert sheet.shape[1] > 3 * 192
    if not results["trained"]:
        assert results["j_and_f"] is None
        assert process.output().count(NO_WEIGHTS) == 2
    assert f"| {results['received']} (" in process.output()


@pytest.mark.serial
def test_killed_endoscope_makes_it_fail(ros_process, tmp_path):
    process = ros_process(MODULE, *SMALL, "--seconds", "4", "--out", str(tmp_path / "out"))
    process.wait_for("streaming", 60.0)
    time.sleep(1.0)
    for child in psutil.Process(process.pid).children():
        if "sam2s_ros.endoscope_node" in child.cmdline():
            child.send_signal(signal.SIGKILL)
    assert process.wait(60.0) == 1
    assert "the endoscope node ended early" in process.output()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "ended early" in results["failures"][0]


@pytest.mark.serial
def test_interrupted_run_ends_both_nodes_too(ros_process, tmp_path):
    process = ros_process(MODULE, *SMALL, "--seconds", "60", "--out", str(tmp_path / "out"))
    log = tmp_path / "out" / "endoscope.log"
    deadline = time.monotonic() + 60
    while not (log.is_file() and "scene 8" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.wait_for("starting the tracker node", 60.0)
    children = psutil.Process(process.pid).children()
    modules = {child.cmdline()[2] for child in children}
    assert modules == {"sam2s_ros.endoscope_node", "sam2s_ros.tracker_node"}
    process.signal(signal.SIGTERM)
    assert process.wait(20.0) == 130
    assert "Traceback" not in process.output()
    assert not any(child.is_running() for child in children)


@pytest.mark.serial
def test_killed_tracker_makes_it_fail(ros_process, tmp_path):
    process = ros_process(MODULE, *SMALL, "--seconds", "4", "--out", str(tmp_path / "out"))
    process.wait_for("streaming", 120.0)
    for child in psutil.Process(process.pid).children():
        if "sam2s_ros.tracker_node" in child.cmdline():
            child.send_signal(signal.SIGKILL)
    assert process.wait(60.0) == 1
    assert "the tracker node failed: its process ended with code -9" in process.output()


def test_bad_options_are_refused(ros_env, monkeypatch, capsys, tmp_path):
    assert demo.main(["--seconds", "0", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "demo: --seconds is 0; it must be above 0\n"


def summary(**changes) -> Summary:
    figures = {
        "scene": "", "trained": True, "seconds": 20.0, "asked": 100, "published": 100,
        "received": 95, "tracked": 60, "skipped": 35, "targets": ["a", "b"], "latency_p50": 0.1,
        "latency_p99": 0.2, "silence": 0.3, "j_and_f": {"a": 0.5}, "class_hits": (3, 4),
    }  # fmt: skip
    return Summary(**{**figures, **changes})


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({}, None),
        ({"received": 90}, None),
        ({"received": 89}, "89 of 100 frames arrived"),
        ({"received": 0, "published": 0}, "0 of 0 frames arrived"),
        ({"targets": ["a"]}, "1 of 2 targets were found"),
        ({"silence": None, "tracked": 0}, "the tracker gave no result"),
        ({"silence": 1.5}, "no result for the last 1.5 s"),
    ],
)
def test_judgement(changes, failure):
    run = summary(**changes)
    judge(run, 2)
    assert bool(run.failures) == (failure is not None)
    if failure is not None:
        assert failure in run.failures[0]
        assert failure in run.table()
    else:
        assert re.search(r"\| verdict +\| ok +\|", run.table())


def test_table_invents_no_figures():
    assert "a 50.0" in summary().table()
    assert "3 of 4" in summary().table()
    assert summary(trained=False).table().count(NO_WEIGHTS) == 2
    assert "of 100 asked" in summary(published=60, received=60).table()


@pytest.fixture(scope="module")
def shots():
    scene = SurgicalScene(8, 192, 160, fps=8.0)
    return [scene.render(n) for n in range(3)]


def test_targets_are_the_largest_instruments_with_exact_boxes(shots):
    shot = shots[0]
    found = choose_targets(shot.masks, shot.classes, 2)
    assert [target.class_name for target in found] == ["monopolar scissors"] * 2
    for target in found:
        ys, xs = np.nonzero(shot.masks == target.identity)
        assert target.prompt.box is not None
        assert list(target.prompt.box) == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    areas = [np.count_nonzero(shot.masks == target.identity) for target in found]
    assert areas == sorted(areas, reverse=True)
    assert choose_targets(np.zeros_like(shot.masks), shot.classes, 2) == []


def test_scores_are_perfect_for_the_truth_and_low_for_another_mask(shots):
    targets = choose_targets(shots[0].masks, shots[0].classes, 2)
    truth = {n: shot.masks for n, shot in enumerate(shots)}
    first, second = (target.name for target in targets)

    def result(n: int) -> Result:
        masks = {target.name: truth[n] == target.identity for target in targets}
        masks[second] = np.zeros_like(masks[first])
        return Result(n, 0.1, masks, {first: targets[0].class_name, second: "unknown"})

    means, hits = scores([result(n) for n in range(3)], targets, truth)
    assert means == {first: 1.0, second: 0.0}
    assert hits == (2, 4)


@pytest.fixture
def captions(monkeypatch):
    """What is written under the pages that an album draws."""
    texts = []
    monkeypatch.setattr(
        pictures, "caption", lambda image, text: texts.append(text) or image, raising=True
    )
    return texts


def album_of(shot, stamps, tracked, trained):
    """An album of one picture at several times, with the true masks as results of some."""
    targets = choose_targets(shot.masks, shot.classes, 2)
    masks = {target.name: shot.masks == target.identity for target in targets}
    labels = {target.name: target.class_name for target in targets}
    frames = {stamp: Frame(stamp, shot.image) for stamp in stamps}
    results = [Result(stamp, 0.1, masks, labels) for stamp in tracked]
    truth = dict.fromkeys(stamps, shot.masks)
    return pictures.Album(frames, truth, shot.classes, targets, results, trained), targets


@pytest.mark.parametrize("trained", [False, True])
def test_pictures_show_truth_or_masks_and_say_which(shots, trained, captions):
    album, targets = album_of(shots[0], [0], [0], trained)
    page = album.page(0)
    changed = (page != shots[0].image).any(axis=2)
    for target in targets:
        assert changed[shots[0].masks == target.identity].mean() > 0.9
    assert changed.mean() < 0.6
    assert captions == [f" 0.0 s   {pictures.TRAINED if trained else pictures.UNTRAINED}"]


def test_frames_without_a_result_say_so_and_stay_out_of_the_sheet(shots, tmp_path, captions):
    stamps = [n * 10**9 for n in range(6)]
    album, _ = album_of(shots[0], stamps, stamps[1::2], trained=True)
    album.page(stamps[2])
    assert captions == [f" 2.0 s   {pictures.MISSED}"]
    captions.clear()
    album.write_sheet(tmp_path / "sheet.png")
    assert captions == [f" {n}.0 s   {pictures.TRAINED}" for n in (1, 3, 5)]


def test_hero_is_one_picture_of_all_panels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hero, "PANELS", ((8, 0), (8, 1), (8, 2)))
    monkeypatch.setattr(hero, "WIDTH", 192)
    monkeypatch.setattr(hero, "HEIGHT", 160)
    assert demo.main(["--hero", str(tmp_path / "docs" / "hero.png")]) == 0
    picture = cv2.imread(str(tmp_path / "docs" / "hero.png"))
    assert picture.shape[1] > 3 * hero.SHOWN[0]
    assert hero.SHOWN[1] < picture.shape[0] < 2 * hero.SHOWN[1]
    assert picture.std() > 20
