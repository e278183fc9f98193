"""What there is to start: arguments, nodes, topics. The launch files and `sam2s up` share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sam2s_model.errors import Sam2sError
from sam2s_ros.share import shared_file

TRACKER_CONFIG = "tracker.yaml"
ENDOSCOPE_CONFIG = "endoscope.yaml"
RVIZ_CONFIG = "tracker.rviz"
EYES = ("left", "right")
COMPRESSED = "/compressed"  # where image_transport publishes the compressed form of a topic

# Topics that config/tracker.rviz shows, relative to a tracker node.
RVIZ_TOPICS = ("overlay", "overlay/compressed", "label_map", "markers")

Value = bool | int | float | str


class PlanError(Sam2sError):
    """An argument that no node can be started with."""


class Argument(NamedTuple):
    """One argument of a launch file, and of `sam2s up`."""

    name: str
    default: str
    description: str


@dataclass(frozen=True)
class NodePlan:
    """One node as a process: what to run, under which name, with what set."""

    executable: str  # of the package sam2s_ros; also the module's name in it
    name: str
    namespace: str
    params_file: str
    parameters: Mapping[str, Value] = field(default_factory=dict)  # override the file's
    remappings: tuple[tuple[str, str], ...] = ()
    log_level: str = "info"
    lifecycle: bool = False
    autostart: bool = False  # configure and activate it, also after each respawn
    respawn: bool = False

    @property
    def full_name(self) -> str:
        """The node's name with its namespace, for example /left/tracker."""
        return "/" + "/".join([*filter(None, self.namespace.split("/")), self.name])

    @property
    def log_option(self) -> str:
        """The node's logger, which has its namespace in front, with its level."""
        return f"{self.full_name.strip('/').replace('/', '.')}:={self.log_level}"

    def ros_arguments(self) -> list[str]:
        """Give the command line that makes an rclpy program this node."""
        arguments = ["--ros-args", "-r", f"__node:={self.name}"]
        arguments += ["-r", f"__ns:={self.full_name.rpartition('/')[0] or '/'}"]
        arguments += ["--params-file", self.params_file]
        for name, value in self.parameters.items():
            # JSON is YAML in which a text that looks like a number stays a text.
            arguments += ["-p", f"{name}:={json.dumps(value, ensure_ascii=False)}"]
        for source, target in self.remappings:
            arguments += ["-r", f"{source}:={target}"]
        return [*arguments, "--log-level", self.log_option]


def common_arguments() -> tuple[Argument, ...]:
    """Arguments of everything that starts nodes."""
    return (
        Argument("namespace", "", "of all nodes and topics"),
        Argument("use_sim_time", "", "true: time comes from /clock; empty: as in the params_file"),
        Argument("log_level", "info", "debug, info, warn or error"),
        Argument("respawn", "true", "start a process again when it has died"),
    )


def tracker_arguments(image: str = "image") -> tuple[Argument, ...]:
    """Arguments of one tracker; `image` is the topic's default."""
    return (
        Argument("image", image, "topic of the camera's images, relative to the namespace"),
        *shared_tracker_arguments(),
    )


def shared_tracker_arguments() -> tuple[Argument, ...]:
    """Arguments that two trackers of one launch have in common."""
    return (
        Argument("transport", "", "raw or compressed; empty: as in the params_file"),
        Argument("model", "", "weights, by name or path; empty: as in the params_file"),
        Argument("params_file", "", "every parameter of the node; empty: the shipped tracker.yaml"),
        Argument("autostart", "true", "configure and activate the node, after each respawn too"),
        *common_arguments(),
    )


def endoscope_arguments(params_file: str = "params_file") -> tuple[Argument, ...]:
    """Arguments of the simulated endoscope; `params_file` names the one that names its file."""
    return (
        Argument("seed", "", f"which operation is seen; empty: as in the {params_file}"),
        Argument("width", "", f"pixels; empty: as in the {params_file}"),
        Argument("height", "", f"pixels; empty: as in the {params_file}"),
        Argument("rate", "", f"frames per second; empty: as in the {params_file}"),
        Argument(
            params_file,
            "",
            "every parameter of the simulated endoscope; empty: the shipped endoscope.yaml",
        ),
    )


def stereo_arguments() -> tuple[Argument, ...]:
    """Arguments of two trackers, one for each eye."""
    eyes = (
        Argument(eye, f"{eye}/image_raw", f"topic of the {eye} images, relative to the namespace")
        for eye in EYES
    )
    return (*eyes, *shared_tracker_arguments())


def plan_tracker(values: Mapping[str, str], *, image: str = "", namespace: str = "") -> NodePlan:
    """Plan a tracker from its arguments; `image` and `namespace` replace those in `values`."""
    topic = image or values["image"]
    if not topic:
        raise PlanError("`image` is empty; it must be the topic of the camera's images")
    parameters: dict[str, Value] = {}
    transport = values["transport"]
    if topic.endswith(COMPRESSED):  # the topic itself says it
        topic, transport = topic.removesuffix(COMPRESSED), transport or "compressed"
    if transport:
        parameters["transport"] = transport
    if values["model"]:
        parameters["model"] = values["model"]
    return NodePlan(
        executable="tracker_node",
        name="tracker",
        namespace=join(values["namespace"], namespace),
        params_file=values["params_file"] or str(shared_file("config", TRACKER_CONFIG)),
        parameters={**parameters, **_time(values)},
        remappings=(("image", topic), (f"image{COMPRESSED}", f"{topic}{COMPRESSED}")),
        log_level=values["log_level"],
        lifecycle=True,
        autostart=truth("autostart", values["autostart"]),
        respawn=truth("respawn", values["respawn"]),
    )


def plan_stereo(values: Mapping[str, str]) -> tuple[NodePlan, ...]:
    """Plan the trackers left/tracker and right/tracker."""
    plans = []
    for eye in EYES:
        topic = values[eye]
        if not topic.startswith("/"):  # absolute, because the tracker stands one level deeper
            topic = join("/", values["namespace"], topic)
        plans.append(plan_tracker(values, image=topic, namespace=eye))
    return tuple(plans)


def plan_endoscope(values: Mapping[str, str], params_file: str = "params_file") -> NodePlan:
    """Plan the simulated endoscope from its arguments."""
    parameters: dict[str, Value] = {}
    for name, kind in (("seed", int), ("width", int), ("height", int), ("rate", float)):
        if values[name]:
            parameters[name] = _number(name, values[name], kind)
    return NodePlan(
        executable="endoscope_node",
        name="endoscope",
        namespace=values["namespace"],
        params_file=values[params_file] or str(shared_file("config", ENDOSCOPE_CONFIG)),
        parameters={**parameters, **_time(values)},
        log_level=values["log_level"],
        respawn=truth("respawn", values["respawn"]),
    )


def rviz_remappings(tracker: str = "tracker") -> list[tuple[str, str]]:
    """Point the shipped RViz configuration, made for /tracker, at a tracker in RViz's namespace."""
    return [(f"/tracker/{topic}", f"{tracker}/{topic}") for topic in RVIZ_TOPICS]


def join(*namespaces: str) -> str:
    """Join namespaces; a leading slash of the first stays, because it makes the name absolute."""
    parts = [part for name in namespaces for part in name.split("/") if part]
    return ("/" if namespaces[0].startswith("/") else "") + "/".join(parts)


def truth(name: str, text: str) -> bool:
    """Read an argument that is true or false, as launch spells it."""
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise PlanError(f"`{name}` is '{text}'; it must be true or false")


def _time(values: Mapping[str, str]) -> dict[str, Value]:
    text = values["use_sim_time"]
    return {"use_sim_time": truth("use_sim_time", text)} if text else {}


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise PlanError(f"`{name}` is '{text}'; it must be {wanted}") from None
