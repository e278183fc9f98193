"""`sam2s bench`, on models and frames small enough for seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sam2s_model import ModelConfig, Sam2s
from sam2s_model.benchmark import Timing, click_grid, cost_per_target
from sam2s_model.cli import main
from sam2s_model.weights import save_weights

QUICK = ["--frames", "2", "--warmup", "1", "--source-size", "96x80", "--threads", "1"]


def rows(output: str) -> list[list[str]]:
    """The cells of the printed table, without its header and rule."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_table_and_file_say_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures" / "bench.json"
    options = ["--image-size", "64", "--targets", "1,2", "--json", str(file)]
    assert main(["bench", *options, *QUICK]) == 0
    output = capsys.readouterr().out
    assert "nano (random weights) at 64, frames 96x80" in output
    printed = rows(output)
    assert [row[:2] for row in printed] == [["1", "sam2s fp32"], ["2", "sam2s fp32"]]
    measured = json.loads(file.read_text())["timings"]
    for row, timing in zip(printed, measured, strict=True):
        assert len(timing["frames_ms"]) == 2
        assert row[6] == f"{timing['median_ms']:.1f}"
        stages = [float(cell) for cell in row[2:6]]
        assert all(ms > 0 for ms in stages)
        assert sum(stages) <= timing["p95_ms"] * 1.5
        assert 100 < timing["peak_mb"] < 4000
    assert re.search(r"each target after the first adds -?\d+\.\d ms", output)


@pytest.mark.reference
def test_the_reference_runs_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "tiny", "--image-size", "64", "--against", "sam2", "--targets", "2"]
    assert main(["bench", *options, "--precision", "fp32,bf16", "--no-peak-memory", *QUICK]) == 0
    reference, ours, rounded = rows(capsys.readouterr().out)
    assert [row[1] for row in (reference, ours, rounded)] == [
        "reference",
        "sam2s fp32",
        "sam2s bf16",
    ]
    assert reference[9] == "1.00"
    assert float(ours[9]) > 0
    # The same masks, as the weights are the same; bfloat16 rounds some pixels over the border.
    assert float(reference[11]) > 0.999
    assert float(ours[11]) == 1
    assert 0.8 < float(rounded[11]) < 1


def test_weights_of_a_file_are_timed_at_their_own_size(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = ModelConfig.preset("nano", image_size=96)
    file = tmp_path / "w.safetensors"
    save_weights(file, Sam2s(config).state_dict(), {"preset": "nano", "image_size": 96})
    assert (
        main(["bench", "--weights", str(file), "--targets", "1", "--no-peak-memory", *QUICK]) == 0
    )
    assert f"{file} at 96" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--preset", "tny"], "Did you mean 'tiny'?"),
        (["--weights", "nope.pt"], "'nope.pt' is neither a known name nor an existing file"),
        (["--targets", "0"], "--targets must be numbers from 1 to 16"),
        (["--targets", "one"], "--targets must be numbers from 1 to 16"),
        (["--precision", "int3"], "there is no precision 'int3'"),
        (["--source-size", "640"], "--source-size must be like 640x512"),
        (["--frames", "0"], "--frames must be at least 1"),
        (["--against", "sam2", "--memory", "efp"], "compare with --memory sam2"),
        (["--against", "sam2"], "the reference has no preset 'nano'"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("onnx")
def test_frames_prepared_ahead_are_timed_beside_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    runtimes = "torch,onnx:overlap=on,onnx:overlap=off"
    options = ["--image-size", "64", "--targets", "2", "--runtime", runtimes, "--json", str(file)]
    quick = ["--frames", "6", "--warmup", "2", "--source-size", "96x80", "--threads", "2"]
    assert main(["bench", *options, *quick, "--no-peak-memory"]) == 0
    printed = rows(capsys.readouterr().out)
    assert [row[1].split()[-1] for row in printed] == ["fp32", *runtimes.split(",")[1:]]
    _, ahead, in_turn = json.loads(file.read_text())["timings"]
    for timing, row in zip((ahead, in_turn), printed[1:], strict=True):
        assert len(timing["frames_ms"]) == len(timing["latency_ms"]) == 6
        assert float(row[11]) > 0.999  # of the masks with torch's, frame by frame
        assert float(row[2]) > 0
        assert float(row[14]) > 0
    assert in_turn["latency_ms"] == in_turn["frames_ms"]
    # Two frames are at work at once, so each takes longer than the time between their masks.
    assert sum(ahead["latency_ms"]) > sum(ahead["frames_ms"])


def test_cost_of_a_target_is_the_slope() -> None:
    timings = [Timing("fp32", 1, [10.0, 12.0, 11.0]), Timing("fp32", 8, [25.0])]
    assert cost_per_target(timings) == {"fp32": 2.0}
    assert cost_per_target(timings[:1]) == {}


def test_clicks_lie_apart_and_inside() -> None:
    prompts = click_grid(8, 640, 512)
    assert len(prompts) == 8
    for prompt in prompts.values():
        prompt.check(640, 512, first=True)
    assert len({tuple(map(float, prompt.points[0])) for prompt in prompts.values()}) == 8  # type: ignore
