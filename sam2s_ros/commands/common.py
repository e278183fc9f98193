"""What the commands that talk to a running tracker share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2s_ros.tracker_client import TrackerClient

TIMEOUT = 10.0  # seconds; a prompt is answered with the next image


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which tracker is meant, and how long to wait for it."""
    parser.add_argument(
        "--node", metavar="NAME", help="full name of the tracker, as /left/tracker [the only one]"
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds to wait for it")


def add_state_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file that a tracker's targets are written to or read from."""
    parser.add_argument(
        "path", nargs="?", default="", help="file on the node's machine [its autosave_path]"
    )
    add_tracker_arguments(parser)


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[TrackerClient]:
    """Join ROS and find the tracker that is meant."""
    from sam2s_ros.client import RosClient
    from sam2s_ros.tracker_client import TrackerClient

    with RosClient("sam2s_cli") as ros:
        yield TrackerClient(ros, args.node, args.timeout)
