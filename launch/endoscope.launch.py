"""Starts the simulated endoscope.

ros2 launch sam2s_ros endoscope.launch.py width:=1280 height:=1024 rate:=10.0 seed:=3
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

# Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Humble to Jazzy) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

# Given ones override the params_file: name, type, description.
PARAMETERS = (
    ("seed", int, "which operation is seen"),
    ("width", int, "pixels"),
    ("height", int, "pixels"),
    ("rate", float, "frames per second"),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the DDS profile and the node."""
    config = PathJoinSubstitution([FindPackageShare("sam2s_ros"), "config"])
    arguments = [
        DeclareLaunchArgument(
            name, default_value="", description=f"{description}; empty: as in the params_file"
        )
        for name, _, description in PARAMETERS
    ]
    arguments += [
        DeclareLaunchArgument("namespace", default_value="", description="of the node's topics"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([config, "endoscope.yaml"]),
            description="every parameter of the node",
        ),
    ]
    # Carries large images between processes; a profile that is already set, by either name, stays.
    modern, former = PROFILE_VARIABLES
    shipped = PathJoinSubstitution([config, "fastdds.xml"])
    used = EnvironmentVariable(
        modern, default_value=EnvironmentVariable(former, default_value=shipped)
    )
    profile = [SetEnvironmentVariable(name, used) for name in PROFILE_VARIABLES]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node with the arguments that were given."""
    given = {
        name: kind(text)
        for name, kind, _ in PARAMETERS
        if (text := LaunchConfiguration(name).perform(context))
    }
    node = Node(
        package="sam2s_ros",
        executable="endoscope_node",
        name="endoscope",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), given],
        output="screen",
    )
    return [node]
