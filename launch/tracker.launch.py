"""Starts the tracker and brings it up, again after a crash.

ros2 launch sam2s_ros tracker.launch.py image:=/camera/image_raw model:=nano rviz:=true
All arguments: ros2 launch sam2s_ros tracker.launch.py --show-args
"""

from __future__ import annotations

from launch import LaunchDescription

from sam2s_ros.launching import RVIZ, describe, node_actions, rviz_actions
from sam2s_ros.plan import plan_tracker, tracker_arguments


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the DDS profile, the tracker and RViz."""
    return describe(
        [*tracker_arguments(), *RVIZ],
        lambda values: [*node_actions(plan_tracker(values)), *rviz_actions(values)],
    )
