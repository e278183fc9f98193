"""Starts one tracker for each eye of a stereo endoscope, in the namespaces left and right.

ros2 launch sam2s_ros stereo.launch.py left:=/stereo/left/image_raw right:=/stereo/right/image_raw
Parameters of one eye alone, such as its autosave_path, stand under /left/tracker in params_file.
"""

from __future__ import annotations

from launch import LaunchDescription

from sam2s_ros.launching import RVIZ, describe, node_actions, rviz_actions
from sam2s_ros.plan import plan_stereo, stereo_arguments


def generate_launch_description() -> LaunchDescription:
    """Describe the arguments, the DDS profile, two trackers and RViz for the left one."""
    return describe(
        [*stereo_arguments(), *RVIZ],
        lambda values: [
            *(action for plan in plan_stereo(values) for action in node_actions(plan)),
            *rviz_actions(values, tracker="left/tracker"),
        ],
    )
