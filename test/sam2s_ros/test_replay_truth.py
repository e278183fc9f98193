"""Scores of a replay: those of `sam2s eval`, from a topic or a folder, for the right target."""

import json

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.ros

if torch.get_num_threads() > 1:
    torch.set_num_threads(1)  # networks this small only wait for each other

CLICKS = """prompts:
  - {frame: 0, name: disc, points: [[%d, %d]]}
  - {frame: 0, name: other, points: [[%d, %d]], class: liver}
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import replay_bags

    return replay_bags.weights(tmp_path_factory.mktemp("weights") / "nano.safetensors")


@pytest.fixture(scope="module")
def clicks():
    """The clicks of `sam2s eval --prompt click1` on the first frame."""
    import replay_bags as rb

    from sam2s_model.evaluation.protocol import next_click

    _, ids = rb.scene(0)
    (ax, ay, _), (bx, by, _) = next_click(ids == 1), next_click(ids == 2)
    return CLICKS % (ax, ay, bx, by)


@pytest.fixture(scope="module")
def bag(tmp_path_factory, clicks):
    import replay_bags as rb

    return rb.write_bag(tmp_path_factory.mktemp("bags") / "case", prompts=clicks)


@pytest.fixture(scope="module")
def scored_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "case"


@pytest.fixture(scope="module")
def by_topic(bag, weights, scored_folder):
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    return replay_bag(bag, scored_folder, rb.settings(weights, inputs={"truth": rb.LABELS}))


def test_scores_are_those_of_eval(weights, by_topic, tmp_path):
    """The same frames as a folder in DAVIS layout, through `sam2s eval`'s own code."""
    import replay_bags as rb
    from PIL import Image

    from sam2s_model import StreamTracker, load_model
    from sam2s_model.config import TrackSettings
    from sam2s_model.evaluation.clip import Protocol, evaluate_clip
    from sam2s_model.evaluation.record import ClipRecord
    from sam2s_model.evaluation.scores import FIGURES, known, score_records
    from sam2s_model.video import FolderSequence, write_mask
    from sam2s_ros.replay.scoring import record_of

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(24):
        picture, ids = rb.scene(number)
        Image.fromarray(picture).save(tmp_path / "images" / f"{number:05d}.png")
        write_mask(tmp_path / "masks" / f"{number:05d}.png", ids)
    sequence = FolderSequence(tmp_path / "images", tmp_path / "masks", rb.CLASSES)
    record = ClipRecord("bags", "case", "")
    tracker = StreamTracker(load_model(str(weights)), track=TrackSettings(exclusive=True))
    evaluate_clip(sequence, tracker, Protocol("click1"), record)
    ours = [record_of(content) for content in by_topic["records"]]
    assert [r.targets[0].instance for r in ours] == [s.instance for s in record.targets] == [1, 2]
    for mine, series in zip(ours, record.targets, strict=True):
        (kept,) = mine.targets
        assert mine.annotated == record.annotated
        assert kept.area == series.area
        assert kept.class_name == series.class_name
        # Masks are scaled up by another library, which moves a pixel here and there.
        np.testing.assert_allclose(kept.j, series.j, atol=0.02)
        np.testing.assert_allclose(kept.f, series.f, atol=0.1)
        assert kept.said_absent == series.said_absent
    theirs = score_records([record]).targets
    for mine, scored in zip(by_topic["scores"]["targets"], theirs, strict=True):
        assert mine["frames"] == scored.frames == 22
        for key, _, _ in FIGURES:
            assert mine["figures"][key][1] == scored.ratio(key).total
        assert mine["values"]["j"] == pytest.approx(scored.jf.j, abs=0.02)
        for key in ("absence_recall", "reidentified"):
            assert mine["values"][key] == known(scored.ratio(key).value)
        assert len(scored.returns) == (1 if scored.target == "2" else 0)


def test_the_scores_judge_the_masks_that_were_written(by_topic, scored_folder):
    """Counted by hand from the new bag's masks and the old bag's truth."""
    import replay_bags as rb

    from sam2s_msgs.msg import TrackedObjects
    from sam2s_ros.conversions import rle_to_mask

    objects = rb.messages(scored_folder / "bag", "/tracker/objects", TrackedObjects)
    ours = {r["targets"][0]["name"]: r["targets"][0]["j"] for r in by_topic["records"]}
    for number, message in enumerate(objects):
        _, ids = rb.scene(number)
        for said, instance in zip(message.objects, (1, 2), strict=True):
            mask, truth = rle_to_mask(said.mask), ids == instance
            union = (mask | truth).sum()
            j = (mask & truth).sum() / union if union else 1.0
            assert ours[said.name][number] == pytest.approx(j, abs=1e-5)


@pytest.mark.parametrize("names", ["stamp", "nanoseconds", "table"])
def test_a_folder_of_masks_scores_the_same(bag, weights, by_topic, tmp_path, names):
    import replay_bags as rb

    from sam2s_model.video import write_mask
    from sam2s_ros.replay.runner import replay_bag

    masks, lines = tmp_path / "masks", ["file,stamp"]
    masks.mkdir()
    for number in range(24):
        stamp = rb.BEGIN + number * rb.STEP
        text = f"{stamp // 10**9}.{stamp % 10**9:09d}"
        stem = {"stamp": text, "nanoseconds": str(stamp), "table": f"mask{number}"}[names]
        write_mask(masks / f"{stem}.png", rb.scene(number)[1])
        lines.append(f"{stem}.png,{text}")
    if names == "table":
        (masks / "stamps.csv").write_text("\n".join(lines))
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({str(k): name for k, name in rb.CLASSES.items()}))
    inputs = {"truth": str(masks), "classes": str(classes)}
    results = replay_bag(bag, tmp_path / "out", rb.settings(weights, inputs=inputs))
    assert results["records"] == by_topic["records"]
    assert results["scores"] == by_topic["scores"]


def test_truth_that_is_missing_or_does_not_fit(bag, weights, tmp_path):
    """Frames without truth are tracked and not scored; a mask of another size is named."""
    import replay_bags as rb

    from sam2s_model.video import write_mask
    from sam2s_ros.replay.errors import TruthError
    from sam2s_ros.replay.runner import replay_bag

    masks = tmp_path / "masks"
    masks.mkdir()
    settings = rb.settings(weights, inputs={"truth": str(masks)})
    with pytest.raises(TruthError, match="holds no masks by stamp"):
        replay_bag(bag, tmp_path / "out", settings)
    for number in range(0, 24, 3):
        ids = rb.scene(number)[1] if number != 6 else np.ones((5, 5), np.uint8)
        write_mask(masks / f"{rb.BEGIN + number * rb.STEP}.png", ids)
    write_mask(masks / f"{rb.BEGIN + 1}.png", rb.scene(0)[1])
    results = replay_bag(bag, tmp_path / "out", settings)
    assert results["records"][0]["annotated"] == [0, 3, 9, 12, 15, 18, 21]
    assert len(results["targets"][0]["series"]["iou"]) == 24
    text = "\n".join(results["problems"])
    assert "frame 6: its truth is 5×5, the image 96×80" in text
    assert "1 mask(s) have a stamp that no image has, such as 1700000000.000000001" in text


def test_which_instance_a_prompt_means():
    import replay_bags as rb

    from sam2s_model import Prompt
    from sam2s_ros.replay.truth import prompted_instance

    _, ids = rb.scene(0)
    ids = ids.astype(np.int32)
    for prompt, expected in (
        (Prompt(points=[[24, 40]], labels=[1]), 1),
        (Prompt(points=[[70, 40], [24, 40]], labels=[1, 0]), 2),
        (Prompt(points=[[2, 2]], labels=[1]), None),
        (Prompt(box=[58, 28, 82, 52]), 2),
        (Prompt(box=[0, 0, 5, 5]), None),
        (Prompt(mask=ids == 1), 1),
    ):
        assert prompted_instance(prompt, ids) == expected


def test_an_entry_may_say_which_instance_it_is(weights, tmp_path):
    """A click beside the target, with `truth`; a removed target is scored up to its removal."""
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    prompts = """prompts:
  - {frame: 1, name: a, points: [[2, 2]], truth: 2}
  - {frame: 10, remove: a}
"""
    bag = rb.write_bag(tmp_path / "bag", prompts=prompts)
    settings = rb.settings(weights, inputs={"truth": rb.LABELS})
    results = replay_bag(bag, tmp_path / "out", settings)
    (record,) = results["records"]
    (series,) = record["targets"]
    assert (series["instance"], series["prompt_frame"]) == (2, 1)
    assert record["annotated"] == list(range(10))
    assert len(series["j"]) == 10
    assert [e["kind"] for e in results["events"] if e["target"] == "a"][-1] == "removed"
