"""What a report makes of the frames: suspected switches, worst moments, charts, prompts' times."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytestmark = pytest.mark.ros

HEIGHT, WIDTH = 60, 100


def entry(name, x, y=20, size=10, class_name="unknown", state="tracking"):
    """A square target at (x, y)."""
    from sam2s_model.result import TrackState
    from sam2s_ros.session import SessionObject

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + size, x : x + size] = True
    return SessionObject(name, 1, TrackState(state), 0.9, 0.9, class_name, 0.9, {}, mask)


def suspects(frames, prompted=()):
    """Run frames of entries through a finder; `prompted` maps frames to names."""
    from sam2s_ros.replay.suspects import SuspectFinder

    finder = SuspectFinder()
    for number, objects in enumerate(frames):
        finder.add(number, objects, frozenset(dict(prompted).get(number, ())))
    return [(s.frame, s.target, s.kind) for s in finder.found]


def test_a_mask_that_leaves_its_place_is_suspected():
    still = [[entry("a", 10)]] * 3
    assert suspects([*still, [entry("a", 70)], [entry("a", 70)]]) == [(3, "a", "jumped")]
    assert suspects([[entry("a", 10 + 3 * k)] for k in range(20)]) == [], "it moves steadily"
    # A prompt may put it elsewhere, and after a time out of sight it may come back anywhere.
    assert suspects([*still, [entry("a", 70)]], {3: ["a"]}.items()) == []
    away = [[entry("a", 10, state="occluded")]]
    assert suspects([*still, *away, [entry("a", 70)]]) == []


def test_two_targets_with_one_mask_are_suspected_once():
    apart = [[entry("a", 10), entry("b", 60)]]
    one = [[entry("a", 10), entry("b", 11)]]
    crossing = suspects(apart + one * 2 + apart)
    assert "merged" not in [kind for _, _, kind in crossing], "two frames may be a crossing"
    found = suspects([*([[entry("a", 10)]] * 2), *(one * 9)])
    assert found == [(4, "a", "merged")]


def test_a_class_that_changes_for_good_is_suspected():
    def frames(*runs):
        return [[entry("a", 10, class_name=name)] for name, length in runs for _ in range(length)]

    assert suspects(frames(("hook", 20), ("grasper", 20))) == [(20, "a", "class")]
    assert suspects(frames(("hook", 20), ("grasper", 9), ("hook", 20))) == []
    assert suspects(frames(("unknown", 20), ("hook", 20), ("unknown", 20), ("hook", 20))) == []


def test_the_worst_moments_are_apart(tmp_path):
    from sam2s_ros.replay.moments import WorstMoments

    drawn = []
    worst = WorstMoments(count=3, apart=50)

    def offer(frame, target, badness):
        def draw():
            drawn.append(frame)
            return np.zeros((4, 6, 3), np.uint8)

        worst.offer(frame, frame, target, badness, "why", draw)

    for frame in range(400):
        offer(frame, "a", 0.9 if frame in (100, 120, 130, 300) else 0.1 * (frame % 7) / 7)
    offer(301, "b", 0.95)
    offer(399, "b", 0.5)
    made = worst.write(tmp_path, 0)
    assert [(m["frame"], m["target"]) for m in made] == [(301, "b"), (100, "a"), (399, "b")]
    assert [m["second"] for m in made] == [round(m["frame"] / 1e9, 3) for m in made]
    assert sorted(p.name for p in (tmp_path / "worst").iterdir()) == ["01.jpg", "02.jpg", "03.jpg"]
    assert len(drawn) < 30, "only what is kept is drawn"


def numbers(points):
    return [tuple(map(float, pair.split(","))) for pair in points.split()]


@pytest.mark.parametrize("frames", [30, 20_000])
def test_a_timeline_shows_every_drop_however_long(frames):
    """One frame with an IoU of 0 among 20,000 is still seen."""
    from sam2s_ros.replay.charts import COLUMNS, Axis, timeline

    iou = [0.8] * frames
    iou[frames // 2] = 0.0
    target = {
        "name": "a<b", "first_frame": 0,
        "prompts": [{"frame": 0, "kind": "box", "correction": False}],
        "series": {"state": [["tracking", frames]], "class": [["hook", frames]], "iou": iou},
    }  # fmt: skip
    svg = timeline(target, Axis(frames, frames / 25), [])
    tree = ElementTree.fromstring(svg)
    assert "timeline of a<b" in tree.attrib["aria-label"]
    (line,) = tree.findall("polyline")
    assert len(numbers(line.attrib["points"])) == min(frames, COLUMNS)
    shown = [
        y for shape in (*tree.findall("polygon"), line) for _, y in numbers(shape.attrib["points"])
    ]
    assert max(shown) == 148.0, "the axis of 0"
    assert len(svg) < 100_000


def test_a_histogram_counts_all_frames():
    from sam2s_ros.replay.charts import histogram
    from sam2s_ros.replay.results import timing

    steps = [*np.random.default_rng(0).gamma(9, 3, 500), 4000.0]
    made = timing(steps, {}, 10.0, 501, {})
    assert sum(made["histogram"]["counts"]) == 501, "what took much longer is in the last bin"
    assert made["latency_ms"]["steps"] == 501
    marks = {key: made["latency_ms"][key] for key in ("p50", "p95", "p99")}
    tree = ElementTree.fromstring(histogram(*made["histogram"].values(), marks))
    assert len(tree.findall("rect")) == len(made["histogram"]["counts"])
    empty = timing([], {}, 0.0, 0, {})
    assert empty["latency_ms"]["p50"] is None
    assert empty["histogram"]["counts"] == [0]


def test_when_actions_are_due():
    from sam2s_ros.replay.actions import Action, Schedule

    actions = [
        Action("number", None, "p", frame=2),
        Action("exact", None, "p", stamp_ns=1_040_000_000),
        Action("between", None, "p", stamp_ns=1_050_000_000),
        Action("rounded", None, "p", stamp_ns=1_080_000_400),
        Action("seconds", None, "p", from_start_ns=40_000_000),
        Action("before", None, "p", stamp_ns=900_000_000),
        Action("after", None, "p", frame=9),
    ]
    schedule = Schedule(actions)
    stamps = [1_000_000_000 + k * 40_000_000 for k in range(4)]
    due = [[a.name for a in schedule.due(k, stamp)] for k, stamp in enumerate(stamps)]
    assert due == [[], ["exact", "seconds"], ["number", "between", "rounded"], []]
    schedule.finish(4, stamps[-1])
    before, after = schedule.problems
    assert "'before' at stamp 0.900000000 lies before the bag's first image" in before
    assert "'after' at frame 9 lies after the bag's end (4 frames" in after
