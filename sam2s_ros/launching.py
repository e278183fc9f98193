"""Turns node plans into actions of ROS 2's launch; what the files in launch/ share.

Written against the documented API of launch and launch_ros, from Humble to Rolling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.events.process import ProcessStarted
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from sam2s_ros.dds import PROFILE_VARIABLES, profile_path, variables
from sam2s_ros.plan import RVIZ_CONFIG, Argument, NodePlan, rviz_remappings, truth
from sam2s_ros.share import shared_file

PACKAGE = "sam2s_ros"
RESPAWN_DELAY = 1.0  # seconds: a process that dies at once must not eat the machine
RVIZ = (
    Argument("rviz", "false", "also start RViz with the shipped configuration"),
    Argument("frame", "endoscope", "fixed frame of RViz: the frame_id of the images"),
)


def describe(
    arguments: Iterable[Argument],
    start: Callable[[Mapping[str, str]], list[LaunchDescriptionEntity]],
) -> LaunchDescription:
    """Describe a launch: its arguments, the DDS profile, then what `start` makes of the values."""
    arguments = list({argument.name: argument for argument in arguments}.values())

    def begin(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        return start({a.name: LaunchConfiguration(a.name).perform(context) for a in arguments})

    declared = [
        DeclareLaunchArgument(a.name, default_value=a.default, description=a.description)
        for a in arguments
    ]
    return LaunchDescription([*declared, *dds_profile(), OpaqueFunction(function=begin)])


def dds_profile() -> list[LaunchDescriptionEntity]:
    """Name the profile that carries large images; one that is already set, by either name, stays.

    Fast DDS 3 (Kilted and later) reads the first variable and complains about the second.
    """
    modern, former = PROFILE_VARIABLES
    used = EnvironmentVariable(
        modern, default_value=EnvironmentVariable(former, default_value=str(profile_path()))
    )
    return [SetEnvironmentVariable(name, used) for name in variables()]


def node_actions(plan: NodePlan) -> list[LaunchDescriptionEntity]:
    """Start a node; if it has a lifecycle, bring it up whenever its process starts."""
    settings = {
        "package": PACKAGE,
        "executable": plan.executable,
        "name": plan.name,
        "namespace": plan.namespace,
        "parameters": [plan.params_file, dict(plan.parameters)],
        "remappings": list(plan.remappings),
        "ros_arguments": ["--log-level", plan.log_option],
        "respawn": plan.respawn,
        "respawn_delay": RESPAWN_DELAY,
        "output": "screen",
    }
    if not plan.lifecycle:
        return [Node(**settings)]
    node = LifecycleNode(**settings)
    if not plan.autostart:
        return [node]

    def bring_up(event: ProcessStarted, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        # A process rather than ChangeState events: after a crash the dead node stays in DDS
        # discovery for seconds, and an event's one request could be sent to nobody.
        name = node.node_name  # with the namespaces that launch has put around it
        return [
            Node(
                package=PACKAGE, executable="bring_up", arguments=["--node", name], output="screen"
            )
        ]

    # Registered first, or the node's first start would go unnoticed.
    return [RegisterEventHandler(OnProcessStart(target_action=node, on_start=bring_up)), node]


def rviz_actions(values: Mapping[str, str], tracker: str = "tracker") -> list[Node]:
    """Start RViz for a tracker of the namespace, if asked."""
    if not truth("rviz", values["rviz"]):
        return []
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            name="rviz",
            namespace=values["namespace"],
            arguments=["-d", str(shared_file("config", RVIZ_CONFIG)), "-f", values["frame"]],
            remappings=rviz_remappings(tracker),
            output="screen",
        )
    ]
