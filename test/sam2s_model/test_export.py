"""`sam2s export`: what it writes, prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import exports
import onnx
import pytest
import torch

from sam2s_model import MemorySettings, ModelConfig, Sam2s, StreamTracker
from sam2s_model.cli import main
from sam2s_model.export.build import Check, build
from sam2s_model.export.errors import ExportError, ParityError
from sam2s_model.export.folder import ExportOptions, write_export
from sam2s_model.export.graphs import stages
from sam2s_model.export.layout import Port
from sam2s_model.export.manifest import Capacities, Manifest
from sam2s_model.export.parity import BOUNDS, Bounds, compare, verify
from sam2s_model.export.quantisation import read_frames
from sam2s_model.export.tracing import example
from sam2s_model.model import Features, MemoryBatch, PromptBatch
from sam2s_model.textbank import TextBank
from sam2s_model.video import write_video

pytestmark = [
    pytest.mark.xdist_group("onnx"),  # one process exports for all
    pytest.mark.timeout(900),  # whichever test comes first waits for the export
]

STAGES = ["encode_image", "attend_memory", "decode", "encode_memory"]


def test_the_folder_holds_what_its_manifest_says() -> None:
    folder, _ = exports.exported()
    content = json.loads((folder / "manifest.json").read_text())
    assert content["preset"] == "nano"
    assert content["precision"] == "fp32"
    assert content["opset"] == 23
    assert list(content["graphs"]) == STAGES
    assert content["capacities"] == {
        "conditional": 4,
        "long": 3,
        "recent": 6,
        "recent_pointers": 15,
    }
    assert content["memory"]["policy"] == "divemem"
    assert content["source"]["weights"] == str(exports.weights())
    assert len(content["source"]["sha256"]) == 64
    assert content["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"onnx", "onnxruntime", "onnxscript"} <= set(content["versions"])
    for name, entry in content["graphs"].items():
        graph = onnx.load(folder / f"{name}.onnx")
        onnx.checker.check_model(graph, full_check=True)
        assert graph.opset_import[0].version == 23
        assert entry["bytes"] == (folder / f"{name}.onnx").stat().st_size
        assert sum(entry["operators"].values()) == len(graph.graph.node)
        for kind in ("input", "output"):
            shapes = [
                [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
                for value in getattr(graph.graph, kind)
            ]
            assert shapes == [port["shape"] for port in entry[f"{kind}s"]]


def test_sizes_and_operators_are_printed() -> None:
    folder, printed = exports.exported()
    manifest = Manifest.load(folder)
    for name, graph in manifest.graphs.items():
        row = next(line for line in printed.splitlines() if name in line)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:3] == [
            name,
            f"{graph.bytes / 1e6:.1f}",
            str(sum(graph.operators.values())),
        ]
    assert f"{folder}: nano at 64, fp32" in printed


def test_verification_is_printed_and_written() -> None:
    folder, printed = exports.exported()
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["holds"] is True
    assert [stage["stage"] for stage in parity["stages"]] == STAGES
    for stage in parity["stages"]:
        assert stage["calls"] >= 7
        assert 0 < stage["largest"] < 1e-3 < stage["scale"]
    assert [entry["memory"] for entry in parity["clips"]] == ["sam2", "divemem", "efp"]
    for entry in parity["clips"]:
        assert entry["frames"] == 8
        assert 0 < entry["logits"] < 2e-3
        assert entry["least_iou"] >= 0.999
        assert f"{entry['logits']:.1e}" in printed


def test_the_text_bank_travels_along() -> None:
    folder, _ = exports.exported()
    bank = TextBank.load(folder / "text_bank.npz")
    assert bank.names == ("hook", "liver", "scissors")
    assert StreamTracker(folder, runtime="onnx").labels == ("hook", "scissors")


@pytest.mark.parametrize("preset", ["nano", "tiny", "small", "base_plus", "large"])
def test_stages_are_the_models(preset: str) -> None:
    """What is traced is multiplied out; before any tracing, it must be the same function."""
    torch.manual_seed(0)
    model = Sam2s(ModelConfig.preset(preset, image_size=96)).eval()  # not whole windows
    traced = stages(model, Capacities.of(model.config, MemorySettings()), 20)
    sizes = {"targets": 2, "slots": 3, "pointers": 5, "slots+pointers": 8, "points": 4}

    def inputs(stage: str) -> list[torch.Tensor]:
        return [filled(port, sizes) for port in traced[stage].inputs]

    with torch.inference_mode():
        image = inputs("encode_image")[0]
        features = model.encode_image(image)
        close(traced["encode_image"].module(image), features)

        attend = inputs("attend_memory")
        attend[2] = torch.tensor([[6, 7, 0], [6, 1, 0]])
        attend[5] = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 1, 0, 0]]).bool()
        memory = MemoryBatch(*attend[1:])
        close(
            traced["attend_memory"].module(features.coarse, *attend[1:]),
            model.attend_memory(features, memory),
        )

        decode = inputs("decode")
        decode[4] = torch.tensor([[2, 3, 1, -1], [1, -1, -2, -2]])
        decode[6], decode[7] = torch.tensor([True, False]), torch.tensor([False, True])
        prompts = PromptBatch(*decode[3:])
        given = traced["decode"].module(features.fine_4, features.fine_8, *decode[2:])
        close(given, model.decode(features, decode[2], prompts))

        encode = inputs("encode_memory")
        encode[2], encode[3] = torch.tensor([1.0, -1.0]), torch.tensor([True, False])
        given = traced["encode_memory"].module(features.coarse, *encode[1:])
        close(given, (model.encode_memory(features, *encode[1:]),))


def filled(port: Port, sizes: dict[str, int]) -> torch.Tensor:
    tensor = example(port, sizes)
    return torch.randn_like(tensor) if tensor.is_floating_point() else tensor


def close(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...] | Features) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_an_export_that_differs_fails(tmp_path: Path) -> None:
    folder = exports.copy(tmp_path / "export")
    other = exports.model()
    with torch.no_grad():
        other.sam_mask_decoder.mask_tokens.weight += 0.5
    clip = exports.busy_clip(4)
    found = compare(other, folder, clip, Bounds(2e-3, 0.999), ["sam2"])
    with pytest.raises(ParityError, match="sam2: logits differ by"):
        verify(found, folder)
    assert json.loads((folder / "parity.json").read_text())["holds"] is False
    stages = {stage.stage: stage for stage in found.stages}
    assert stages["encode_image"].largest < 1e-4 < stages["decode"].largest


def test_float16_is_half_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    full, _ = exports.exported()
    options = ExportOptions(precision="fp16", traced=full)
    manifest = write_export(exports.model(), tmp_path / "fp16", options)
    for name, graph in manifest.graphs.items():
        assert graph.bytes < 0.6 * Manifest.load(full).graphs[name].bytes
    found = compare(
        exports.model(), tmp_path / "fp16", exports.busy_clip(8), BOUNDS["fp16"], ["divemem"]
    )
    assert found.failures() == []
    assert found.clips[0].logits > 1e-4  # it is another precision indeed


def test_int8_says_what_it_costs_and_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, _ = exports.exported()
    out = tmp_path / "int8"
    options = ["--weights", str(exports.weights()), "--out", str(out), "--traced", str(full)]
    write_video(tmp_path / "procedure.mp4", exports.busy_clip(8).frames)
    options += ["--calibration", str(tmp_path / "procedure.mp4"), "--calibration-frames", "4"]
    options += ["--precision", "int8", "--frames", "8", "--min-iou", "0.5"]
    assert main(["export", *options]) == 0
    report = json.loads((out / "int8.json").read_text())
    assert report["bytes"][1] < 0.6 * report["bytes"][0]
    assert 0.5 <= report["least_iou"] <= report["mean_iou"] < 1
    assert min(report["encode_ms"] + report["frame_ms"]) > 0
    printed = capsys.readouterr().out
    assert f"{report['mean_iou']:.4f}" in printed
    assert f"{report['encode_ms'][1]:.1f}" in printed
    operators = Manifest.load(out).graphs["encode_image"].operators
    assert operators["QuantizeLinear"] > 10
    assert StreamTracker(out, runtime="onnx").config.image_size == 64

    options[options.index("--min-iou") + 1] = "1.0"
    assert main(["export", *options]) == 2
    assert "less than the 1.0 asked for" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()


def test_calibration_reads_videos_and_folders(tmp_path: Path) -> None:
    frames = exports.busy_clip(10).frames
    write_video(tmp_path / "v.mp4", frames)
    assert [frame.shape for frame in read_frames(tmp_path / "v.mp4", 4)] == [(60, 80, 3)] * 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="no frames to calibrate on"):
        build(
            exports.model(),
            tmp_path / "out",
            ExportOptions(precision="int8", traced=exports.exported()[0]),
            Check(calibration=read_frames(tmp_path / "empty", 4), frames=8),
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--opset", "12"], "opset 12 does not work"),
        (["--opset", "99"], "23 is the newest"),
        (["--max-long", "0"], "max_long is 0; it must be at least 1"),
        (["--frames", "2"], "2 frames are too few"),
        (["--min-iou", "2"], "min_iou is 2.0; it must lie in 0..1"),
        (["--weights", "nope.pt"], "'nope.pt' is neither a known name nor an existing file"),
        (["--text-bank", "nope"], "there is no text bank 'nope'"),
        (["--calibration", "nope.mp4"], "there is no nope.mp4 to calibrate on"),
        (["--traced", "nowhere"], "nowhere is no folder"),
        (["--image-size", "100"], "image_size 100 does not work"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--weights", str(exports.weights()), "--out", str(tmp_path / "out"), *options]
    assert main(["export", *given]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_folder_of_other_things_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["export", "--weights", str(exports.weights()), "--out", str(tmp_path)]) == 2
    assert "holds thesis.txt, which is no part of an export" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_only_an_export_of_the_same_model_is_converted(tmp_path: Path) -> None:
    full, _ = exports.exported()
    other = exports.model()
    with torch.no_grad():
        other.no_mem_embed += 1
    with pytest.raises(ExportError, match="is no fp32 export of these weights"):
        write_export(other, tmp_path / "out", ExportOptions(precision="fp16", traced=full))


def test_an_older_opset_writes_rotary_encoding_in_steps(tmp_path: Path) -> None:
    from sam2s_model.export.tracing import trace

    model = exports.model()
    traced = stages(model, Capacities.of(model.config, MemorySettings()), 20)
    graph = trace(traced["attend_memory"], "attend_memory", 20)
    assert graph.opset_import[0].version == 20
    kinds = {node.op_type for node in graph.graph.node}
    assert "RotaryEmbedding" not in kinds
    newer = onnx.load(exports.exported()[0] / "attend_memory.onnx")
    assert "RotaryEmbedding" in {node.op_type for node in newer.graph.node}

    # The rest of the export stays as it was, and the clip is tracked as before.
    from sam2s_model.export.folder import make_manifest, write_graph

    folder = tmp_path / "export"
    shutil.copytree(exports.exported()[0], folder)
    write_graph(graph, folder / "attend_memory.onnx", model.fingerprint())
    make_manifest(model, folder, ExportOptions(opset=20)).save(folder)
    # A mask of 900 pixels may differ by one, whose logit is zero but for rounding.
    bounds = Bounds(1e-4, 0.998)
    assert compare(model, folder, exports.busy_clip(8), bounds, ["divemem"]).failures() == []
