"""A replay is what the live node published, over DDS, when it dropped no frame."""

import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

FRAMES = 30
PATIENCE = 60.0  # seconds; machines that run tests are busy
TOPICS = ("objects", "label_map", "classes", "events", "prompts")


class Operator:
    """A camera, a recorder and an operator of a tracker node, all in one."""

    def __init__(self, context):
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        from sam2s_msgs.msg import InstrumentClasses, Prompt, TrackedObjects, TrackEvent

        self.node = Node("operator", context=context)
        kinds = dict(zip(TOPICS, (TrackedObjects, Image, InstrumentClasses, TrackEvent, Prompt),
                         strict=True))  # fmt: skip
        self.heard = {name: [] for name in TOPICS}
        for name, kind in kinds.items():
            kept = self.heard[name]
            self.node.create_subscription(
                kind, f"/tracker/{name}", kept.append, QoSProfile(depth=200)
            )
        self.camera = self.node.create_publisher(Image, "image", QoSProfile(depth=5))
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def end(self):
        self._ended.set()
        self._thread.join(5)
        self._executor.shutdown()
        self.node.destroy_node()

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {PATIENCE:g} s: {what}")
            time.sleep(0.01)

    def ask(self, kind, service, **fields):
        client = self.node.create_client(kind, f"/tracker/{service}")
        assert client.wait_for_service(PATIENCE), service
        return client.call_async(kind.Request(**fields))

    def meet(self):
        """Wait until the node answers; nodes of other tests may have left services of its name."""
        from lifecycle_msgs.srv import GetState

        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self.ask(GetState, "get_state")
            for _ in range(100):
                if answer.done():
                    return
                time.sleep(0.01)
        pytest.fail(f"no answer from the node within {PATIENCE:g} s")

    def call(self, kind, service, **fields):
        answer = self.ask(kind, service, **fields)
        self.until(answer.done, service)
        return answer.result()

    def bring_up(self):
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        self.meet()
        for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert self.call(ChangeState, "change_state", transition=Transition(id=step)).success
        self.until(
            lambda: (
                self.camera.get_subscription_count() > 0
                and all(self.node.count_publishers(f"/tracker/{name}") for name in TOPICS)
            ),
            "the node's topics",
        )

    def show(self, image):
        """Send an image, and wait for all that the node says of it."""
        self.camera.publish(image)
        for name in ("objects", "label_map", "classes"):
            self.until(
                lambda name=name: (
                    self.heard[name] and self.heard[name][-1].header.stamp == image.header.stamp
                ),
                f"{name} of the image at {image.header.stamp}",
            )


def session_over_dds(operator):
    """Track, prompt, correct and remove through the node; returns the images."""
    import replay_bags as rb

    from sam2s_msgs.msg import Box2D, Point2D
    from sam2s_msgs.srv import RemoveTarget, SetTarget
    from sam2s_ros.conversions import rgb_to_image

    wishes = {
        0: {"name": "left", "points": [Point2D(x=24.0, y=40.0)], "labels": [1]},
        4: {"name": "right", "box": [Box2D(x0=58.0, y0=28.0, x1=82.0, y1=52.0)],
            "class_name": "liver"},
        9: {"name": "left", "points": [Point2D(x=24.0, y=40.0), Point2D(x=60.0, y=70.0)],
            "labels": [1, 0]},
        21: {"name": "again", "points": [Point2D(x=30.0, y=40.0)], "labels": [1]},
    }  # fmt: skip
    images, answers = [], []
    for number in range(FRAMES):
        if number in wishes:
            answers.append(operator.ask(SetTarget, "set_target", **wishes[number]))
        if number == 16:
            assert operator.call(RemoveTarget, "remove_target", name="left").success
        stamp = rb.BEGIN + number * rb.STEP
        images.append(rgb_to_image(rb.scene(number)[0], rb.header(stamp)))
        operator.show(images[-1])
    operator.until(lambda: all(answer.done() for answer in answers), "answers to prompts")
    assert all(answer.result().success for answer in answers)
    operator.until(lambda: len(operator.heard["prompts"]) == len(wishes), "prompts")
    return images


def stored(message):
    """The bytes of a message, every one of them."""
    from rclpy.serialization import serialize_message

    from sam2s_ros.bags.definitions import definitions
    from sam2s_ros.bags.writer import type_name

    return definitions().canonical(serialize_message(message), type_name(type(message)))


def exported():
    """The graphs that other tests use too: tracing takes most of a minute."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "sam2s_model"))
    import exports

    return exports.exported()[0]


@pytest.fixture(params=["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def parameters(request, tmp_path):
    """The node's parameters file, which the replay is given too."""
    import replay_bags

    if request.param == "onnx":
        pytest.importorskip("onnxruntime")
        model = exported()
    else:
        model = replay_bags.weights(tmp_path / "nano.safetensors")
    file = tmp_path / "tracker.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n"
        f"    model: {model}\n    runtime: {request.param}\n    threads: 1\n"
        "    reliability: reliable\n"
        "    stale_after: 3600.0\n    lost_after: 5\n    presence_low: 0.4\n"
    )
    return file


def test_replay_is_what_the_node_published(ros_process, ros_context, parameters, tmp_path):
    import replay_bags as rb
    from sensor_msgs.msg import Image

    from sam2s_model import cli
    from sam2s_msgs.msg import FrameTiming, InstrumentClasses, TrackedObjects, TrackEvent
    from sam2s_msgs.msg import Prompt as PromptMessage
    from sam2s_ros.bags.writer import BagWriter
    from sam2s_ros.headers import nanoseconds

    ros_process("sam2s_ros.tracker_node", "--ros-args", "--params-file", str(parameters))
    operator = Operator(ros_context)
    try:
        operator.bring_up()
        images = session_over_dds(operator)
        heard = {name: list(kept) for name, kept in operator.heard.items()}
    finally:
        operator.end()
    assert len(heard["objects"]) == len(heard["label_map"]) == len(heard["classes"]) == FRAMES
    assert heard["objects"][-1].timing.frames_skipped == 0

    with BagWriter(tmp_path / "recorded") as bag:
        for image in images:
            bag.write(rb.IMAGE, image, nanoseconds(image.header.stamp))
        for name in ("prompts", "events"):
            for message in heard[name]:
                bag.write(f"/tracker/{name}", message, nanoseconds(message.header.stamp) + 7)
    command = ["replay", str(tmp_path / "recorded"), "--out", str(tmp_path / "out"), "--quiet"]
    assert cli.main([*command, "--params-file", str(parameters)]) == 0

    kinds = (TrackedObjects, Image, InstrumentClasses, TrackEvent, PromptMessage)
    for name, kind in zip(TOPICS, kinds, strict=True):
        replayed = rb.messages(tmp_path / "out" / "bag", f"/tracker/{name}", kind)
        live = heard[name]
        if name == "objects":
            for message in (*replayed, *live):
                message.timing = FrameTiming()  # durations, and images before activation
        # A removal is told between two frames: by the node at once, in the bag with the next.
        assert len(replayed) == len(live), name
        for number, (ours, theirs) in enumerate(zip(replayed, live, strict=True)):
            assert str(ours) == str(theirs), f"{name} {number}"
    names = [[o.name for o in message.objects] for message in heard["objects"]]
    assert ["left", "right"] in names
    assert names[-1] == ["right", "again"]
    assert {event.kind for event in heard["events"]} >= {
        TrackEvent.ADDED, TrackEvent.CORRECTED, TrackEvent.REMOVED
    }  # fmt: skip
