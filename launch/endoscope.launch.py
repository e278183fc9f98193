"""Starts the simulated endoscope.

ros2 launch sam2s_ros endoscope.launch.py width:=1280 height:=1024 rate:=10.0 seed:=3
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Humble to Jazzy) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

# These override the params_file: name, default, type, description.
PARAMETERS = (
    ("seed", "7", int, "which operation is seen"),
    ("width", "640", int, "pixels"),
    ("height", "512", int, "pixels"),
    ("rate", "25.0", float, "frames per second"),
)


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the DDS profile and the node."""
    config = PathJoinSubstitution([FindPackageShare("sam2s_ros"), "config"])
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, _, description in PARAMETERS
    ]
    arguments += [
        DeclareLaunchArgument("namespace", default_value="", description="of the node's topics"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([config, "endoscope.yaml"]),
            description="every other parameter",
        ),
    ]
    # Carries large images between processes; a profile that is already set stays.
    profile = [
        SetEnvironmentVariable(
            name,
            EnvironmentVariable(name, default_value=PathJoinSubstitution([config, "fastdds.xml"])),
        )
        for name in PROFILE_VARIABLES
    ]
    endoscope = Node(
        package="sam2s_ros",
        executable="endoscope_node",
        name="endoscope",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                for name, _, kind, _ in PARAMETERS
            },
        ],
        output="screen",
    )
    return LaunchDescription([*arguments, *profile, endoscope])
