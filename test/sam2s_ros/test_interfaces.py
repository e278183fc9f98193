"""The interfaces: documented in every field, built, and true to their own documentation."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sam2s_msgs").glob("*/*.[ms][sr][gv]"))
FIELD = re.compile(r"^[\w/]+(\[[<=\d]*\])? +\w+")


def test_there_are_interfaces():
    assert len(FILES) == 18


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_field_is_commented(path):
    """Unit and frame of reference stand in the field's comment or in the head of the file."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    for line in lines:
        if FIELD.match(line):
            assert re.search(r" # \S.{5,}", line), f"{path.name}: no comment: {line}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_interface_is_built(path):
    cmake = (ROOT / "sam2s_msgs" / "CMakeLists.txt").read_text()
    assert f'"{path.parent.name}/{path.name}"' in cmake


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_interface_loads_and_survives_the_wire(path):
    import importlib

    from rclpy.serialization import deserialize_message, serialize_message

    kind = getattr(importlib.import_module(f"sam2s_msgs.{path.parent.name}"), path.stem)
    for part in [kind] if path.suffix == ".msg" else [kind.Request, kind.Response]:
        assert deserialize_message(serialize_message(part()), part) == part()


@pytest.mark.ros
def test_rle_decodes_as_its_comment_says():
    from sam2s_msgs.msg import RleMask

    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:6] = True
    mask[0, 0] = True
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size])
    counts = [0, *counts] if flat[0] else list(counts)
    message = RleMask(height=5, width=7, counts=[int(n) for n in counts])

    comment = (ROOT / "sam2s_msgs" / "msg" / "RleMask.msg").read_text()
    recipe = [line.lstrip("# ") for line in comment.splitlines() if re.match(r"#   \w+ = ", line)]
    names = {"numpy": np, "counts": message.counts, "height": 5, "width": 7}
    exec("\n".join(recipe), names)
    np.testing.assert_array_equal(names["mask"], mask)


@pytest.mark.ros
def test_states_and_events_have_distinct_values():
    from sam2s_msgs.msg import TrackedObject, TrackEvent

    states = [TrackedObject.STATE_TRACKING, TrackedObject.STATE_OCCLUDED, TrackedObject.STATE_LOST]
    assert states == [0, 1, 2]
    events = "ADDED CORRECTED OCCLUDED LOST REACQUIRED REMOVED STREAM_STALE STREAM_RESUMED"
    values = [getattr(TrackEvent, name) for name in events.split()]
    assert values == list(range(8))
    assert TrackEvent.CLOCK_JUMPED == 8
