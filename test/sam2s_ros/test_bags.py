"""Bags of both storages, compressed or not, whole or cut short, of old and new metadata."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

pytestmark = pytest.mark.ros

STORAGES = {"sqlite3": "db3", "mcap": "mcap"}
KINDS = [
    (storage, compression)
    for storage in STORAGES
    for compression in ("none", "file", "message", "chunk")
    if (storage, compression) != ("sqlite3", "chunk")
]
START = 1_700_000_000_000_000_000
STEP = 40_000_000


def picture(number, size=96):
    """An image of noise, so that a whole message can be told from a damaged one."""
    from std_msgs.msg import Header

    from sam2s_ros.conversions import rgb_to_image

    header = Header(frame_id="endoscope")
    header.stamp.sec, header.stamp.nanosec = divmod(START + number * STEP, 10**9)
    noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
    return rgb_to_image(noise, header)


def event(number):
    from sam2s_msgs.msg import TrackEvent

    message = TrackEvent(kind=TrackEvent.ADDED, target=f"target {number}", label_value=number + 1)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(START + number * STEP, 10**9)
    return message


def write(path, storage="sqlite3", compression="none", frames=20, size=96):
    from sam2s_ros.bags.writer import BagWriter

    with BagWriter(path, storage, compression, {"made by": "a test"}) as writer:
        for number in range(frames):
            writer.write("/camera/image", picture(number, size), START + number * STEP)
            if number % 5 == 0:
                writer.write("/tracker/events", event(number), START + number * STEP)
    return path


def storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix in (".db3", ".mcap"))


def read(path, *topics):
    """All messages of some topics as (topic, time, bytes), and the bag's problems."""
    from sam2s_ros.bags.reader import Bag

    with Bag(path) as bag:
        found = [(m.topic, m.time_ns, m.data) for m in bag.messages(*(topics or bag.topics))]
        return found, bag.problems


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_what_is_written_is_read(tmp_path, storage, compression):
    from sensor_msgs.msg import Image

    from sam2s_msgs.msg import TrackEvent
    from sam2s_ros.bags.reader import Bag, decode

    path = write(tmp_path / "bag", storage, compression)
    with Bag(path) as bag:
        assert {(t.kind, t.total) for t in bag.topics.values()} == {
            ("sensor_msgs/msg/Image", 20),
            ("sam2s_msgs/msg/TrackEvent", 4),
        }
        assert bag.span_ns == (START, START + 19 * STEP)
        images = list(bag.messages("/camera/image"))
        assert [m.time_ns for m in images] == [START + n * STEP for n in range(20)]
        assert [decode(m, Image) for m in images] == [picture(n) for n in range(20)]
        events = [decode(m, TrackEvent) for m in bag.messages("/tracker/events")]
        assert events == [event(n) for n in range(0, 20, 5)]
        both = [m.time_ns for m in bag.messages("/camera/image", "/tracker/events")]
        assert len(both) == 24
        assert both == sorted(both)
        assert bag.problems == []


@pytest.mark.parametrize("storage", STORAGES)
def test_same_messages_same_bytes(tmp_path, storage):
    """Also where the middleware leaves garbage in the padding of a message."""
    from sam2s_ros.bags.writer import BagWriter

    digests = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with BagWriter(tmp_path / folder / "bag", storage) as writer:
            for number in range(200):
                junk = [os.urandom(50 + 7 * number) for _ in range(3)]
                del junk
                writer.write("/events", event(number), START + number)
            digests.append(writer.digest)
    files = [sorted((tmp_path / folder / "bag").iterdir()) for folder in ("a", "b")]
    assert [f.name for f in files[0]] == [f.name for f in files[1]]
    for left, right in zip(*files, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name
    assert digests[0] == digests[1]


def test_definitions_have_the_hash_that_the_generator_gave():
    from sam2s_ros.bags.definitions import _prefixes, definitions

    share = next(
        p / "share/sam2s_msgs/msg" for p in _prefixes() if (p / "share/sam2s_msgs").is_dir()
    )
    files = sorted(share.glob("*.json"))
    assert len(files) >= 10
    for file in files:
        kind = f"sam2s_msgs/msg/{file.stem}"
        described = json.loads(file.read_text())["type_hashes"]
        expected = next(h["hash_string"] for h in described if h["type_name"] == kind)
        assert definitions().of(kind).digest == expected


def test_an_unknown_type_is_named():
    from sam2s_ros.bags.definitions import definitions
    from sam2s_ros.bags.errors import UnknownTypeError

    with pytest.raises(UnknownTypeError, match="no_such_msgs/msg/Thing"):
        definitions().of("no_such_msgs/msg/Thing")


def test_nothing_is_left_of_a_bag_that_failed(tmp_path):
    from sam2s_ros.bags.errors import BagExistsError
    from sam2s_ros.bags.writer import BagWriter

    def fail():
        with BagWriter(tmp_path / "bag") as writer:
            writer.write("/events", event(0), START)
            assert not (tmp_path / "bag").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "bag", frames=1)
    with pytest.raises(BagExistsError):
        BagWriter(tmp_path / "bag")


@pytest.mark.parametrize(
    ("storage", "compression"), [(s, c) for s, c in KINDS if c != "message" or s == "mcap"]
)
@pytest.mark.parametrize("share", [0.9, 0.45])
def test_a_truncated_bag_is_read_to_where_it_ends(tmp_path, storage, compression, share):
    path = write(tmp_path / "bag", storage, compression, frames=120)
    whole, _ = read(path, "/camera/image")
    file = next(p for p in path.iterdir() if p.name != "metadata.yaml")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    part, problems = read(path, "/camera/image")
    assert 0.6 * share * len(whole) < len(part) < len(whole)
    assert part == whole[: len(part)]
    assert any(f"{file.name}" in p and f"{len(part)} messages" in p for p in problems), problems


def test_damage_in_the_middle_ends_the_reading_there(tmp_path):
    path = write(tmp_path / "bag", frames=120)
    file = storage_file(path)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50_000] = b"\xff" * 50_000
    file.write_bytes(content)
    part, problems = read(path, "/camera/image")
    assert 30 < len(part) < 110
    assert "cut short or damaged" in problems[-1]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_without_metadata_is_read(tmp_path, storage):
    path = write(tmp_path / "bag", storage)
    (path / "metadata.yaml").unlink()
    found, problems = read(path)
    assert len(found) == 24
    assert "no metadata.yaml" in problems[0]
    alone, problems = read(storage_file(path))
    assert alone == found
    assert problems == []


def test_wrong_metadata_is_named_and_the_files_decide(tmp_path):
    path = write(tmp_path / "bag")
    file = path / "metadata.yaml"
    good = file.read_text()
    content = yaml.safe_load(good)
    info = content["rosbag2_bagfile_information"]
    for change, words in (
        ({"message_count": 99}, "promises 99 messages, its files hold 24"),
        ({"relative_file_paths": ["bag.db3", "gone.db3"]}, "names gone.db3"),
        ({"relative_file_paths": []}, "does not name bag.db3"),
        ({"version": 42}, "version 42"),
        ({"version": "x"}, "is wrong (ValueError"),
    ):
        file.write_text(yaml.safe_dump({"rosbag2_bagfile_information": {**info, **change}}))
        found, problems = read(path)
        assert len(found) == 24
        assert len(problems) == 1
        assert words in problems[0]
    file.write_text("{not yaml")
    found, problems = read(path)
    assert len(found) == 24
    assert "is wrong" in problems[0]


def old_metadata(info, version):
    """Metadata as older distributions wrote them: 4 Foxy, 5 Humble, 6 Iron, 8 Jazzy, 9 Kilted."""
    for topic in info["topics_with_message_count"]:
        if version < 7:
            topic["topic_metadata"].pop("type_description_hash")
        if version < 4:
            topic["topic_metadata"].pop("offered_qos_profiles")
    if version < 3:
        info.pop("compression_format")
        info.pop("compression_mode")
    if version < 5:
        info.pop("files")
    if version < 6:
        info.pop("custom_data")
    if version < 8:
        info.pop("ros_distro")
    return {"rosbag2_bagfile_information": {**info, "version": version}}


@pytest.mark.parametrize("version", range(1, 10))
def test_metadata_of_every_distribution_are_read(tmp_path, version):
    path = write(tmp_path / "bag")
    file = path / "metadata.yaml"
    info = yaml.safe_load(file.read_text())["rosbag2_bagfile_information"]
    file.write_text(yaml.safe_dump(old_metadata(info, version)))
    found, problems = read(path)
    assert len(found) == 24
    assert problems == []


def test_tables_of_humble_are_read(tmp_path):
    """Before Iron a .db3 file held no definitions and no hashes, before Humble no schema."""
    path = write(tmp_path / "bag")
    whole, _ = read(path)
    with contextlib.closing(sqlite3.connect(storage_file(path))) as database, database:
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
    assert read(path) == (whole, [])
    with contextlib.closing(sqlite3.connect(storage_file(path))) as database, database:
        database.execute("DROP TABLE schema")
        database.execute("DROP TABLE metadata")
        database.execute("ALTER TABLE topics DROP COLUMN offered_qos_profiles")
    assert read(path) == (whole, [])


def test_parts_are_read_in_their_order(tmp_path):
    """A recording split into files, the tenth after the ninth."""
    bag = tmp_path / "bag"
    bag.mkdir()
    for part in range(11):
        from sam2s_ros.bags.writer import BagWriter

        with BagWriter(tmp_path / f"bag_{part}") as writer:
            writer.write("/events", event(part), START + part * STEP)
        (tmp_path / f"bag_{part}" / f"bag_{part}.db3").rename(bag / f"bag_{part}.db3")
    found, _ = read(bag)
    assert [time for _, time, _ in found] == [START + part * STEP for part in range(11)]


def test_what_is_no_bag_is_refused(tmp_path):
    from sam2s_ros.bags.errors import NoBagError, UnreadableBagError
    from sam2s_ros.bags.reader import Bag

    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("text")
    for path, words in (("missing", "no such bag"), ("empty", "holds no"), ("a.txt", "is no bag")):
        with pytest.raises(NoBagError, match=words):
            Bag(tmp_path / path)
    for name in ("a.db3", "a.mcap"):
        (tmp_path / name).write_bytes(os.urandom(5000))
        with pytest.raises(UnreadableBagError, match="cannot be read"):
            Bag(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UnreadableBagError):
            Bag(tmp_path / name)


def test_topics_are_checked(tmp_path):
    from sam2s_ros.bags.errors import TopicTypeError, UnknownTopicError
    from sam2s_ros.bags.reader import Bag

    with Bag(write(tmp_path / "bag", frames=1)) as bag:
        with pytest.raises(UnknownTopicError, match=r"/camera/image  sensor_msgs/msg/Image"):
            bag.require("/nope", ["sensor_msgs/msg/Image"])
        with pytest.raises(TopicTypeError, match="must be sensor_msgs/msg/Image"):
            bag.require("/tracker/events", ["sensor_msgs/msg/Image"])
        assert [t.name for t in bag.of_kind("sensor_msgs/msg/Image")] == ["/camera/image"]


def test_bags_below_a_folder_are_found(tmp_path):
    from sam2s_ros.bags.files import find_bags

    paths = [tmp_path / "a", tmp_path / "case 2" / "b", tmp_path / "case 2" / "c"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        write(path, frames=1)
    (tmp_path / "notes").mkdir()
    assert find_bags(tmp_path) == paths
    assert find_bags(paths[0]) == paths[:1]


@pytest.mark.skipif(shutil.which("ros2") is None, reason="`ros2 bag` is not installed here")
@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_ros2_bag_reads_what_is_written(tmp_path, storage, compression):
    path = write(tmp_path / "bag", storage, compression)
    done = subprocess.run(["ros2", "bag", "info", path], capture_output=True, text=True)
    if "No storage" in done.stderr or "plugin" in done.stderr:
        pytest.skip(f"ros2 bag has no plugin for {storage}: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert "/camera/image" in done.stdout
    assert "Count: 20" in done.stdout
    assert Path(path, "metadata.yaml").is_file()
