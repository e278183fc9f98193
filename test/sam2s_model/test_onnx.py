"""Exported graphs in ONNX Runtime behave as the torch runtime does, or say why they cannot."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import exports
import numpy as np
import onnx
import pytest
import torch
from builders import click, clip, identical, prompts

from sam2s_model import MemorySettings, StreamTracker
from sam2s_model.benchmark import Setting, export_contender
from sam2s_model.cli import main
from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.settings import StreamTrackerSpec
from sam2s_model.export.errors import CapacityError, ManifestError, NewerExportError
from sam2s_model.export.layout import stage_ports
from sam2s_model.export.manifest import FILE, Manifest, sha256
from sam2s_model.export.parity import BOUNDS, compare, exact, synthetic_clip
from sam2s_model.model import Features, MemoryBatch
from sam2s_model.result import FrameResult
from sam2s_model.runtime.base import RuntimeUnavailableError
from sam2s_model.runtime.onnx import OnnxRuntime, padded
from sam2s_model.runtime.onnx_graph import OnnxOptions, most_sizes, trt_profiles
from sam2s_model.tracker import SnapshotError

pytestmark = [
    pytest.mark.xdist_group("onnx"),  # one process exports for all
    pytest.mark.timeout(900),  # whichever test comes first waits for the export
]

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


def tracker(memory: str | MemorySettings = "divemem", **options: Any) -> StreamTracker:
    return StreamTracker(exports.exported()[0], memory, runtime="onnx", **options)


def run(given: StreamTracker, first: int, last: int) -> list[FrameResult]:
    """Step through a part of the busy clip."""
    busy = exports.busy_clip()
    results = []
    for number in range(first, last):
        for name, prompt in busy.prompts.get(number, {}).items():
            given.add_target(name, prompt)
        results.append(given.step(busy.frames[number]))
    return results


def alike(
    ours: list[FrameResult],
    theirs: list[FrameResult],
    logits: float = 2e-3,
) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert list(a) == list(b)
        for name, target in a.items():
            other = b[name]
            difference = float((target.low_res_logits - other.low_res_logits).abs().max())
            assert difference <= logits
            # But for one pixel: these masks have a few hundred.
            union = np.count_nonzero(target.mask | other.mask)
            assert np.count_nonzero(target.mask & other.mask) >= 0.999 * union - 1
            assert (target.state, target.label) == (other.state, other.label)
            assert target.iou == pytest.approx(other.iou, abs=1e-4)
            assert target.object_score == pytest.approx(other.object_score, abs=1e-3)
            assert target.label_scores == pytest.approx(other.label_scores, abs=1e-4)


@pytest.mark.parametrize("memory", ["sam2", "divemem", "efp"])
def test_every_policy_tracks_as_with_torch(memory: str) -> None:
    """Prompts of every kind, targets that begin at different times, corrections, full banks."""
    settings = exact(memory)
    ours = StreamTracker(exports.model(), settings)
    theirs = tracker(settings)
    alike(run(ours, 0, 7), run(theirs, 0, 7))
    filled = [theirs.memory_entries(name) for name in theirs.targets]
    assert len(set(filled)) == 3  # padded slots took part
    alike(run(ours, 7, 16), last := run(theirs, 7, 16))
    assert all(target.label_scores for target in last[-1].values())


def test_snapshots_pass_between_runtimes() -> None:
    straight = run(StreamTracker(exports.model()), 0, 16)
    for first, second in (
        (StreamTracker(exports.model()), tracker()),
        (tracker(), StreamTracker(exports.model())),
    ):
        begun = run(first, 0, 8)
        second.load_state_dict(first.state_dict())
        alike(begun + run(second, 8, 16), straight)
    other = exports.model()
    with torch.no_grad():
        other.no_mem_embed += 1
    foreign = StreamTracker(other).state_dict()
    with pytest.raises(SnapshotError, match="weights"):
        tracker().load_state_dict(foreign)


def test_results_do_not_depend_on_other_targets() -> None:
    together, alone = tracker(), tracker()
    for name, prompt in prompts().items():
        together.add_target(name, prompt)
    alone.add_target("box", prompts()["box"])
    for frame in clip(4):
        a, b = together.step(frame)["box"], alone.step(frame)["box"]
        assert float((a.low_res_logits - b.low_res_logits).abs().max()) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        OnnxOptions(threads=1),
        OnnxOptions(threads=2, spinning=False),
        OnnxOptions(arena=False, memory_pattern=False),
        OnnxOptions(optimisation="none"),
        OnnxOptions(fixed_slots=True),
        OnnxOptions(threads=2, share_targets=True),
        OnnxOptions(threads=3, share_targets=False),
        OnnxOptions(threads=2, overlap=True),
    ],
    ids=[
        "threads", "waiting", "memory", "optimisation", "fixed slots", "shares", "no shares",
        "overlap",
    ],
)  # fmt: skip
def test_options_change_no_result(options: OnnxOptions) -> None:
    alike(run(tracker(onnx=options), 0, 8), run(tracker(), 0, 8), logits=1e-4)


def test_options_reach_the_sessions() -> None:
    given = tracker(onnx=OnnxOptions(threads=1, arena=False, optimisation="basic"))
    assert isinstance(given.runtime, OnnxRuntime)
    for graph in given.runtime.graphs.values():
        settings = graph.session.get_session_options()
        assert settings.intra_op_num_threads == 1
        assert settings.enable_cpu_mem_arena is False
        assert graph.session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(RuntimeUnavailableError, match="threads is 0; it must be at least 1"):
        OnnxOptions(threads=0)
    with pytest.raises(RuntimeUnavailableError, match="there is no optimisation 'max'"):
        OnnxOptions(optimisation="max")


def test_threads_that_share_targets_out_give_each_its_own() -> None:
    """With two threads, two targets run apart, three together, and four apart in pairs."""
    apart, together = (tracker(onnx=OnnxOptions(threads=t, share_targets=t > 1)) for t in (2, 1))
    marks = [*prompts().items()][:4]
    for number, frame in enumerate(clip(4)):
        for given in (apart, together):
            for name, prompt in marks[:2] if number == 0 else marks[number + 1 : number + 2]:
                given.add_target(name, prompt)
        ours, theirs = apart.step(frame), together.step(frame)
        assert len(ours) == min(2 + number, 4)
        alike([ours], [theirs], logits=1e-4)


@pytest.mark.parametrize("threads", [2, 3])
def test_frames_prepared_in_another_thread_are_tracked_alike(threads: int) -> None:
    """Two targets, so that threads which share them out are at work beside the encoder too."""
    given = tracker(onnx=OnnxOptions(threads=threads, overlap=True))
    alone = tracker()
    for each in (given, alone):
        for name, prompt in [*prompts().items()][:2]:
            each.add_target(name, prompt)
    ours = []
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(given.prepare, clip(6)[0])
        for frame in [*clip(6)[1:], clip(6)[0]]:
            prepared, coming = coming.result(), other.submit(given.prepare, frame)
            assert prepared.features is not None
            ours.append(given.step(prepared))
        coming.result()
    theirs = [alone.step(frame) for frame in clip(6)]
    alike(ours, theirs, logits=1e-4)


def test_each_of_two_that_work_beside_each_other_has_half_of_the_threads() -> None:
    runtime = tracker(onnx=OnnxOptions(threads=4, overlap=True)).runtime
    assert isinstance(runtime, OnnxRuntime)
    used = []
    for graph in runtime.graphs.values():
        for count, session in graph._sessions.items():
            assert session.get_session_options().intra_op_num_threads == count
        assert {2, 4} <= set(graph._sessions)
    graph = runtime.graphs["encode_image"]
    for count, session in list(graph._sessions.items()):
        graph._sessions[count] = Watched(session, count, used)
    frame = clip(1)[0]
    with runtime.lane():
        runtime.encode_image(frame)
        with runtime.lane():
            runtime.encode_image(frame)
        runtime.encode_image(frame)
    assert used == [4, 2, 4]


class Watched:
    """A session that notes when it runs."""

    def __init__(self, session, count: int, used: list[int]) -> None:
        self.session, self.count, self.used = session, count, used

    def io_binding(self):
        return self.session.io_binding()

    def run_with_iobinding(self, binding) -> None:
        self.used.append(self.count)
        self.session.run_with_iobinding(binding)


def test_options_are_read_as_commands_take_them() -> None:
    assert OnnxOptions.parse("threads=2+spinning=off+optimisation=basic") == OnnxOptions(
        threads=2, spinning=False, optimisation="basic"
    )
    assert OnnxOptions.parse("fixed_slots=on").fixed_slots is True
    for text, sentence in (
        ("spin=off", "has no option 'spin'; its options are threads, spinning, arena"),
        ("arena=no", "option arena must be on or off, not 'no'"),
        ("threads=many", "option threads must be a number, not 'many'"),
        ("threads=0", "threads is 0"),
        ("optimisation=most", "there is no optimisation 'most'"),
    ):
        with pytest.raises(RuntimeUnavailableError, match=sentence):
            OnnxOptions.parse(text)


def test_hidden_slots_say_nothing_and_nothing_becomes_nan() -> None:
    runtime = OnnxRuntime(exports.exported()[0])
    torch.manual_seed(0)
    config = runtime.config
    features = runtime.encode_image(clip(1)[0])
    memory = MemoryBatch(
        torch.randn(2, 3, config.memory_size**2, config.memory_dim),
        torch.tensor([[6, 7, 0], [6, 0, 1]]),
        torch.randn(2, 4, config.hidden_dim),
        torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4]]),
        torch.tensor([[1, 1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0]]).bool(),
    )
    given = runtime.attend_memory(features, memory)
    for part in given:
        assert bool(torch.isfinite(part).all())
    wild = memory._replace(spatial=memory.spatial.clone(), pointers=memory.pointers.clone())
    wild.spatial[0, 2], wild.pointers[0, 1] = 100.0, -100.0
    changed = runtime.attend_memory(features, wild)
    torch.testing.assert_close(changed.features[0], given.features[0])
    torch.testing.assert_close(changed.semantics[0], given.semantics[0])
    more = padded(memory, 13, 22)
    assert more.spatial.shape[1] == 13
    assert more.pointers.shape[1] == 22
    torch.testing.assert_close(runtime.attend_memory(features, more).features[0], given.features[0])


def test_outputs_are_new_at_every_call() -> None:
    """Bound outputs must not be overwritten by the next frame: results outlive it."""
    runtime = OnnxRuntime(exports.exported()[0])
    first = runtime.encode_image(clip(1)[0])
    kept = Features(*(part.clone() for part in first))
    runtime.encode_image(clip(1, seed=1)[0])
    assert identical(list(first), list(kept))


def test_the_bench_sets_runtimes_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.copy(tmp_path / "onnx")  # found there, and not exported again
    options = ["--weights", str(exports.weights()), "--exports", str(tmp_path)]
    options += ["--runtime", "torch,onnx,onnx:arena=off,onnx-int8", "--memory", "divemem"]
    options += ["--targets", "1"]
    options += ["--frames", "3", "--warmup", "1", "--source-size", "96x80", "--threads", "1"]
    assert main(["bench", *options, "--no-peak-memory"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    contenders = ["fp32", "onnx", "onnx:arena=off", "onnx-int8"]
    assert [row[1] for row in rows] == [f"sam2s {name}" for name in contenders]
    for row in rows:
        assert float(row[6]) > 0
        assert float(row[-3]) > 0  # processor time
        assert row[-2] == "4"  # the prompted frame and three more
    assert float(rows[1][11]) >= 0.999
    assert rows[2][11] == rows[1][11]
    assert main(["bench", *options, "--provider", "rocm"]) == 2
    assert "there is no provider 'rocm'" in capsys.readouterr().err
    assert main(["bench", "--runtime", "onnx:spin=off"]) == 2
    assert "ONNX Runtime has no option 'spin'" in capsys.readouterr().err
    assert main(["bench", "--runtime", "tvm"]) == 2
    assert "there is no runtime 'tvm'" in capsys.readouterr().err


def test_the_bench_exports_again_when_the_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []
    monkeypatch.setattr("sam2s_model.export.build.build", lambda _, out, *a, **k: built.append(out))
    weights = str(exports.weights())
    image_size = Manifest.load(exports.exported()[0]).config.image_size
    setting = Setting("nano", image_size, "divemem", "cpu", weights, 1, 96, 80)
    folder = exports.copy(tmp_path / "onnx")
    export_contender(setting, "onnx", folder)
    assert built == []
    manifest = json.loads((folder / FILE).read_text())
    manifest["versions"]["source"] = "of other code"
    (folder / FILE).write_text(json.dumps(manifest))
    export_contender(setting, "onnx", folder)
    assert built == [folder]


def test_the_evaluation_runs_exported_graphs() -> None:
    spec = StreamTrackerSpec(weights=str(exports.exported()[0]), runtime="onnx", device="cpu")
    built = spec.build()
    assert isinstance(built, StreamTracker)
    assert isinstance(built.runtime, OnnxRuntime)
    assert len(spec.describe()["weights_sha256"]) == 16
    with pytest.raises(RuntimeUnavailableError, match="there is no provider 'rocm'"):
        StreamTrackerSpec(weights=spec.weights, runtime="onnx", device="rocm").build()


# --- providers -------------------------------------------------------------------------------


@needs_no_gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_missing_provider_is_an_error_unless_a_fallback_is_allowed(
    provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=f"'{provider}' was asked for, but") as error:
        tracker(provider=provider)
    assert "--allow-fallback" in str(error.value)
    with caplog.at_level(logging.WARNING):
        fallen = tracker(provider=provider, allow_fallback=True)
    assert f"provider '{provider}' is not available" in caplog.text
    alike(run(fallen, 0, 2), run(tracker(), 0, 2), logits=0.0)


def test_tensorrt_is_told_the_shapes_to_expect() -> None:
    manifest = Manifest.load(exports.exported()[0])
    capacities = manifest.capacities
    sizes = most_sizes(capacities.slots, capacities.pointers, targets=8)
    ports = stage_ports(manifest.config, manifest.semantics)
    assert trt_profiles(ports["encode_image"].inputs, sizes) == {}
    shapes = trt_profiles(ports["attend_memory"].inputs, sizes)
    assert shapes["trt_profile_min_shapes"].startswith("spatial:1x13x4x32,role:1x13,")
    assert shapes["trt_profile_max_shapes"].endswith("distance:8x22,seen:8x35")
    assert "xy:8x32x2" in trt_profiles(ports["decode"].inputs, sizes)["trt_profile_max_shapes"]


# --- what does not fit -----------------------------------------------------------------------


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the manifest."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def rewrite(folder: Path, name: str, edit: Callable[[Any], None]) -> None:
    """Edit a graph, and the manifest's digest of it, so that only the graph itself can tell."""
    path = folder / f"{name}.onnx"
    graph = onnx.load(path)
    edit(graph)
    onnx.save(graph, path)

    def renew(content: dict[str, Any]) -> None:
        content["graphs"][name]["sha256"] = sha256(path)

    change(folder, renew)


def no_graph(folder: Path) -> None:
    (folder / "decode.onnx").unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def torn_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:200])


def other_json(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"a": 1}')


def newer_format(folder: Path) -> None:
    change(folder, lambda content: content.update(version=3))


def changed_graph(folder: Path) -> None:
    path = folder / "decode.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def swapped_graph(folder: Path) -> None:
    (folder / "decode.onnx").write_bytes((folder / "encode_memory.onnx").read_bytes())
    rewrite(folder, "decode", lambda graph: None)


def foreign_weights(folder: Path) -> None:
    def edit(graph: Any) -> None:
        onnx.helper.set_model_props(graph, {"sam2s_fingerprint": "0123456789abcdef"})

    rewrite(folder, "encode_memory", edit)


def newer_operators(folder: Path) -> None:
    def edit(graph: Any) -> None:
        graph.opset_import[0].version = 999

    rewrite(folder, "encode_image", edit)


def newer_file_version(folder: Path) -> None:
    def edit(graph: Any) -> None:
        graph.ir_version = 99

    rewrite(folder, "encode_image", edit)


def fewer_slots(folder: Path) -> None:
    change(folder, lambda content: content["capacities"].update(recent=3))


def other_shapes(folder: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["graphs"]["decode"]["inputs"][0]["shape"] = [1, 2, 3, 4]

    change(folder, edit)


def unknown_setting(folder: Path) -> None:
    change(folder, lambda content: content["config"].update(colour="blue"))


def path_out_of_the_folder(folder: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["graphs"]["decode"]["file"] = "../export/decode.onnx"

    change(folder, edit)


@pytest.mark.parametrize(
    ("spoil", "kind", "sentence"),
    [
        (no_graph, ManifestError, "lacks decode.onnx, which its manifest names"),
        (no_manifest, ManifestError, "has no manifest.json: it is no finished export"),
        (torn_manifest, ManifestError, "cannot be read"),
        (other_json, ManifestError, "is no manifest of exported graphs"),
        (newer_format, NewerExportError, "was exported by a newer version"),
        (changed_graph, ManifestError, "is not the file that the manifest describes"),
        (swapped_graph, ManifestError, "says that decode.onnx has the inputs"),
        (foreign_weights, ManifestError, "was exported from other weights"),
        (newer_operators, NewerExportError, "written for a newer one"),
        (newer_file_version, NewerExportError, "written for a newer one"),
        (fewer_slots, CapacityError, "gives capacities"),
        (other_shapes, ManifestError, "describes other inputs of decode"),
        (unknown_setting, ManifestError, "incomplete or altered"),
        (path_out_of_the_folder, ManifestError, "lacks ../export/decode.onnx"),
    ],
)
def test_a_spoilt_export_is_refused_with_the_reason(
    spoil: Callable[[Path], None], kind: type[Sam2sError], sentence: str, tmp_path: Path
) -> None:
    folder = exports.copy(tmp_path / "export")
    spoil(folder)
    with pytest.raises(kind) as error:
        StreamTracker(folder, runtime="onnx")
    assert sentence in str(error.value)
    assert "export again" in str(error.value)


def test_a_folder_of_the_first_version_has_masks_at_stride_4(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["version"] = 1
        del content["config"]["mask_stride"]
        for graph in content["graphs"].values():
            for port in (*graph["inputs"], *graph["outputs"]):
                if port["name"] == "logits":
                    port["shape"][-2:] = [16, 16]

    folder = exports.copy(tmp_path / "export")
    change(folder, edit)
    config = Manifest.load(folder).config
    assert (config.image_size, config.mask_stride, config.mask_size) == (64, 4, 16)


def test_a_bank_larger_than_the_graphs_is_refused() -> None:
    with pytest.raises(
        CapacityError, match=r"max_long is 5, but .* export again with --max-long 5"
    ):
        tracker(MemorySettings(max_long=5))
    tracker(MemorySettings(max_long=2)).add_target("a", click())


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (exports.model, {"runtime": "onnx"}, "write them with `sam2s export`"),
        (lambda: "somewhere", {}, "give load_model"),
        (lambda: "somewhere", {"runtime": "onnx"}, "somewhere is no folder"),
        (exports.model, {"provider": "cuda"}, "runtime 'torch' takes a device"),
        (lambda: exports.exported()[0], {"runtime": "onnx", "device": "cuda"}, "takes a provider"),
        (lambda: exports.exported()[0], {"runtime": "onnx", "precision": "bf16"}, "--precision"),
        (lambda: exports.exported()[0], {"runtime": "onnx", "provider": "rocm"}, "cpu, cuda"),
        (exports.model, {"runtime": "tvm"}, "runtime='torch' or runtime='onnx'"),
    ],
)
def test_a_runtime_is_not_mistaken_for_another(
    model: Callable[[], Any], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Sam2sError) as error:
        StreamTracker(model(), **options)
    assert sentence in str(error.value)


# --- at full size ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("preset", "size"), [("nano", 256), ("tiny", 512)])
def test_forty_frames_at_full_size(preset: str, size: int, tmp_path: Path) -> None:
    from builders import lively_model

    from sam2s_model.export.folder import write_export

    model = lively_model(preset, image_size=size)
    write_export(model, tmp_path / "export")
    found = compare(model, tmp_path / "export", synthetic_clip(40), BOUNDS["fp32"])
    print(found.table())
    assert found.failures() == []
    assert all(entry.states == 0 for entry in found.clips)
