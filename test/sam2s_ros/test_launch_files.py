"""The launch files: what they declare and start, and, where launch is installed, that it runs.

ROS 2's launch comes with a distribution and not with the wheels, so most tests here use a stand-in
that records; `test_launch_brings_the_demonstration_up` needs the real one.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import launch_recorder
import pytest
import yaml

from sam2s_ros.dds import PROFILE_VARIABLES, profile_path
from sam2s_ros.plan import PlanError, plan_tracker, tracker_arguments
from sam2s_ros.share import shared_file

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))


@pytest.fixture
def run(monkeypatch):
    """Start a launch file with arguments: the nodes, the event handlers, the environment."""
    launch_recorder.install(monkeypatch)

    def start(name: str, **given: str):
        path = ROOT / "launch" / f"{name}.launch.py"
        description = runpy.run_path(str(path))["generate_launch_description"]()
        started, environment = launch_recorder.launch(description, **given)
        nodes = [entity for entity in started if isinstance(entity, launch_recorder.Node)]
        handlers = [entity.event_handler for entity in started if hasattr(entity, "event_handler")]
        return nodes, handlers, environment

    yield start
    sys.modules.pop("sam2s_ros.launching", None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described_and_the_defaults_start_something(run, path, monkeypatch):
    nodes, _, _ = run(path.name.partition(".")[0])
    assert nodes
    description = runpy.run_path(str(path))["generate_launch_description"]()
    arguments = [e for e in description.entities if hasattr(e, "default_value")]
    assert len(arguments) == len({a.name for a in arguments}) > 3
    assert all(argument.description for argument in arguments)


def test_tracker_gets_its_arguments_and_is_brought_up_at_every_start(run):
    nodes, handlers, _ = run(
        "tracker", image="/camera/image_raw", model="tiny", namespace="robot", use_sim_time="true"
    )
    (node,) = nodes
    assert isinstance(node, launch_recorder.LifecycleNode)
    assert (node.package, node.executable, node.node_name) == (
        "sam2s_ros", "tracker_node", "/robot/tracker",
    )  # fmt: skip
    assert node.remappings == [
        ("image", "/camera/image_raw"),
        ("image/compressed", "/camera/image_raw/compressed"),
    ]
    params_file, given = node.parameters
    assert Path(params_file) == shared_file("config", "tracker.yaml")
    assert given == {"model": "tiny", "use_sim_time": True}
    assert node.respawn is True
    (handler,) = handlers
    assert handler.target_action is node
    # Launch calls this at each start of the process: always a new action.
    first, second = (handler.on_start(None, None) for _ in range(2))
    assert first[0] is not second[0]
    assert first[0].executable == "bring_up"
    assert first[0].arguments == ["--node", "/robot/tracker"]


def test_no_autostart_no_respawn(run):
    nodes, handlers, _ = run("tracker", autostart="false", respawn="False")
    assert handlers == []
    assert nodes[0].respawn is False


def test_compressed_topic_sets_the_transport(run):
    nodes, _, _ = run("tracker", image="/camera/image_raw/compressed")
    assert nodes[0].remappings[0] == ("image", "/camera/image_raw")
    assert nodes[0].parameters[1] == {"transport": "compressed"}


def test_rviz_shows_this_tracker(run):
    nodes, _, _ = run("tracker", namespace="robot", rviz="true", frame="scope")
    rviz = nodes[-1]
    assert (rviz.package, rviz.namespace) == ("rviz2", "robot")
    assert rviz.arguments == ["-d", str(ROOT / "config/tracker.rviz"), "-f", "scope"]
    # Each topic of the configuration leads to the tracker beside RViz.
    shown = set(topics(yaml.safe_load((ROOT / "config/tracker.rviz").read_text())))
    mapped = dict(rviz.remappings)
    assert len(shown) >= 3
    assert {mapped[topic] for topic in shown} == {topic.lstrip("/") for topic in shown}


def topics(node: object):
    if isinstance(node, dict):
        if isinstance(node.get("Topic"), dict) and "Value" in node["Topic"]:
            yield node["Topic"]["Value"]
        for value in node.values():
            yield from topics(value)
    elif isinstance(node, list):
        for value in node:
            yield from topics(value)


def test_stereo_runs_two_trackers_with_their_own_images(run):
    nodes, handlers, _ = run("stereo", namespace="/scope", right="/other/right/image_raw")
    assert [node.node_name for node in nodes] == ["/scope/left/tracker", "/scope/right/tracker"]
    assert nodes[0].remappings[0] == ("image", "/scope/left/image_raw")
    assert nodes[1].remappings[0] == ("image", "/other/right/image_raw")
    assert len(handlers) == 2


def test_demo_feeds_the_tracker_from_the_endoscope(run):
    nodes, _, _ = run("demo", rate="10", width="320", seed="3")
    camera, tracker = nodes
    assert camera.executable == "endoscope_node"
    assert camera.parameters[0] == str(ROOT / "config" / "endoscope.yaml")
    # Numbers of the right kind, because ROS parameters do not convert.
    assert {k: (v, type(v)) for k, v in camera.parameters[1].items()} == {
        "rate": (10.0, float), "width": (320, int), "seed": (3, int),
    }  # fmt: skip
    assert tracker.remappings[0] == ("image", "image_raw")


@pytest.mark.parametrize(
    ("distribution", "expected"), [("jazzy", 2), ("humble", 2), ("kilted", 1), ("", 1)]
)
def test_profile_variables_by_distribution(run, monkeypatch, distribution, expected):
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DISTRO", distribution)
    _, _, environment = run("tracker")
    named = {name: environment.get(name) for name in PROFILE_VARIABLES}
    set_ones = dict.fromkeys(PROFILE_VARIABLES[:expected], str(profile_path()))
    assert {name: value for name, value in named.items() if value} == set_ones


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_a_profile_that_is_set_stays(run, monkeypatch, variable):
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/mine.xml")
    _, _, environment = run("tracker")
    assert environment[PROFILE_VARIABLES[0]] == "/mine.xml"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"image": ""}, "`image` is empty"),
        ({"autostart": "maybe"}, "`autostart` is 'maybe'; it must be true or false"),
        ({"use_sim_time": "yes"}, "`use_sim_time` is 'yes'"),
    ],
)
def test_wrong_arguments_are_refused(given, sentence):
    values = {argument.name: argument.default for argument in tracker_arguments()}
    with pytest.raises(PlanError, match=sentence):
        plan_tracker({**values, **given})


def test_command_line_of_a_plan_keeps_texts_texts():
    values = {argument.name: argument.default for argument in tracker_arguments()}
    plan = plan_tracker({**values, "model": "1.5", "namespace": "/a/b", "use_sim_time": "false"})
    assert plan.full_name == "/a/b/tracker"
    line = plan.ros_arguments()
    assert 'model:="1.5"' in line
    assert "use_sim_time:=false" in line
    assert "__ns:=/a/b" in line
    assert line[-2:] == ["--log-level", "a.b.tracker:=info"]
    for argument in line:
        name, _, value = argument.partition(":=")
        if name == "model":
            assert yaml.safe_load(value) == "1.5"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_launch_accepts_the_description(path):
    if importlib.util.find_spec("launch") is None or importlib.util.find_spec("launch_ros") is None:
        pytest.skip(
            "launch and launch_ros come with a ROS 2 distribution; this environment has none"
        )
    spec = importlib.util.find_spec("launch")
    if spec.origin is None:  # the folder launch/ of this checkout
        pytest.skip(
            "launch and launch_ros come with a ROS 2 distribution; this environment has none"
        )
    from launch import LaunchContext

    description = runpy.run_path(str(path))["generate_launch_description"]()
    context = LaunchContext()
    entities = [*description.entities]
    nodes = []
    while entities:
        entity = entities.pop(0)
        if type(entity).__name__ in ("Node", "LifecycleNode"):
            nodes.append(entity)
            continue
        if type(entity).__name__ == "RegisterEventHandler":
            continue
        entities = [*(entity.visit(context) or []), *entities]
    assert nodes
