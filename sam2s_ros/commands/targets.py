"""`sam2s targets`: list the targets of a running tracker."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sam2s_ros.commands.common import add_tracker_arguments, connected

HELP = "list the targets of a running tracker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which tracker is meant."""
    parser.add_argument("--json", action="store_true", help="print one JSON list instead")
    add_tracker_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table, or JSON."""
    from sam2s_model.table import markdown_table

    with connected(args) as tracker:
        rows = [describe(info) for info in tracker.targets()]
    if args.json:
        print(json.dumps(rows))
    elif not rows:
        print(f"{tracker.name} has no targets; `sam2s set-target` adds one")
    else:
        print(markdown_table(list(rows[0]), [list(row.values()) for row in rows]))
    return 0


def describe(info: Any) -> dict[str, object]:
    """Lay a sam2s_msgs/TargetInfo out as a row."""
    from sam2s_ros.tracker_client import STATES

    seen = f"{info.last_seen.sec}.{info.last_seen.nanosec:09d}" if info.last_seen.sec else "never"
    return {
        "label": info.label_value,
        "name": info.name,
        "state": STATES[info.state],
        "IoU": round(info.iou, 2),
        "class": info.class_name,
        "confidence": round(info.class_confidence, 2),
        "last seen": seen,
        "prompts": info.prompts,
        "memory": info.memory_entries,
    }
