"""What a replay says of bad input, and that it leaves nothing half-written."""

import pytest
import torch

pytestmark = pytest.mark.ros

if torch.get_num_threads() > 1:
    torch.set_num_threads(1)  # networks this small only wait for each other


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import replay_bags

    return replay_bags.weights(tmp_path_factory.mktemp("weights") / "nano.safetensors")


@pytest.fixture
def tell(weights, tmp_path, capsys):
    """Run `sam2s replay …` and give its exit code and what it printed to stderr."""
    from sam2s_model import cli

    def run(bag, *arguments):
        command = ["replay", str(bag), "--out", str(tmp_path / "out"), "--quiet"]
        code = cli.main(
            [*command, "--weights", str(weights), "--set", "threads=1", *map(str, arguments)]
        )
        return code, capsys.readouterr().err

    return run


def nothing_left(folder, *besides):
    assert sorted(path.name for path in folder.iterdir()) == sorted(besides)


# --- prompts files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no readable YAML"),
        ("[]", "expected `prompts:`"),
        ("prompts: []", "at least one entry"),
        ("prompts: [{}]\nframes: 3", "unknown key 'frames'"),
        ("prompts: [5]", "entry 1: expected keys"),
        ("prompts: [{frame: 0, nmae: a, points: [[1, 2]]}]", "did you mean 'name'?"),
        ("prompts: [{name: a, points: [[1, 2]]}]", "say when by one of frame, stamp, seconds"),
        ("prompts: [{frame: 0, stamp: 1, name: a, points: [[1, 2]]}]", "not by frame and stamp"),
        ("prompts: [{frame: -1, name: a, points: [[1, 2]]}]", "frame must be a whole number"),
        ("prompts: [{stamp: soon, name: a, points: [[1, 2]]}]", "stamp must be seconds"),
        ("prompts: [{frame: 0, points: [[1, 2]]}]", "`name` is missing"),
        ("prompts: [{frame: 0, name: a}]", "the prompt is empty"),
        ("prompts: [{frame: 0, name: a, points: [[1]]}]", "points must be [[x, y], …]"),
        ("prompts: [{frame: 0, name: a, points: [[x, y]]}]", "points must be [[x, y], …]"),
        ("prompts: [{frame: 0, name: a, points: [[1, 2]], labels: [7]}]", "labels must be 1"),
        ("prompts: [{frame: 0, name: a, box: [5, 5, 1, 1]}]", "box [5, 5, 1, 1] is empty"),
        ("prompts: [{frame: 0, name: a, mask: gone.png}]", "gone.png"),
        ("prompts: [{frame: 0, remove: a, box: [1, 1, 5, 5]}]", "a removal has no 'box'"),
    ],
)
def test_a_mistake_in_a_prompts_file_is_named(tmp_path, text, words):
    from sam2s_model.errors import Sam2sError
    from sam2s_ros.replay.prompts_file import read_prompts

    file = tmp_path / "prompts.yaml"
    file.write_text(text)
    with pytest.raises(Sam2sError) as caught:
        read_prompts(file)
    assert words in str(caught.value)


def test_a_prompts_file_is_read(tmp_path):
    import numpy as np

    from sam2s_model.video import write_mask
    from sam2s_ros.replay.prompts_file import read_prompts

    ids = np.zeros((8, 10), np.uint8)
    ids[2:4, 3:6], ids[5:7, 5:7] = 1, 2
    write_mask(tmp_path / "first.png", ids)
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "prompts:\n"
        "  - {stamp: 1700000000.123456789, name: a, points: [[1, 2], [3, 4]], class: hook}\n"
        "  - {seconds: 1.5, name: b, box: [1, 2, 3, 4], points: [[2, 3]], labels: [0], truth: 7}\n"
        "  - {frame: 3, name: c, mask: first.png, instance: 2}\n"
        "  - {frame: 4, name: d, mask: first.png}\n"
        "  - {frame: 5, remove: a}\n"
    )
    a, b, c, d, gone = read_prompts(file)
    assert a.stamp_ns == 1_700_000_000_123_456_789  # a float would have lost the last digits
    assert np.array_equal(a.prompt.labels, [1, 1])
    assert a.class_name == "hook"
    assert (b.from_start_ns, b.truth) == (1_500_000_000, 7)
    assert np.array_equal(b.prompt.box, [1, 2, 3, 4])
    assert np.array_equal(c.prompt.mask, ids == 2)
    assert np.array_equal(d.prompt.mask, ids > 0)
    assert (gone.name, gone.prompt, gone.frame) == ("a", None, 5)


# --- refused with code 2, nothing left ------------------------------------------------------


def test_a_missing_bag(tell, tmp_path):
    code, said = tell(tmp_path / "nowhere")
    assert code == 2
    assert "no such bag" in said
    nothing_left(tmp_path)


def test_a_topic_that_is_not_there_lists_those_that_are(tell, tmp_path):
    import replay_bags as rb

    bag = rb.write_bag(tmp_path / "bag", 2)
    code, said = tell(bag, "--topic", "/nope")
    assert code == 2
    assert "holds no topic /nope" in said
    for topic in (rb.IMAGE, rb.LABELS, rb.OBJECTS):
        assert topic in said
    nothing_left(tmp_path, "bag")


@pytest.mark.parametrize("option", ["--topic", "--truth", "--prompts-topic"])
def test_a_topic_of_another_type(tell, tmp_path, option):
    import replay_bags as rb

    bag = rb.write_bag(tmp_path / "bag", 2)
    code, said = tell(bag, option, rb.OBJECTS)
    assert code == 2
    assert "is of type sam2s_msgs/msg/TrackedObjects; it must be" in said
    nothing_left(tmp_path, "bag")


def test_several_cameras_need_a_choice(tell, tmp_path):
    import replay_bags as rb

    from sam2s_ros.bags.writer import BagWriter
    from sam2s_ros.conversions import rgb_to_image

    with BagWriter(tmp_path / "bag") as bag:
        for topic in ("/left/image", "/right/image"):
            bag.write(topic, rgb_to_image(rb.scene(0)[0], rb.header(rb.BEGIN)), rb.BEGIN)
    code, said = tell(tmp_path / "bag")
    assert code == 2
    assert "choose by --topic: /left/image, /right/image" in said


def test_nothing_to_track(tell, tmp_path):
    import replay_bags as rb

    bag = rb.write_bag(tmp_path / "bag", 2, prompts=None)
    code, said = tell(bag)
    assert code == 2
    assert "--prompts FILE" in said
    code, said = tell(bag, "--prompts", tmp_path / "none.yaml")
    assert code == 2
    assert "none.yaml: no readable YAML" in said
    nothing_left(tmp_path, "bag")


def test_prompts_that_never_apply(tell, tmp_path):
    import replay_bags as rb

    prompts = "prompts: [{frame: 99, name: a, points: [[5, 5]]}]"
    bag = rb.write_bag(tmp_path / "bag", 2, prompts=prompts)
    code, said = tell(bag)
    assert code == 2
    assert "no prompt could be applied" in said
    assert "lies after the bag's end (2 frames" in said
    nothing_left(tmp_path, "bag")


def test_a_bag_without_usable_images(tell, tmp_path):
    import replay_bags as rb

    def spoil(number, message):
        message.encoding = "32FC1"

    bag = rb.write_bag(tmp_path / "bag", 2, change=spoil)
    code, said = tell(bag)
    assert code == 2
    assert "holds no usable image" in said
    assert "'32FC1' is not supported" in said
    nothing_left(tmp_path, "bag")


def test_results_of_something_else_stay(tell, tmp_path):
    import replay_bags as rb

    bag = rb.write_bag(tmp_path / "bag", 2, truth=False)
    assert tell(bag)[0] == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    assert tell(bag)[0] == 0, "the same replay again is done already"
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    code, said = tell(bag, "--memory", "sam2")
    assert code == 2
    assert "give --overwrite" in said
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert tell(bag, "--memory", "sam2", "--overwrite")[0] == 0
    assert (tmp_path / "out" / "results.json").read_bytes() != before
    (tmp_path / "notes").mkdir()
    code, said = tell(bag, "--out", tmp_path / "notes")
    assert code == 2
    assert "holds no replay" in said


def test_an_interruption_leaves_nothing(weights, tmp_path):
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    bag = rb.write_bag(tmp_path / "bag", 6)
    video = str(tmp_path / "overlay.mp4")

    def interrupt(done, total):
        assert total == 6
        if done == 3:
            raise KeyboardInterrupt

    settings = rb.settings(weights, outputs={"overlay": video})
    with pytest.raises(KeyboardInterrupt):
        replay_bag(bag, tmp_path / "out", settings, progress=interrupt)
    nothing_left(tmp_path, "bag")


def test_parameters_of_the_node(tell, tmp_path):
    """A file and single values as the node takes them, with the node's own checks."""
    import replay_bags as rb

    from sam2s_ros.replay.results import load_results

    bag = rb.write_bag(tmp_path / "bag", 2, truth=False)
    file = tmp_path / "tracker.yaml"
    file.write_text("/**:\n  ros__parameters: {lost_after: 7, memory: sam2, use_sim_time: true}\n")
    for words, said in (
        (["--set", "lost_aftre=3"], "did you mean 'lost_after'?"),
        (["--set", "lost_after=0"], "it must be a whole number in 1…"),
        (["--set", "lost_after=soon"], "it must be a whole number in 1…"),
        (["--set", "lost_after"], "expected NAME=VALUE"),
        (["--set", "iou_low=0.9"], "iou_low"),
        (["--params-file", tmp_path / "none.yaml"], "no parameters file"),
    ):
        code, error = tell(bag, *words)
        assert code == 2
        assert said in error
    assert tell(bag, "--params-file", file, "--set", "iou_low=0.1", "--set", "threads=1")[0] == 0
    tracker = load_results(tmp_path / "out")["settings"]["tracker"]
    assert (tracker["lost_after"], tracker["memory"], tracker["iou_low"]) == (7, "sam2", 0.1)


# --- told in the report ---------------------------------------------------------------------


@pytest.fixture
def replay(weights, tmp_path):
    """Replay a bag and give its results; what is warned of is in the page too."""
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    def run(bag, **inputs):
        results = replay_bag(bag, tmp_path / "out", rb.settings(weights, inputs=inputs))
        page = (tmp_path / "out" / "report.html").read_text()
        assert ("problem" in page) == bool(results["problems"])
        return results

    return run


def test_prompts_outside_the_bag_are_named(replay, tmp_path):
    import replay_bags as rb

    prompts = """prompts:
  - {stamp: 1699999999.5, name: early, points: [[24, 40]]}
  - {frame: 0, name: left, points: [[24, 40]]}
  - {frame: 1, name: outside, points: [[500, 40]]}
  - {seconds: 60, name: late, points: [[24, 40]]}
  - {frame: 2, remove: nobody}
"""
    results = replay(rb.write_bag(tmp_path / "bag", 4, prompts=prompts, truth=False))
    assert [target["name"] for target in results["targets"]] == ["left"]
    early, outside, nobody, late = sorted(
        results["problems"], key=lambda p: ["early", "outside", "nobody", "late"].index(
            next(n for n in ("early", "outside", "nobody", "late") if f"'{n}'" in p)
        )
    )  # fmt: skip
    assert "entry 1" in early
    assert "before the bag's first image" in early
    assert "refused on frame 1" in outside
    assert "outside the image" in outside
    assert "is not tracked; targets: left" in nobody
    assert "after the bag's end" in late


def test_stamps_that_do_not_grow(replay, tmp_path):
    """Repeated and slightly late images are left out as by the node; after a jump it goes on."""
    import replay_bags as rb

    begin, step = rb.BEGIN, rb.STEP
    steps = [0, 1, 1, 3, 2, 4, -1000, -999]
    stamps = [begin + k * step for k in steps]
    prompts = "prompts: [{frame: 0, name: left, points: [[24, 40]]}]"
    results = replay(rb.write_bag(tmp_path / "bag", stamps=stamps, prompts=prompts, truth=False))
    assert results["input"]["frames"] == 6
    assert results["input"]["left_out"] == 2
    assert results["stamps_ns"] == [begin + k * step for k in (0, 1, 3, 4, -1000, -999)]
    text = "\n".join(results["problems"])
    for words in ("repeats the stamp", "comes out of order", "the stamps go back"):
        assert words in text
    assert "clock_jumped" in [event["kind"] for event in results["events"]]


def test_images_that_cannot_be_decoded_are_left_out(replay, tmp_path):
    import replay_bags as rb

    def spoil(number, message):
        if number % 2:
            del message.data[100:]

    prompts = "prompts: [{frame: 0, name: left, points: [[24, 40]]}]"
    bag = rb.write_bag(tmp_path / "bag", 12, change=spoil, prompts=prompts, truth=False)
    results = replay(bag)
    assert (results["input"]["frames"], results["input"]["left_out"]) == (6, 6)
    named = [p for p in results["problems"] if "the image was left out" in p]
    assert len(named) == 3
    assert any("3 more like this" in p for p in results["problems"])


def test_images_may_change_their_size(weights, tmp_path):
    """As when a camera is set anew; the overlay keeps its first size."""
    import replay_bags as rb

    from sam2s_model.video import VideoReader
    from sam2s_ros.replay.runner import replay_bag

    def halve(number, message):
        if number >= 3:
            message.height //= 2
            del message.data[message.height * message.step :]

    prompts = "prompts: [{frame: 0, name: left, points: [[24, 20]]}]"
    bag = rb.write_bag(tmp_path / "bag", 8, change=halve, prompts=prompts, truth=False)
    outputs = {"overlay": str(tmp_path / "{bag}.mp4")}
    results = replay_bag(bag, tmp_path / "out", rb.settings(weights, outputs=outputs))
    assert (results["input"]["frames"], results["input"]["height"]) == (8, 40)
    video = VideoReader(tmp_path / "bag.mp4")
    assert (len(video), video.size) == (8, (80, 96))


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_truncated_bag_is_replayed_to_its_end(replay, tmp_path, storage):
    import replay_bags as rb

    bag = rb.write_bag(tmp_path / "bag", 80, storage=storage, truth=False)
    file = next(p for p in bag.iterdir() if p.suffix in (".db3", ".mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 4])
    results = replay(bag)
    assert 10 < results["input"]["frames"] < 30
    told = next(p for p in results["problems"] if "cut short or damaged" in p)
    assert f"{results['input']['frames']} messages of /camera/image could be read" in told
    assert "the last one at 1700000000." in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("message_count: 18", "message_count: 99"), "promises 99"),
        (lambda text: "no: [metadata", "is wrong"),
        (None, "has no metadata.yaml"),
    ],
)
def test_wrong_metadata_are_mentioned(replay, tmp_path, change, words):
    import replay_bags as rb

    bag = rb.write_bag(tmp_path / "bag", 6)
    file = bag / "metadata.yaml"
    if change is None:
        file.unlink()
    else:
        file.write_text(change(file.read_text()))
    results = replay(bag)
    assert results["input"]["frames"] == 6
    assert words in results["problems"][0]


def test_stamps_of_another_clock_are_mentioned(replay, weights, tmp_path):
    import replay_bags as rb

    from sam2s_ros.bags.reader import Bag
    from sam2s_ros.replay.runner import replay_bag

    stamps = [5_000_000_000 + k * rb.STEP for k in range(3)]
    prompts = "prompts: [{frame: 0, name: left, points: [[24, 40]]}]"
    bag = rb.write_bag(tmp_path / "bag", stamps=stamps, prompts=prompts, truth=False)
    assert "--times recorded" in replay(bag)["problems"][0]
    settings = rb.settings(weights, outputs={"times": "recorded"})
    replay_bag(bag, tmp_path / "recorded", settings)
    for folder, times in (
        ("out", stamps),
        ("recorded", [rb.BEGIN + k * rb.STEP for k in range(3)]),
    ):
        with Bag(tmp_path / folder / "bag") as made:
            assert [m.time_ns for m in made.messages("/tracker/objects")] == times
