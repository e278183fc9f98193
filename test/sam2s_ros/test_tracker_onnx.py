"""The tracker node with exported graphs, over DDS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tracker_rig import FRAMES, Rig, Spinner, make_node

from sam2s_model import Prompt, StreamTracker
from sam2s_model.metrics import region_similarity
from sam2s_msgs.srv import ListTargets
from sam2s_ros.conversions import rle_to_mask
from sam2s_ros.messages import STATES

# Tracing takes most of a minute, so all tests share one export.
sys.path.append(str(Path(__file__).resolve().parent.parent / "sam2s_model"))

# Where cores are shared, tracing takes minutes.
pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def start(ros_context):
    import exports

    begun = []

    def begin(**parameters):
        node = make_node(
            ros_context, runtime="onnx", model=str(exports.exported()[0]), stale_after=30.0,
            **{"threads": 1, **parameters},
        )  # fmt: skip
        begun.append((node, Spinner(node), Rig(ros_context)))
        return node, begun[-1][2]

    yield begin
    for node, spinner, rig in begun:
        node.end()
        rig.end()
        spinner.end()


@pytest.mark.parametrize("threads", [1, 2])  # with 2, images are prepared ahead
def test_a_node_with_exported_graphs_tracks_as_torch_does(start, threads) -> None:
    import exports

    node, rig = start(threads=threads)
    rig.bring_up()
    rig.warm(FRAMES[0])
    torch_tracker = StreamTracker(exports.model())
    torch_tracker.add_target("a", Prompt(points=[[40.0, 45.0]], labels=[1]))
    expected = torch_tracker.step(FRAMES[0])["a"]
    reply = rig.mark(FRAMES[0])
    assert reply.success, reply.message
    assert reply.area == pytest.approx(expected.area, rel=0.02)
    assert reply.iou == pytest.approx(expected.iou, abs=0.02)
    # Images may have been sent until the reply was there; torch sees them, too.
    for _ in [message for message in rig.received["objects"] if message.objects][1:]:
        torch_tracker.step(FRAMES[0])
    for frame in FRAMES[1:6]:
        expected = torch_tracker.step(frame)["a"]
        message = rig.track(frame)
        mask = rle_to_mask(message.objects[0].mask)
        assert region_similarity(mask, expected.mask) > 0.95
        assert message.objects[0].state == STATES[expected.state]
    assert [target.name for target in rig.call(ListTargets, "list_targets").targets] == ["a"]
    assert node.live.counts.failed == 0
    assert node.live.ahead == (threads > 1)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="CUDA is available here",
)
@pytest.mark.parametrize("allowed", [False, True])
def test_a_missing_provider_fails_unless_the_cpu_will_do(start, allowed) -> None:
    _, rig = start(provider="cuda", allow_fallback=allowed)
    assert rig.transition("configure") is allowed

    def told():
        told = [status for m in rig.received["/diagnostics"] for status in m.status]
        return [s.message for s in told if ("cpu" if allowed else "cuda") in s.message]

    assert rig.until(told)[-1].endswith("ONNX Runtime cpu") is allowed
    assert rig.state() == ("inactive" if allowed else "unconfigured")


def test_the_bench_times_exported_graphs(ros_process, tmp_path) -> None:
    import exports

    process = ros_process(
        "sam2s_model.cli", "bench", "ros", "--cases", "640x512", "--seconds", "3", "--warmup", "1",
        "--runtime", "onnx", "--model", str(exports.exported()[0]), "--threads", "1",
        "--json", str(tmp_path / "figures.json"),
    )  # fmt: skip
    assert process.wait(180.0) in (0, 1), process.output()
    known = json.loads((tmp_path / "figures.json").read_text())["640x512"]
    assert 0 < known["results"] <= known["published"]
    assert "weights, runtime onnx, threads 1, 2 targets" in process.output()
