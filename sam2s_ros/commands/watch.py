"""`sam2s watch`: a live table of a running tracker's targets, states and latency."""

from __future__ import annotations

import argparse
import sys
import time

from sam2s_ros.commands.common import add_tracker_arguments, connected

HELP = "watch a running tracker: targets, states, classes, rate, latency, events"

CLEAR = "\x1b[H\x1b[J"  # cursor home, erase to the end of the screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how long and how often."""
    parser.add_argument("--once", action="store_true", help="print one page and end")
    parser.add_argument("--seconds", type=float, help="end after so long [Ctrl-C]")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between pages")
    add_tracker_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show a page again and again; in place on a terminal, one after the other elsewhere."""
    from rclpy.qos import QoSProfile, qos_profile_sensor_data

    from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
        TrackedObjects,
        TrackEvent,
    )
    from sam2s_ros.monitor import Monitor

    with connected(args) as tracker:
        monitor = Monitor(tracker.name)
        node = tracker.ros.node

        def on_objects(message: TrackedObjects) -> None:
            monitor.on_objects(message, time.monotonic(), node.get_clock().now().nanoseconds)

        # Best effort reads from reliable publishers too and never makes them wait for this one.
        node.create_subscription(
            TrackedObjects, f"{tracker.name}/objects", on_objects, qos_profile_sensor_data
        )
        node.create_subscription(
            TrackEvent, f"{tracker.name}/events", monitor.on_event, QoSProfile(depth=50)
        )
        if args.once:
            tracker.ros.spin_until(lambda: monitor.results > 1, args.timeout)
            print(monitor.page(time.monotonic()))
            return 0
        end = time.monotonic() + (args.seconds or float("inf"))
        try:
            while time.monotonic() < end:
                tracker.ros.spin(min(args.interval, end - time.monotonic()))
                page = monitor.page(time.monotonic())
                print(f"{CLEAR}{page}" if sys.stdout.isatty() else f"{page}\n", flush=True)
        except KeyboardInterrupt:  # the usual way to end this
            print()
    return 0
