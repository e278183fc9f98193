"""`sam2s eval` from the outside, with the real tracker: a nano model of random weights."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_clips import block, moving_square, write_clip

from sam2s_model import ModelConfig, Sam2s
from sam2s_model.cli import main
from sam2s_model.evaluation.settings import StreamTrackerSpec
from sam2s_model.tracker_parameters import USUAL
from sam2s_model.video import write_mask
from sam2s_model.weights import save_weights

SIZE = 64

# Random weights are not so certain that a target is there as trained ones are.
LENIENT = ("--set", "presence_low=0.5", "--set", "presence_high=0.6")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Keep the tiny matrices of these tests from waiting for busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    model = Sam2s(ModelConfig.preset("nano", image_size=SIZE))
    save_weights(file, model.state_dict(), {"preset": "nano", "image_size": str(SIZE)})
    return str(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    late = [
        block((1, 4, 4, 14, 14), *([(2, 25, 20 + n, 14, 14)] if n > 1 else [])) for n in range(6)
    ]
    write_clip(tmp_path / "data", "late", late)
    write_clip(tmp_path / "data", "one", moving_square(6))
    return tmp_path / "data"


def call(*words: object) -> int:
    return main(["eval", *map(str, words)])


def load(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "results.json").read_text())
    return content


@pytest.mark.parametrize(
    ("prompt", "memory"),
    [
        ("click1", "divemem"),
        ("click3", "divemem"),
        ("box", "divemem"),
        ("mask", "divemem"),
        ("click3", "sam2"),
        ("click3", "efp"),
    ],
)
def test_every_prompt_and_every_memory(
    data: Path, tmp_path: Path, weights: str, prompt: str, memory: str
) -> None:
    out = tmp_path / "out"
    asked = ("--prompt", prompt, "--memory", memory, "--weights", weights, "--out", out)
    assert call(data, *asked, "--quiet", "--no-plots", "--worst", 0) == 0
    results = load(out)
    assert results["failures"] == []
    assert results["problems"] == []
    assert [(t["clip"], t["target"], t["prompt_frame"]) for t in results["targets"]] == [
        ("late", "1", 0),
        ("late", "2", 2),
        ("one", "1", 0),
    ]
    assert results["settings"]["tracker"]["memory"] == memory
    assert results["settings"]["protocol"]["prompt"] == prompt
    assert len(results["settings"]["tracker"]["weights_sha256"]) == 16
    times = results["scores"]["macro"]["latency_seconds"]
    assert times["steps"] == 4 + 5
    assert 0 < times["p50"] <= times["p95"] <= times["p99"]


def test_parameters_reach_the_tracker(data: Path, tmp_path: Path, weights: str) -> None:
    asked = ("--weights", weights, "--prompt", "mask", "--quiet", "--no-plots", "--worst", 0)
    assert call(data, *asked, *LENIENT, "--out", tmp_path / "a") == 0
    # Random weights are never so certain: on all frames after the prompt the target is absent.
    certain = ("--set", "presence_high=1", "--set", "presence_low=1")
    assert call(data, *asked, *certain, "--set", "memory_iou=0.7", "--out", tmp_path / "b") == 0
    given = load(tmp_path / "a")["settings"]["tracker"]["parameters"]
    assert given == {**USUAL, "presence_low": 0.5, "presence_high": 0.6}
    given = load(tmp_path / "b")["settings"]["tracker"]["parameters"]
    assert given == {**USUAL, "presence_high": 1.0, "presence_low": 1.0, "memory_iou": 0.7}
    drawn = {}
    for run in "ab":
        record = json.loads(next((tmp_path / run / "clips").rglob("one.json")).read_text())
        drawn[run] = record["targets"][0]["j"]
    assert drawn["a"] != drawn["b"], "a memory of the prompt alone draws other masks"


def test_a_mask_prompt_comes_back_as_the_mask(data: Path, tmp_path: Path, weights: str) -> None:
    out = tmp_path / "out"
    assert call(data, "--prompt", "mask", "--weights", weights, "--out", out, "--quiet") == 0
    record = json.loads(next((out / "clips").rglob("one.json")).read_text())
    assert record["targets"][0]["j"][0] > 0.8, "up to the network's resolution"


def test_classes_are_read_where_there_is_a_text_bank(
    data: Path, tmp_path: Path, weights: str
) -> None:
    (data / "classes.json").write_text(json.dumps({"1": "grasper", "2": "liver"}))
    out = tmp_path / "out"
    asked = (
        "--weights",
        weights,
        "--text-bank",
        "bank-minilm",
        "--out",
        out,
        "--quiet",
        "--no-plots",
    )
    assert call(data, *asked, *LENIENT, "--worst", 0) == 0
    table = load(out)["scores"]["datasets"]["data"]["confusion"]
    assert table["true"] == ["grasper", "liver"]
    assert sum(map(sum, table["frames"])) == 4 + 2 + 4, "all counted frames of the three targets"
    assert load(out)["settings"]["tracker"]["text_bank_sha256"]


def test_run_may_be_left_out_and_results_repeat(data: Path, tmp_path: Path, weights: str) -> None:
    quiet = ("--weights", weights, "--quiet", "--no-plots", "--worst", 0)
    assert call("run", data, *quiet, "--out", tmp_path / "a") == 0
    assert call(data, *quiet, "--out", tmp_path / "b") == 0
    assert load(tmp_path / "a")["targets"] == load(tmp_path / "b")["targets"]


def test_shards_merge_and_runs_compare(
    data: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ("--quiet", "--no-plots", "--worst", 0)
    for k in (1, 2):
        asked = ("--shard", f"{k}/2", "--weights", weights, "--out", tmp_path / f"part{k}")
        assert call(data, *asked, *quiet) == 0
    parts = [tmp_path / "part1", tmp_path / "part2"]
    assert call("merge", *parts, "--out", tmp_path / "whole", *quiet) == 0
    assert len(load(tmp_path / "whole")["targets"]) == 3
    assert (
        call(data, "--memory", "sam2", "--weights", weights, "--out", tmp_path / "b", *quiet) == 0
    )
    capsys.readouterr()
    report = tmp_path / "compare.md"
    assert call("compare", tmp_path / "whole", tmp_path / "b", "--out", report) == 0
    text = capsys.readouterr().out
    assert report.read_text() == text
    assert "3 targets in both runs" in text
    assert "divemem" in text


@pytest.mark.slow
def test_a_suite_is_rendered_and_scored(tmp_path: Path, weights: str) -> None:
    out = tmp_path / "out"
    asked = ("--weights", weights, "--out", out, "--quiet", "--no-plots", "--worst", 0)
    assert call("smoke", *asked, "--shard", "1/2") == 0
    results = load(out)
    assert results["failures"] == results["problems"] == []
    assert {target["dataset"] for target in results["targets"]} == {"smoke"}
    assert all(target["class"] for target in results["targets"]), "every target has its name"
    assert results["scores"]["datasets"]["smoke"]["recovery_seconds"] is None


def test_nothing_evaluated_is_a_failure(
    data: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (data / "Annotations").iterdir():
        for file in folder.iterdir():
            write_mask(file, np.zeros((48, 64), int))
    assert call(data, "--weights", weights, "--out", tmp_path / "out", "--quiet") == 1
    said = capsys.readouterr().err
    assert "data/late" in said
    assert "nothing could be evaluated" in said
    assert len(load(tmp_path / "out")["failures"]) == 2


def test_part_of_the_clips_is_enough(
    data: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (data / "Annotations" / "one").iterdir():
        file.write_text("damaged")
    asked = ("--weights", weights, "--out", tmp_path / "out", "--quiet", "--no-plots", "--worst", 0)
    assert call(data, *asked) == 0
    said = capsys.readouterr()
    assert "failed: data/one" in said.err
    assert "| macro average" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no-such-place",), "no suite"),
        (("clip.mp4",), "--masks"),
        (("data", "--shard", "3/2"), "shard"),
        (("data", "--jobs", "0"), "at least one"),
        (("data", "--weights", "none-such"), "none-such"),
        (("data", "--runtime", "onnx", "--weights", "data", "--quiet"), "no finished export"),
        (("data", "--set", "memory_oui=0.7"), "Did you mean 'memory_iou'?"),
        (("data", "--allow-fallback"), "choose --runtime onnx"),
        (("compare", "x", "y"), "results"),
        (("merge", "x", "--out", "y"), "run.json"),
    ],
)
def test_mistakes_are_one_sentence(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert said.startswith("sam2s eval: ")
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_fallback_to_the_cpu_is_said_before_anything_is_loaded(
    data: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    words = (data, "--runtime", "onnx", "--weights", data, "--device", "cuda", "--quiet")
    assert call(*words, "--allow-fallback") == 2
    assert "provider 'cuda' is not available" in caplog.text
    assert "running on the CPU" in caplog.text
    assert "no finished export" in capsys.readouterr().err, "it is on the CPU by then"


def test_the_options_offer_all_that_the_library_has() -> None:
    from sam2s_model.commands import options
    from sam2s_model.config import MEMORY_POLICIES
    from sam2s_model.metrics import FRAME_RULES, MIN_ABSENCE

    assert sorted(options.MEMORY_POLICIES) == sorted(MEMORY_POLICIES)
    assert sorted(options.FRAME_RULES) == sorted(FRAME_RULES)
    parser = argparse.ArgumentParser()
    options.add_score_options(parser)
    assert parser.parse_args([]).min_absence == MIN_ABSENCE


def test_the_key_follows_the_weights(tmp_path: Path, weights: str) -> None:
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    model = Sam2s(ModelConfig.preset("nano", image_size=SIZE))
    save_weights(other, model.state_dict(), {"preset": "nano", "image_size": str(SIZE)})
    spec = StreamTrackerSpec(weights)
    assert pickle.loads(pickle.dumps(spec)) == spec, "it goes to other processes"
    digests = {StreamTrackerSpec(str(w)).describe()["weights_sha256"] for w in (weights, other)}
    assert len(digests) == 2
