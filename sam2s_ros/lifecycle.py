"""Brings a lifecycle node up from outside: `bring_up --node /tracker`, and for other programs.

Every request is repeated until it is answered, because a node that has just been started again
after a crash shares its name with the dead one, which DDS discovery remembers for some seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.utilities import remove_ros_args

from sam2s_model.errors import Sam2sError
from sam2s_ros.client import RosClient

STEP_SECONDS = 0.5  # for an answer about the state, before the question is repeated
CONFIGURE_SECONDS = 600.0  # to load weights, and perhaps to build a graph for this device
REPEAT_SECONDS = 3.0  # in an unchanged state, before a transition is asked for again
SAY_SECONDS = 10.0  # of waiting after which a person is told what for

STEPS = {  # from each state towards active
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
}
NAMES = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}


class BringUpError(Sam2sError):
    """A lifecycle node did not become active."""


class LifecycleClient:
    """Asks for and changes the state of one lifecycle node, by its full name."""

    def __init__(self, ros: RosClient, target: str) -> None:
        self.ros, self.target = ros, target
        self._get: Any = ros.node.create_client(GetState, f"{target}/get_state")
        self._change: Any = ros.node.create_client(ChangeState, f"{target}/change_state")

    def close(self) -> None:
        """Give the clients back."""
        self.ros.node.destroy_client(self._get)
        self.ros.node.destroy_client(self._change)

    def state(self, seconds: float = STEP_SECONDS) -> int | None:
        """Ask once for the state, one of State.PRIMARY_STATE_* or a transition's; None: silence."""
        answer = self.ros.call(self._get, GetState.Request(), seconds)
        return None if answer is None else int(answer.current_state.id)

    def begin(self, transition: int) -> Any:
        """Request one of Transition.TRANSITION_* and return the future of its answer."""
        return self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))


def bring_up(
    client: LifecycleClient,
    *,
    seconds: float = CONFIGURE_SECONDS,
    say: Callable[[str], None] = print,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Configure and activate a node; returns when it is active.

    It may still be starting, or be started again meanwhile. `alive` tells whether it is worth
    waiting any longer. Raises BringUpError if it refuses a transition or `seconds` pass.
    """
    end = time.monotonic() + seconds
    next_words = time.monotonic() + SAY_SECONDS
    pending: Any = None  # the answer to the transition that was asked for
    asked, asked_in, asked_at = 0, 0, 0.0  # this transition, in this state, at this time
    state: int | None
    while time.monotonic() < end and alive():
        state = client.state()
        if state == State.PRIMARY_STATE_ACTIVE:
            return
        if state == State.PRIMARY_STATE_FINALIZED:
            raise BringUpError(f"{client.target} is finalized; start it anew")
        if pending is not None and pending.done():
            answer, pending = pending.result(), None
            # A refusal in another state only means that someone else was faster.
            if not answer.success and client.state() == asked_in:
                raise BringUpError(
                    f"{client.target} refused to {NAMES[asked]}; its own log says why. It lives "
                    f"and can be tried again: `ros2 lifecycle set {client.target} {NAMES[asked]}`"
                )
            continue
        if state is not None and state in STEPS:
            late = time.monotonic() > asked_at + REPEAT_SECONDS  # the one that was asked is no more
            if pending is None or state != asked_in or late:
                asked, asked_in, asked_at = STEPS[state], state, time.monotonic()
                pending = client.begin(asked)
        if time.monotonic() > next_words:
            doing = f"to {NAMES[asked]}" if pending is not None else "to start"
            say(f"waiting for {client.target} {doing}")
            next_words = time.monotonic() + SAY_SECONDS
        wait = pending.done if pending is not None else (lambda: False)
        client.ros.spin_until(wait, STEP_SECONDS)
    if alive():
        raise BringUpError(f"{client.target} was not active after {seconds:g} s; see its own log")


def main(argv: list[str] | None = None) -> int:
    """Bring one node up: 0 when it is active, 1 when it could not be."""
    parser = argparse.ArgumentParser(
        prog="bring_up",
        description="Configure and activate a lifecycle node, however long it takes.",
    )
    parser.add_argument("--node", default="/tracker", help="full name of the node [/tracker]")
    parser.add_argument(
        "--seconds", type=float, default=CONFIGURE_SECONDS, help=f"limit [{CONFIGURE_SECONDS:g}]"
    )
    args = parser.parse_args(remove_ros_args(sys.argv if argv is None else ["", *argv])[1:])
    try:
        with RosClient("sam2s_bring_up") as ros:
            bring_up(LifecycleClient(ros, args.node), seconds=args.seconds, say=_say)
    except BringUpError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    _say(f"{args.node} is active")
    return 0


def _say(text: str) -> None:
    print(f"bring_up: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
