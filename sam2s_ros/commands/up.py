"""`sam2s up`: start the tracker and bring it up, without ROS 2's launch; Ctrl-C ends all."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from sam2s_ros.plan import (
    Argument,
    NodePlan,
    endoscope_arguments,
    plan_endoscope,
    plan_tracker,
    tracker_arguments,
)

if TYPE_CHECKING:
    from sam2s_ros.client import RosClient
    from sam2s_ros.supervisor import NodeProcess

HELP = "start the tracker and bring it up, with --demo the simulated endoscope too"

ENDOSCOPE_FILE = "endoscope_params_file"  # params_file is the tracker's
DEMO_IMAGE = "image_raw"  # the topic of the simulated endoscope
POLL_SECONDS = 0.2  # between looks at the processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the launch files' arguments, as options."""
    parser.add_argument("--demo", action="store_true", help="also start the simulated endoscope")
    _declare(parser, tracker_arguments())
    _declare(parser.add_argument_group("with --demo"), endoscope_arguments(ENDOSCOPE_FILE))


def _declare(group: argparse._ActionsContainer, arguments: tuple[Argument, ...]) -> None:
    for argument in arguments:
        option = f"--{argument.name.replace('_', '-')}"
        group.add_argument(option, default=argument.default, help=argument.description)


def plans(args: argparse.Namespace) -> list[NodePlan]:
    """Plan the nodes that are asked for."""
    values = {name: value for name, value in vars(args).items() if isinstance(value, str)}
    if not args.demo:
        return [plan_tracker(values)]
    if values["image"] == "image":  # not given
        values["image"] = DEMO_IMAGE
    return [plan_endoscope(values, ENDOSCOPE_FILE), plan_tracker(values)]


def run(args: argparse.Namespace) -> int:
    """Start, bring up and watch until interrupted: 0 then, 1 if a node could not be kept up."""
    from sam2s_ros.client import RosClient
    from sam2s_ros.dds import with_profile
    from sam2s_ros.supervisor import NodeProcess, end_all, interrupt_on_signals

    planned = plans(args)
    interrupt_on_signals()
    processes = [NodeProcess(plan, with_profile()) for plan in planned]
    try:
        for process in processes:
            process.start()
        with RosClient("sam2s_up") as ros:
            return watch(processes, ros)
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C leaves nothing
        end_all(processes)


def watch(processes: list[NodeProcess], ros: RosClient) -> int:
    """Keep the processes running and their lifecycles up; returns only if that fails."""
    from sam2s_ros.lifecycle import BringUpError, LifecycleClient, bring_up

    brought_up: dict[str, int] = {}  # the start of each node that is up
    while all(process.tend(say) for process in processes):
        for process in processes:
            plan, start = process.plan, process.starts
            if not plan.autostart or brought_up.get(plan.full_name) == start:
                continue
            client = LifecycleClient(ros, plan.full_name)

            def alive() -> bool:
                return all(process.code is None for process in processes)

            try:
                bring_up(client, say=say, alive=alive)
            except BringUpError as error:
                say(str(error))
                return 1
            finally:
                client.close()
            if alive():
                brought_up[plan.full_name] = start
                say(f"{plan.full_name} is active")
        ros.spin(POLL_SECONDS)
    return 1


def say(text: str) -> None:
    """Tell a person, beside what the nodes print."""
    print(f"sam2s up: {text}", file=sys.stderr, flush=True)
