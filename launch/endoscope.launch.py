"""Starts the simulated endoscope.

ros2 launch sam2s_ros endoscope.launch.py width:=1280 height:=1024 rate:=10.0 seed:=3
"""

from __future__ import annotations

from launch import LaunchDescription

from sam2s_ros.launching import describe, node_actions
from sam2s_ros.plan import common_arguments, endoscope_arguments, plan_endoscope


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the DDS profile and the node."""
    return describe(
        [*endoscope_arguments(), *common_arguments()],
        lambda values: node_actions(plan_endoscope(values)),
    )
