"""Offline evaluation: a recorded bag through the same session as the live node.

`runner` replays one bag (`passage` frame by frame), `batch` many; `report`, `merged` and `compare`
write down what came out. The program `replay` is `sam2s replay`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """`ros2 run sam2s_ros replay`: the same as `sam2s replay`, which takes no ROS arguments."""
    from sam2s_model import cli

    words = sys.argv[1:]
    if "--ros-args" in words:
        words = words[: words.index("--ros-args")]
    sys.exit(cli.main(["replay", *words]))
