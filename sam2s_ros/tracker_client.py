"""A running tracker node as seen from another process: found, asked, and its silence explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import State
from numpy.typing import NDArray

from sam2s_model.errors import Sam2sError
from sam2s_msgs.msg import (  # type: ignore[attr-defined]  # made by colcon
    Box2D,
    Point2D,
    TargetInfo,
    TrackedObject,
)
from sam2s_msgs.srv import (  # type: ignore[attr-defined]  # made by colcon
    ListTargets,
    LoadState,
    RemoveTarget,
    Reset,
    SaveState,
    SetTarget,
)
from sam2s_ros.client import RosClient
from sam2s_ros.conversions import mask_to_rle
from sam2s_ros.lifecycle import LifecycleClient

LIST_TYPE = "sam2s_msgs/srv/ListTargets"  # what makes a node a tracker
SETTLE_SECONDS = 0.3  # after the first tracker was seen, for others to be seen too
START = "`sam2s up --image TOPIC` or `ros2 launch sam2s_ros tracker.launch.py` starts one"
STATES = {
    TrackedObject.STATE_TRACKING: "tracking",
    TrackedObject.STATE_OCCLUDED: "occluded",
    TrackedObject.STATE_LOST: "lost",
}

Point = tuple[float, float]  # x, y in source pixels


class NoTrackerError(Sam2sError):
    """No tracker node was found, or not the one that was named."""


class SeveralTrackersError(Sam2sError):
    """More than one tracker node is running and none was named."""


class NoAnswerError(Sam2sError):
    """A tracker node did not answer in time."""


class RefusedError(Sam2sError):
    """A tracker node answered that it will not do what was asked."""


def find_trackers(ros: RosClient) -> list[str]:
    """Give the full names of all tracker nodes that discovery knows now."""
    return sorted(
        name.rpartition("/")[0]
        for name, types in ros.node.get_service_names_and_types()
        if LIST_TYPE in types
    )


def find_tracker(ros: RosClient, name: str | None = None, seconds: float = 5.0) -> str:
    """Find the tracker of a name, or the only one; raises if there is none, or several."""
    if name is not None:
        full = "/" + name.strip("/")
        if ros.spin_until(lambda: full in find_trackers(ros), seconds):
            return full
        others = find_trackers(ros)
        known = f"there are {', '.join(others)}" if others else f"no other runs; {START}"
        raise NoTrackerError(f"no tracker {full} was found within {seconds:g} s; {known}")
    if not ros.spin_until(lambda: bool(find_trackers(ros)), seconds):
        raise NoTrackerError(
            f"no tracker was found within {seconds:g} s: none runs, or it runs with another "
            f"ROS_DOMAIN_ID; {START}"
        )
    ros.spin(SETTLE_SECONDS)
    found = find_trackers(ros)
    if len(found) > 1:
        raise SeveralTrackersError(
            f"{len(found)} trackers are running; choose one with --node: {', '.join(found)}"
        )
    return found[0]


class TrackerClient:
    """Calls the services of one tracker; each call raises if it is refused or not answered.

    Args:
        ros: the participant to call through.
        name: the tracker's full name; None for the only one.
        seconds: patience with each call, and with finding the tracker.
    """

    def __init__(self, ros: RosClient, name: str | None = None, seconds: float = 10.0) -> None:
        self.ros, self.seconds = ros, seconds
        self.name = find_tracker(ros, name, seconds)

    def set_target(
        self,
        name: str,
        *,
        clicks: Sequence[Point] = (),
        clicks_off: Sequence[Point] = (),
        box: Sequence[float] | None = None,
        mask: NDArray[np.bool_] | None = None,
        class_name: str = "",
        stamp_ns: int = 0,
    ) -> Any:
        """Add or correct a target and wait for its first mask; returns the service's answer.

        Args:
            name: the target's name; a known one is corrected.
            clicks: points on the target, in source pixels.
            clicks_off: points on the background.
            box: x0, y0, x1, y1 in source pixels.
            mask: bool (H, W) at source size.
            class_name: overrides what the model makes of it.
            stamp_ns: of the image that was seen; 0 for the next one.
        """
        points = [Point2D(x=float(x), y=float(y)) for x, y in (*clicks, *clicks_off)]
        labels = [1] * len(clicks) + [0] * len(clicks_off)
        request = SetTarget.Request(name=name, points=points, labels=labels, class_name=class_name)
        if box is not None:
            x0, y0, x1, y1 = map(float, box)
            request.box = [Box2D(x0=x0, y0=y0, x1=x1, y1=y1)]
        if mask is not None:
            request.mask = [mask_to_rle(mask)]
        request.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        hint = "it answers when the prompt has been applied to an image: do images arrive?"
        return self._done(self._call(SetTarget, "set_target", request, hint))

    def targets(self) -> list[TargetInfo]:
        """List the targets, ordered by label value."""
        return list(self._call(ListTargets, "list_targets", ListTargets.Request()).targets)

    def remove_target(self, name: str) -> None:
        """Forget a target."""
        self._done(self._call(RemoveTarget, "remove_target", RemoveTarget.Request(name=name)))

    def reset(self) -> int:
        """Forget everything; returns how many targets there were."""
        return int(self._done(self._call(Reset, "reset", Reset.Request())).removed)

    def save_state(self, path: str = "") -> Any:
        """Write all targets with their memory to a file on the node's machine."""
        return self._done(self._call(SaveState, "save_state", SaveState.Request(path=path)))

    def load_state(self, path: str = "") -> list[str]:
        """Go on with the targets of such a file; returns their names."""
        answer = self._done(self._call(LoadState, "load_state", LoadState.Request(path=path)))
        return list(answer.targets)

    def lifecycle_state(self) -> int | None:
        """Ask for the node's lifecycle state; None if it does not say."""
        lifecycle = LifecycleClient(self.ros, self.name)
        try:
            return lifecycle.state(1.0)
        finally:
            lifecycle.close()

    def _call(self, kind: Any, service: str, request: Any, hint: str = "") -> Any:
        client: Any = self.ros.node.create_client(kind, f"{self.name}/{service}")
        try:
            answer = self.ros.call(client, request, self.seconds)
        finally:
            self.ros.node.destroy_client(client)
        if answer is None:
            raise NoAnswerError(
                f"{self.name} did not answer {service} within {self.seconds:g} s: "
                f"{self._why_silent(hint)}"
            )
        return answer

    def _why_silent(self, hint: str) -> str:
        state = self.lifecycle_state()
        if state == State.PRIMARY_STATE_ACTIVE:
            return hint or "it is active but busy; try a longer --timeout"
        if state is None:
            return "it hangs or has just died; look at its log"
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            return f"it is not configured: `ros2 lifecycle set {self.name} configure`"
        return f"it is not active: `ros2 lifecycle set {self.name} activate`"

    def _done(self, answer: Any) -> Any:
        if not answer.success:
            raise RefusedError(f"{self.name} refused: {answer.message or 'it did not say why'}")
        return answer
