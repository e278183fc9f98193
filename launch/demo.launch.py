"""Starts the simulated endoscope and a tracker that watches it.

ros2 launch sam2s_ros demo.launch.py rate:=10.0 seed:=3 rviz:=true
"""

from __future__ import annotations

from launch import LaunchDescription

from sam2s_ros.launching import RVIZ, describe, node_actions, rviz_actions
from sam2s_ros.plan import endoscope_arguments, plan_endoscope, plan_tracker, tracker_arguments

ENDOSCOPE_FILE = "endoscope_params_file"  # params_file is the tracker's


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the DDS profile, both nodes and RViz."""
    return describe(
        [*tracker_arguments(image="image_raw"), *endoscope_arguments(ENDOSCOPE_FILE), *RVIZ],
        lambda values: [
            *node_actions(plan_endoscope(values, ENDOSCOPE_FILE)),
            *node_actions(plan_tracker(values)),
            *rviz_actions(values),
        ],
    )
