"""A bag replayed: what comes out, always the same, and the same as a session says."""

import importlib.util
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.ros

if torch.get_num_threads() > 1:
    torch.set_num_threads(1)  # networks this small only wait for each other


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import replay_bags

    return replay_bags.weights(tmp_path_factory.mktemp("weights") / "nano.safetensors")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    import replay_bags

    return replay_bags.write_bag(tmp_path_factory.mktemp("bags") / "case")


@pytest.fixture(scope="module")
def replayed(bag, weights, tmp_path_factory):
    """The bag replayed with everything switched on, into this folder."""
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    out = tmp_path_factory.mktemp("out") / "case"
    video = out.parent / "{bag}.mp4"
    settings = rb.settings(weights, inputs={"truth": rb.LABELS}, outputs={"overlay": str(video)})
    replay_bag(bag, out, settings, command="sam2s replay case")
    return out


@pytest.fixture(scope="module")
def results(replayed):
    from sam2s_ros.replay.results import load_results

    return load_results(replayed)


def test_every_frame_has_the_trackers_topics_at_its_stamp(replayed):
    import replay_bags as rb
    from sensor_msgs.msg import Image

    from sam2s_msgs.msg import InstrumentClasses, TrackedObjects, TrackEvent
    from sam2s_msgs.msg import Prompt as PromptMessage
    from sam2s_ros.bags.reader import Bag
    from sam2s_ros.headers import nanoseconds

    stamps = [rb.BEGIN + n * rb.STEP for n in range(24)]
    for name, kind in (
        ("objects", TrackedObjects), ("label_map", Image), ("classes", InstrumentClasses)
    ):  # fmt: skip
        found = rb.messages(replayed / "bag", f"/tracker/{name}", kind)
        assert [nanoseconds(m.header.stamp) for m in found] == stamps
        assert {m.header.frame_id for m in found} == {"endoscope"}
    with Bag(replayed / "bag") as made:
        assert [m.time_ns for m in made.messages("/tracker/objects")] == stamps
    objects = rb.messages(replayed / "bag", "/tracker/objects", TrackedObjects)
    assert [[o.name for o in m.objects] for m in (objects[0], objects[3])] == [
        ["left"], ["left", "right"]
    ]  # fmt: skip
    assert [m.frame_index for m in objects] == list(range(24))
    prompts = rb.messages(replayed / "bag", "/tracker/prompts", PromptMessage)
    assert [(p.name, p.correction, nanoseconds(p.header.stamp)) for p in prompts] == [
        ("left", False, stamps[0]), ("right", False, stamps[3]), ("left", True, stamps[8])
    ]  # fmt: skip
    events = rb.messages(replayed / "bag", "/tracker/events", TrackEvent)
    assert [e.target for e in events if e.kind == TrackEvent.ADDED] == ["left", "right"]


@pytest.mark.skipif(
    importlib.util.find_spec("vision_msgs") is None,
    reason="vision_msgs comes with a ROS 2 distribution only",
)
def test_label_info_is_written_when_it_changes(replayed):
    import replay_bags as rb
    from vision_msgs.msg import LabelInfo

    said = rb.messages(replayed / "bag", "/tracker/label_info", LabelInfo)
    maps = [{c.class_id: c.class_name for c in message.class_map} for message in said]
    assert maps == [{1: "left"}, {1: "left", 2: "right"}]
    assert [m.header.stamp.nanosec for m in said] == [0, 120_000_000]


def test_results_and_pictures(replayed, results):
    import replay_bags as rb

    assert rb.files(replayed)[:3] == ["bag", "bag/bag.db3", "bag/metadata.yaml"]
    source = results["input"]
    assert (source["frames"], source["width"], source["height"]) == (24, 96, 80)
    assert source["fps"] == 25.0
    assert results["problems"] == []
    left, right = results["targets"]
    assert (left["name"], left["first_frame"], left["last_frame"]) == ("left", 0, 23)
    assert left["prompts"] == [
        {"frame": 0, "kind": "points", "correction": False},
        {"frame": 8, "kind": "points", "correction": True},
    ]
    assert (right["first_frame"], right["prompts"][0]["kind"]) == (3, "box")
    assert sum(n for _, n in right["series"]["state"]) == 21
    assert len(right["series"]["iou"]) == len(right["series"]["j"]) == 21
    for key in ("topic", "file"):
        assert key in json.dumps(results["settings"])
    assert results["settings"]["tracker"]["weights_sha256"]
    assert results["timing"]["latency_ms"]["steps"] == 21
    assert sum(results["timing"]["histogram"]["counts"]) == 21
    for moment in results["worst"]:
        assert (replayed / moment["picture"]).read_bytes()[:3] == b"\xff\xd8\xff"


def test_overlay_video_has_every_frame(replayed):
    from sam2s_model.video import VideoReader

    video = VideoReader(replayed.parent / "case.mp4")
    assert len(video) == 24
    assert video.size == (80, 96)
    assert video.fps == 25.0


def test_the_same_bits_on_every_run_and_from_every_storage(bag, weights, replayed, tmp_path):
    """Also from a bag of the other storage, compressed, and written into another storage."""
    import replay_bags as rb

    from sam2s_ros.replay.results import load_results
    from sam2s_ros.replay.runner import replay_bag

    again = tmp_path / "again"
    other = rb.write_bag(tmp_path / "case", storage="mcap", compression="chunk")
    inputs = {"truth": rb.LABELS}
    replay_bag(bag, again, rb.settings(weights, inputs=inputs))
    replay_bag(
        other, tmp_path / "other",
        rb.settings(weights, inputs=inputs, outputs={"storage": "mcap", "compression": "chunk"}),
    )  # fmt: skip
    assert (again / "bag/bag.db3").read_bytes() == (replayed / "bag/bag.db3").read_bytes()
    assert (again / "bag/metadata.yaml").read_bytes() == (
        replayed / "bag/metadata.yaml"
    ).read_bytes()
    assert sorted(rb.raw_messages(again / "bag")) == sorted(rb.raw_messages(tmp_path / "other/bag"))
    first, second, third = (load_results(p) for p in (replayed, again, tmp_path / "other"))
    for changing in ("timing", "command", "versions"):  # a digest of this code is among these
        assert changing in first
        for one in (first, second):
            del one[changing]
    assert first == second
    assert third["output"]["messages_sha256"] == second["output"]["messages_sha256"]
    assert third["input"]["images_sha256"] == second["input"]["images_sha256"]
    assert third["targets"] == second["targets"]


def test_a_replay_is_what_a_session_says(bag, weights, replayed):
    import replay_bags as rb

    from sam2s_model import Prompt, StreamTracker, load_model
    from sam2s_model.config import TrackSettings
    from sam2s_msgs.msg import TrackedObjects
    from sam2s_ros.conversions import rle_to_mask
    from sam2s_ros.session import PromptRequest, Session

    exclusive = TrackSettings(exclusive=True)
    session = Session(StreamTracker(load_model(str(weights)), "divemem", track=exclusive))
    prompts = {
        0: [PromptRequest("left", Prompt(points=[[24, 40]], labels=[1]), "grasper")],
        3: [PromptRequest("right", Prompt(box=[58, 28, 82, 52]))],
        8: [PromptRequest("left", Prompt(points=[[24, 40], [60, 70]], labels=[1, 0]))],
    }
    written = rb.messages(replayed / "bag", "/tracker/objects", TrackedObjects)
    for number, message in enumerate(written):
        picture, _ = rb.scene(number)
        stamp = rb.BEGIN + number * rb.STEP
        result = session.process(stamp, "endoscope", picture, prompts.get(number, []))
        assert len(result.objects) == len(message.objects)
        for entry, said in zip(result.objects, message.objects, strict=True):
            assert (entry.name, entry.label_value) == (said.name, said.label_value)
            assert np.float32(entry.iou) == np.float32(said.iou)
            np.testing.assert_array_equal(entry.mask, rle_to_mask(said.mask))


def test_recorded_prompts_replay_a_session(bag, weights, replayed, tmp_path):
    """The images with the prompts that the replay itself has published give the same results."""
    import replay_bags as rb
    from sensor_msgs.msg import Image

    from sam2s_msgs.msg import Prompt as PromptMessage
    from sam2s_msgs.msg import TrackEvent
    from sam2s_ros.bags.writer import BagWriter
    from sam2s_ros.replay.runner import replay_bag

    with BagWriter(tmp_path / "recorded") as made:
        for image in rb.messages(bag, rb.IMAGE, Image):
            made.write(rb.IMAGE, image, _stamp(image))
        for prompt in rb.messages(replayed / "bag", "/tracker/prompts", PromptMessage):
            made.write("/tracker/prompts", prompt, _stamp(prompt) + 30_000_000)
        removed = TrackEvent(kind=TrackEvent.REMOVED, target="left")
        removed.header = rb.header(rb.BEGIN + 14 * rb.STEP)
        made.write("/tracker/events", removed, rb.BEGIN + 14 * rb.STEP + 5)
    results = replay_bag(tmp_path / "recorded", tmp_path / "out", rb.settings(weights))
    assert results["settings"]["prompts"] == {"topic": "/tracker/prompts"}
    left, right = results["targets"]
    assert (left["first_frame"], left["last_frame"]) == (0, 14)
    names = ("/tracker/objects", "/tracker/label_map")
    ours, theirs = (
        [m for m in rb.raw_messages(p / "bag") if m[0] in names and m[1] <= left_until()]
        for p in (replayed, tmp_path / "out")
    )
    assert len(ours) == 30
    assert ours == theirs
    # A removed target's pixels are free for the others from then on, and not before.
    alone, both = right["series"]["area"], _target(replayed, "right")["series"]["area"]
    until = 15 - right["first_frame"]
    assert alone[:until] == both[:until]
    assert alone[until:] != both[until:]
    assert len(alone) == len(both)


def left_until():
    import replay_bags as rb

    return rb.BEGIN + 14 * rb.STEP


def _target(folder, name):
    from sam2s_ros.replay.results import load_results

    return next(t for t in load_results(folder)["targets"] if t["name"] == name)


def _stamp(message):
    from sam2s_ros.headers import nanoseconds

    return nanoseconds(message.header.stamp)


def test_jpeg_images_are_replayed(weights, tmp_path):
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    bag = rb.write_bag(tmp_path / "bag", 4, jpeg=True, truth=False)
    results = replay_bag(bag, tmp_path / "out", rb.settings(weights))
    assert results["input"]["type"] == "sensor_msgs/msg/CompressedImage"
    assert results["input"]["frames"] == 4
    assert results["scores"] is None


class Page(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.texts, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "rect", "line", "path", "polyline", "polygon"):
            self.open.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in ("rect", "line", "path", "polyline", "polygon"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read_page(path):
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_report_is_one_file_with_everything_in_it(replayed, results):
    page = read_page(replayed / "report.html")
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert len(page.sources) == len(results["worst"]) > 0
    text = " ".join(page.texts)
    headings = ["Targets", "Timelines", "Worst moments", "Latency", "Against the truth", "Settings"]
    hashes = [results["output"]["messages_sha256"], results["input"]["images_sha256"]]
    for words in ("left", "right", *headings, *hashes, "sam2s replay case"):
        assert words in text
    assert page.tags.count("svg") == 3
    assert "prompt (box) on frame 3" in text
    assert "correction (points) on frame 8" in text
    assert "out of view: frames 12–19" in text, "by the truth, disc 2 is away"
    assert "in view: frames 3–11" in text
    assert "between two images" in text, "whether it would have kept up with the camera"
    assert "script" not in page.tags


def test_a_name_cannot_write_html(weights, tmp_path):
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    prompts = "prompts:\n  - {frame: 0, name: '<script>x</script>&', points: [[24, 40]]}\n"
    bag = rb.write_bag(tmp_path / "bag", 3, truth=False, prompts=prompts)
    replay_bag(bag, tmp_path / "out", rb.settings(weights))
    page = read_page(tmp_path / "out" / "report.html")
    assert "script" not in page.tags
    assert "<script>x</script>&" in page.texts
