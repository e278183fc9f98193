"""Snapshots: tracking goes on exactly, also in another process, or is refused with a reason."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import box_mask, click, clip, identical, lively_model, prompts, small_bank

from sam2s_model import MemorySettings, Prompt, Sam2s, StreamTracker
from sam2s_model.config import MEMORY_POLICIES
from sam2s_model.tracker import SnapshotError, TooManyTargetsError

FRAMES = clip(16)
STOP = 9  # the frame before which the snapshot is taken


@pytest.fixture(scope="module")
def model() -> Sam2s:
    return lively_model()


def halfway(model: Sam2s, policy: str = "divemem", **options: Any) -> StreamTracker:
    """A tracker with every kind of target after a few frames, prompts waiting for the next."""
    tracker = StreamTracker(model, policy, **options)
    for name, prompt in prompts().items():
        tracker.add_target(name, prompt)
    for frame in FRAMES[:STOP]:
        tracker.step(frame)
    tracker.add_target("click", Prompt(points=[[30, 30], [5, 5]], labels=[1, 0]))
    tracker.add_target("box", box_mask(50, 20, 70, 50))
    tracker.add_target("new", Prompt(box=[5, 5, 25, 25], points=[[10, 10]], labels=[1]))
    return tracker


def rest(tracker: StreamTracker) -> list[dict[str, torch.Tensor]]:
    """Logits of what is left of the clip."""
    return [
        {name: target.low_res_logits.clone() for name, target in tracker.step(frame).items()}
        for frame in FRAMES[STOP:]
    ]


@pytest.mark.parametrize("way", ["memory", "file"])
@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_tracking_goes_on_exactly(model: Sam2s, policy: str, way: str, tmp_path: Path) -> None:
    tracker = halfway(model, policy, text_bank=small_bank())
    snapshot = tracker.state_dict()
    if way == "file":
        torch.save(snapshot, tmp_path / "snapshot.pt")
        snapshot = torch.load(tmp_path / "snapshot.pt", weights_only=True)
    expected = rest(tracker)
    again = StreamTracker(model, policy, text_bank=small_bank())
    again.load_state_dict(snapshot)
    assert again.targets == (*prompts(), "new")
    got = rest(again)
    assert list(got[0]) == list(expected[0])
    assert identical(got, expected)
    assert identical(again.state_dict(), tracker.state_dict())


CHILD = """
import json, sys
import torch
from builders import clip, lively_model
from sam2s_model import StreamTracker

torch.set_num_threads(int(sys.argv[3]))
tracker = StreamTracker(lively_model())
tracker.load_state_dict(torch.load(sys.argv[1], weights_only=True))
seen = [
    {name: target.low_res_logits.clone() for name, target in tracker.step(frame).items()}
    for frame in clip(16)[9:]
]
torch.save({"logits": seen, "state": tracker.state_dict()}, sys.argv[2])
print(json.dumps(list(tracker.targets)))
"""


def test_tracking_goes_on_exactly_in_another_process(model: Sam2s, tmp_path: Path) -> None:
    tracker = halfway(model)
    torch.save(tracker.state_dict(), tmp_path / "snapshot.pt")
    expected = rest(tracker)
    here = Path(__file__).resolve()
    folders = [str(here.parents[2]), str(here.parent), os.environ.get("PYTHONPATH", "")]
    threads = str(torch.get_num_threads())
    files = [str(tmp_path / "snapshot.pt"), str(tmp_path / "seen.pt")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *files, threads],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == list(tracker.targets)
    seen = torch.load(tmp_path / "seen.pt", weights_only=True)
    assert identical(seen["logits"], expected)
    assert identical(seen["state"], tracker.state_dict())


def test_a_snapshot_is_a_copy(model: Sam2s) -> None:
    """Neither the tracker it came from nor one that loaded it writes into it."""
    tracker = halfway(model)
    snapshot = tracker.state_dict()
    kept = copy.deepcopy(snapshot)
    expected = rest(tracker)
    again = StreamTracker(model)
    again.load_state_dict(snapshot)
    rest(again)
    assert identical(snapshot, kept)
    again.load_state_dict(snapshot)  # back in time
    assert identical(rest(again), expected)


def test_a_snapshot_replaces_all_targets(model: Sam2s) -> None:
    other = StreamTracker(model)
    other.add_target("other", click())
    other.step(clip(1, width=33, height=44)[0])
    other.add_target("waiting", click(5, 5))
    tracker = halfway(model)
    other.load_state_dict(tracker.state_dict())
    assert other.targets == tracker.targets
    assert identical(rest(other), rest(tracker))


def test_a_snapshot_of_an_unused_tracker_is_one(model: Sam2s) -> None:
    tracker = halfway(model)
    tracker.load_state_dict(StreamTracker(model).state_dict())
    assert tracker.targets == ()
    assert identical(tracker.state_dict(), StreamTracker(model).state_dict())


# --- refusals ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snapshot(model: Sam2s) -> dict[str, Any]:
    return halfway(model).state_dict()


def refusal(tracker: StreamTracker, snapshot: Any) -> str:
    """The sentence with which a snapshot is refused, the tracker being left as it was."""
    tracker.add_target("mine", click())
    tracker.step(FRAMES[0])
    before = tracker.state_dict()
    with pytest.raises(SnapshotError) as caught:
        tracker.load_state_dict(snapshot)
    assert identical(tracker.state_dict(), before)
    return str(caught.value)


def test_another_preset_is_refused_by_both_names(snapshot: dict[str, Any]) -> None:
    sentence = refusal(StreamTracker(lively_model("tiny")), snapshot)
    assert "'nano'" in sentence
    assert "'tiny'" in sentence


def test_another_version_is_refused_by_both_numbers(model: Sam2s, snapshot: dict[str, Any]) -> None:
    sentence = refusal(StreamTracker(model), {**snapshot, "version": 99})
    assert "version 99" in sentence
    assert f"has {snapshot['version']}" in sentence


@pytest.mark.parametrize("policy", ["sam2", "efp"])
def test_another_policy_is_refused_by_both_names(
    model: Sam2s, snapshot: dict[str, Any], policy: str
) -> None:
    sentence = refusal(StreamTracker(model, policy), snapshot)
    assert "'divemem'" in sentence
    assert f"'{policy}'" in sentence


@pytest.mark.parametrize(
    ("setting", "theirs", "own"),
    [("max_long", "3", "2"), ("buffer_size", "5", "7"), ("iou_threshold", "0.8", "0.7")],
)
def test_other_memory_settings_are_refused_by_both_values(
    model: Sam2s, snapshot: dict[str, Any], setting: str, theirs: str, own: str
) -> None:
    changed: dict[str, Any] = {setting: json.loads(own)}
    sentence = refusal(StreamTracker(model, MemorySettings(**changed)), snapshot)
    assert f"{setting} {theirs}" in sentence
    assert f"has {own}" in sentence


def test_another_input_size_is_refused_by_both_sizes(snapshot: dict[str, Any]) -> None:
    sentence = refusal(StreamTracker(lively_model(image_size=96)), snapshot)
    assert "image_size 64" in sentence
    assert "96" in sentence


def test_other_classes_are_refused(model: Sam2s, snapshot: dict[str, Any]) -> None:
    sentence = refusal(StreamTracker(model, text_bank=small_bank()), snapshot)
    assert "class names []" in sentence
    assert "['hook', 'scissors']" in sentence


@pytest.mark.parametrize(
    "garbage",
    [None, "snapshot.pt", 3, [], {}, {"format": "other"}, {"model": {"a": torch.zeros(1)}}],
    ids=repr,
)
def test_what_is_no_snapshot_is_refused(model: Sam2s, garbage: Any) -> None:
    assert "StreamTracker.state_dict()" in refusal(StreamTracker(model), garbage)


@pytest.mark.parametrize(
    "part", ["version", "preset", "config", "memory", "labels", "frame", "targets", "pending"]
)
def test_an_incomplete_snapshot_is_refused(
    model: Sam2s, snapshot: dict[str, Any], part: str
) -> None:
    incomplete = {key: value for key, value in snapshot.items() if key != part}
    refusal(StreamTracker(model), incomplete)


def test_more_targets_than_the_tracker_takes_are_refused(
    model: Sam2s, snapshot: dict[str, Any]
) -> None:
    tracker = StreamTracker(model, max_targets=2)
    before = tracker.state_dict()
    with pytest.raises(TooManyTargetsError, match=r"6 targets.*at most 2.*larger max_targets"):
        tracker.load_state_dict(snapshot)
    assert identical(tracker.state_dict(), before)


def test_waiting_targets_count_too(model: Sam2s, snapshot: dict[str, Any]) -> None:
    tracker = StreamTracker(model, max_targets=5)  # five begun, one waiting
    with pytest.raises(TooManyTargetsError):
        tracker.load_state_dict(snapshot)
