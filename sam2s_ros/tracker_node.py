"""Lifecycle node `tracker`: images in, targets out. See docs/node.md.

It is thin: parameters, topics and services are here, a session does the tracking (session.py) in a
worker's thread (live.py).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from sam2s_model.errors import Sam2sError
from sam2s_msgs.srv import (  # type: ignore[attr-defined]  # made by colcon
    ListTargets,
    LoadState,
    RemoveTarget,
    Reset,
    SaveState,
    SetTarget,
)
from sam2s_ros import diagnostics
from sam2s_ros.autosave import Autosave, resume
from sam2s_ros.conversions import image_to_rgb
from sam2s_ros.dds import use_profile
from sam2s_ros.deferred import Deferred, create_deferred_service
from sam2s_ros.engine import make_tracker, place, warm_up, works_ahead
from sam2s_ros.headers import NANO, nanoseconds
from sam2s_ros.leaving import leave
from sam2s_ros.listener import Listener
from sam2s_ros.live import Live, LiveSettings, Outcome, Sinks
from sam2s_ros.messages import fill_reply, prompt_from_service, target_message
from sam2s_ros.parameters import NodeSettings, change, declare
from sam2s_ros.publishers import Publishers
from sam2s_ros.session import PromptReply, Session
from sam2s_ros.settings import RELIABILITIES
from sam2s_ros.state_file import StateFileError, read_state, write_state
from sam2s_ros.turns import take_short_turns

WARN_EVERY = 5.0  # seconds between warnings about images
STOP_SECONDS = 1.0  # for the frame that is being computed when the node ends
NOT_CONFIGURED = "the node is not configured: configure and activate it first"


class TrackerNode(LifecycleNode):
    """Tracks targets through the images of one camera."""

    def __init__(self, **options: Any) -> None:
        super().__init__("tracker", **options)
        self.settings: NodeSettings = declare(self)
        self.live: Live | None = None
        self._autosave: Autosave | None = None
        self._images: Listener | None = None
        self._trouble = ""  # why configure failed, or what was wrong with the last image
        self._place = ""  # where the network runs
        self._outputs = Publishers(self, lambda: self.settings.overlay_quality, self._warn)
        self._diagnostics: Any = self.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        for kind, name, handler in (
            (SetTarget, "~/set_target", self._on_set_target),
            (RemoveTarget, "~/remove_target", self._on_remove_target),
            (Reset, "~/reset", self._on_reset),
            (SaveState, "~/save_state", self._on_save_state),
            (LoadState, "~/load_state", self._on_load_state),
        ):
            create_deferred_service(self, kind, name, handler)
        self.create_service(ListTargets, "~/list_targets", self._on_list_targets)
        self.add_on_set_parameters_callback(self._on_parameters)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # goes on while simulated time stands
        self.create_timer(self.settings.diagnostics_period, self._diagnose, clock=steady)

    # --- lifecycle ------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up; a failure leaves the node alive and unconfigured."""
        failure: list[str] = []
        loader = threading.Thread(target=self._load, args=(failure,), name="loader", daemon=True)
        loader.start()
        while loader.is_alive():
            loader.join(0.02)
            if not self.context.ok():  # asked to end; do not let anybody wait for the weights
                return TransitionCallbackReturn.FAILURE
        if failure:
            self._trouble = failure[0]
            self.get_logger().error(f"configure failed: {failure[0]}")
            return TransitionCallbackReturn.FAILURE
        self._trouble = ""
        kind, topic = (
            (Image, "image")
            if self.settings.transport == "raw"
            else (CompressedImage, "image/compressed")
        )
        newest = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=1,
            reliability=RELIABILITIES[self.settings.reliability],
        )  # fmt: skip
        self._images = Listener(self, kind, topic, self._on_image, newest, self._warn)
        self.get_logger().info(
            f"configured: {self.settings.model} on {self._place}, "
            f"images from {self._images.topic_name}"
        )
        return TransitionCallbackReturn.SUCCESS

    def _load(self, failure: list[str]) -> None:
        """Make the tracker and all around it; runs in a thread of its own."""
        try:
            tracker = make_tracker(self.settings)
            ahead = works_ahead(self.settings, tracker)
            warm_up(tracker, ahead)
            session = Session(tracker, self.settings.session_settings())
            self._place = place(tracker)
            wanted = self.settings.provider
            if self.settings.runtime == "onnx" and not self._place.endswith(wanted):
                self.get_logger().warning(
                    f"the provider '{wanted}' is not available here; tracking on {self._place}"
                )
            if self.settings.autosave_path:
                path = _path(self.settings.autosave_path)
                said = resume(session, path, self.settings.autosave_max_age)
                if said:
                    self.get_logger().info(said)
                self._autosave = Autosave(path, lambda: self.settings.autosave_period, self._warn)
            sinks = Sinks(image_to_rgb, self._publish, self._outputs.events, self._warn,
                          self._follow)  # fmt: skip
            self.live = Live(session, sinks, self._live_settings(), ahead=ahead)
        except Sam2sError as error:
            failure.append(str(error))
        except Exception as error:  # the node must live and say why
            failure.append(f"{type(error).__name__}: {error}")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Track."""
        if self.live is None:
            return TransitionCallbackReturn.FAILURE
        self._trouble = ""
        self.live.activate()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Track no more; targets are kept."""
        if self.live is not None:
            self.live.deactivate()
            self._outputs.drop_pictures()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and all targets; on purpose, so the saved ones too."""
        autosave = self._autosave
        self._free()
        if autosave is not None:
            autosave.forget()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node can be configured again."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def _free(self) -> None:
        images, self._images = self._images, None
        if images is not None:
            images.close()
        live, self.live = self.live, None
        autosave, self._autosave = self._autosave, None
        if live is not None:
            if autosave is not None:
                live.submit(autosave.save)
            live.close(STOP_SECONDS)
        if autosave is not None:
            autosave.close()
        self._outputs.drop_pictures()

    def end(self) -> None:
        """Stop working, in any state, before the process ends."""
        self._free()
        self._outputs.close()

    # --- images ---------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        """Swap the newest image in, in the listener's thread; all else is the worker's."""
        if self.live is not None:
            header = message.header
            stamp_ns = nanoseconds(header.stamp)
            age = (self.get_clock().now().nanoseconds - stamp_ns) / NANO
            self.live.offer(message, stamp_ns, header.frame_id, age)

    def _publish(self, outcome: Outcome) -> None:
        live = self.live
        if live is not None:
            self._trouble = ""
            self._outputs.publish(outcome, live.counts)

    def _follow(self, session: Session, changed: bool) -> None:
        if self._autosave is not None:
            self._autosave.follow(session, changed)

    def _warn(self, message: str) -> None:
        self._trouble = message
        self.get_logger().warning(message, throttle_duration_sec=WARN_EVERY)

    # --- services -------------------------------------------------------------------------

    def _on_set_target(self, request: Any, response: Any) -> Deferred:
        answer = Deferred()

        def reply(outcome: PromptReply) -> None:
            answer.answer(fill_reply(outcome, response))

        if self.live is None:
            reply(PromptReply(False, NOT_CONFIGURED))
            return answer
        try:
            wish = prompt_from_service(request)
        except Sam2sError as error:
            reply(PromptReply(False, str(error)))
            return answer
        self.live.prompt(wish, reply)
        return answer

    def _on_remove_target(self, request: Any, response: Any) -> Deferred:
        def job(session: Session) -> None:
            self._outputs.events((session.remove(request.name),))

        return self._between_frames(response, job)

    def _on_reset(self, request: Any, response: Any) -> Deferred:
        def job(session: Session) -> None:
            events = session.reset()
            self._outputs.events(events)
            response.removed = len(events)

        return self._between_frames(response, job)

    def _on_save_state(self, request: Any, response: Any) -> Deferred:
        answer = Deferred()

        def write(path: Path, state: dict[str, Any]) -> None:
            try:
                write_state(path, state)
                response.success, response.path = True, str(path)
                response.targets = list(state["standings"])
            except StateFileError as error:
                response.message = str(error)
            answer.answer(response)

        def job(session: Session) -> None:
            path = self._state_path(request.path)
            state = session.state_dict()
            # The disk may be slow; tracking goes on meanwhile.
            threading.Thread(target=write, args=(path, state), name="save state").start()

        return self._between_frames(response, job, answer, last=False)

    def _on_load_state(self, request: Any, response: Any) -> Deferred:
        def job(session: Session) -> None:
            path = self._state_path(request.path)
            self._outputs.events(session.load_state_dict(read_state(path)))
            response.targets = [standing.name for standing in session.targets]
            self.get_logger().info(f"goes on from {path} with {', '.join(response.targets)}")

        return self._between_frames(response, job)

    def _on_list_targets(self, request: Any, response: Any) -> Any:
        if self.live is not None:
            response.targets = [target_message(standing) for standing in self.live.standings]
        return response

    def _between_frames(
        self, response: Any, job: Any, answer: Deferred | None = None, last: bool = True
    ) -> Deferred:
        """Have the worker do a job; answer success after it if it is the `last` thing to do."""
        answer = answer or Deferred()

        def run(session: Session) -> None:
            try:
                job(session)
            except Exception as error:
                response.success = False
                response.message = str(error) if isinstance(error, Sam2sError) else repr(error)
                answer.answer(response)
                return
            if last:
                response.success = True
                answer.answer(response)

        if self.live is None:
            response.success, response.message = False, NOT_CONFIGURED
            answer.answer(response)
        else:
            self.live.submit(run)
        return answer

    def _state_path(self, asked: str) -> Path:
        path = asked or self.settings.autosave_path
        if not path:
            raise StateFileError(
                "no path was given and the parameter autosave_path is empty; give a path on the "
                "node's machine"
            )
        return _path(path)

    # --- parameters -----------------------------------------------------------------------

    def _on_parameters(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Check a change against all other parameters, and take it over at once."""
        settings, result = change(self.settings, parameters)
        if not result.successful or settings == self.settings:
            return result
        self.settings = settings
        if self.live is not None:
            self.live.change(self._live_settings(), self._apply)
        return result

    def _apply(self, session: Session) -> None:
        session.settings = self.settings.session_settings()
        session.tracker.track = self.settings.track_settings()
        session.tracker.max_targets = self.settings.max_targets

    def _live_settings(self) -> LiveSettings:
        return LiveSettings(
            max_rate=self.settings.max_rate,
            stale_after=self.settings.stale_after,
            max_prompts=self.settings.max_prompts,
            prompt_timeout=self.settings.prompt_timeout,
        )

    # --- diagnostics ----------------------------------------------------------------------

    def _diagnose(self) -> None:
        name = self.get_fully_qualified_name()
        live = self.live
        if live is None:
            statuses = [diagnostics.idle_status(name, self._trouble)]
        else:
            statuses = [
                diagnostics.stream_status(name, live, self._trouble),
                diagnostics.targets_status(name, live.standings),
                diagnostics.machine_status(name, self.settings.model, self._place),
            ]
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.array(stamp, statuses))


def run(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; 2 if a parameter is wrong."""
    use_profile()
    # rclpy's own handler ends the executor. Python's would raise KeyboardInterrupt wherever it is,
    # and in the middle of taking a message that comes out as some other error.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        rclpy.init(args=args)
    except Exception as error:  # rclpy's own errors here are private classes
        print(f"tracker: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    try:
        node = TrackerNode()
    except Sam2sError as error:
        print(f"tracker: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    # One thread will do: nothing that it runs waits for the network.
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception:
        # A signal shuts ROS down beside this thread, which may be in the middle of using it.
        if rclpy.ok():
            raise
    node.end()
    rclpy.try_shutdown()
    return 0


def main() -> NoReturn:
    """Run the node as a process of its own."""
    take_short_turns()
    leave(run())


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


if __name__ == "__main__":
    main()
