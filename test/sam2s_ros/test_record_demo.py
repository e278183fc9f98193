"""`sam2s record-demo`: a bag that can be replayed as it is, with truth."""

import numpy as np
import pytest

pytestmark = pytest.mark.ros

FRAMES = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    from sam2s_model import cli

    out = tmp_path_factory.mktemp("demo") / "bag"
    size = ["--width", "96", "--height", "80", "--rate", "10", "--seconds", "0.6"]
    assert cli.main(["record-demo", "--out", str(out), "--quiet", *size]) == 0
    return out


def test_the_bag_holds_images_truth_and_prompts(recorded):
    import replay_bags as rb
    from sensor_msgs.msg import CompressedImage, Image

    from sam2s_model.synth import SurgicalScene
    from sam2s_msgs.msg import TrackedObjects
    from sam2s_ros.conversions import image_to_labels, image_to_rgb
    from sam2s_ros.headers import nanoseconds
    from sam2s_ros.replay.prompts_file import read_prompts

    images = rb.messages(recorded, "/endoscope/image_raw/compressed", CompressedImage)
    labels = rb.messages(recorded, "/endoscope/ground_truth/label_map", Image)
    objects = rb.messages(recorded, "/endoscope/ground_truth/objects", TrackedObjects)
    assert len(images) == len(labels) == len(objects) == FRAMES
    stamps = [nanoseconds(image.header.stamp) for image in images]
    assert np.diff(stamps).tolist() == [100_000_000] * (FRAMES - 1)
    assert [nanoseconds(label.header.stamp) for label in labels] == stamps
    scene = SurgicalScene(7, 96, 80, fps=10)
    shot = scene.render(3)
    assert np.array_equal(image_to_labels(labels[3]), shot.masks)
    assert np.abs(image_to_rgb(images[3]).astype(int) - shot.image).mean() < 8  # it is a jpeg
    actions = read_prompts(recorded / "prompts.yaml")
    assert actions
    for action in actions:
        ((x, y),) = np.asarray(action.prompt.points).astype(int).tolist()
        masks = scene.render(action.frame).masks
        assert masks[y, x] == action.truth
        assert action.name.endswith(f"-{action.truth}")


def test_the_same_settings_give_the_same_bag(recorded, tmp_path):
    from sam2s_ros.replay.demo import DemoSettings, record_demo

    settings = DemoSettings(0.6, 7, 96, 80, 10.0)
    record_demo(tmp_path / "bag", settings, show_progress=False)
    for name in ("bag.db3", "metadata.yaml", "prompts.yaml"):
        assert (tmp_path / "bag" / name).read_bytes() == (recorded / name).read_bytes()


def test_it_is_replayed_without_any_further_word(recorded, tmp_path):
    import replay_bags as rb

    from sam2s_model import cli
    from sam2s_ros.replay.results import load_results

    weights = rb.weights(tmp_path / "nano.safetensors")
    command = ["replay", str(recorded), "--model", str(weights), "--set", "threads=1", "--quiet"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0
    assert cli.main([*command, "--truth", "none", "--out", str(tmp_path / "unscored")]) == 0
    assert load_results(tmp_path / "unscored")["scores"] is None
    results = load_results(tmp_path / "out")
    assert results["input"]["frames"] == FRAMES
    assert {t["class"] for t in results["scores"]["targets"]} <= {"needle driver"}
    assert results["scores"]["targets"]


def test_the_options_offer_every_form_of_a_bag():
    from sam2s_ros.bags.writer import COMPRESSIONS, STORAGES
    from sam2s_ros.commands import bag_options

    assert (bag_options.STORAGES, bag_options.COMPRESSIONS) == (STORAGES, COMPRESSIONS)


def test_what_cannot_be_recorded(recorded, tmp_path, capsys):
    from sam2s_model import cli

    assert cli.main(["record-demo", "--out", str(recorded), "--seconds", "1"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["record-demo", "--out", str(tmp_path / "x"), "--seconds", "0"]) == 2
    assert "are no frame" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
