"""Prompts from the bag itself: what a node accepted while the bag was recorded."""

from __future__ import annotations

from sam2s_msgs.msg import Prompt as PromptMessage  # type: ignore[attr-defined]  # made by colcon
from sam2s_msgs.msg import TrackEvent  # type: ignore[attr-defined]
from sam2s_ros.bags.reader import Bag, Message, decode
from sam2s_ros.headers import nanoseconds
from sam2s_ros.messages import prompt_from_message
from sam2s_ros.replay.actions import SLACK_NS, Action
from sam2s_ros.replay.errors import NoPromptsError

PROMPT_KIND = "sam2s_msgs/msg/Prompt"
EVENT_KIND = "sam2s_msgs/msg/TrackEvent"


def prompts_topic(bag: Bag, wanted: str | None) -> str:
    """Choose the topic of recorded prompts: the one asked for, or the only one there is."""
    if wanted is not None:
        return bag.require(wanted, [PROMPT_KIND]).name
    found = [topic.name for topic in bag.of_kind(PROMPT_KIND)]
    if len(found) == 1:
        return found[0]
    if found:
        raise NoPromptsError(
            f"{bag.path} holds prompts on {', '.join(found)}: choose one with --prompts-topic"
        )
    raise NoPromptsError(
        f"{bag.path} holds no recorded prompts ({PROMPT_KIND}) and no prompts.yaml: say what to "
        "track with --prompts FILE"
    )


def recorded_actions(bag: Bag, topic: str) -> list[Action]:
    """Read the prompts, and the removals that the events beside them tell of, in stamp order."""
    events = f"{topic.rpartition('/')[0]}/events"
    has_events = events in bag.topics and bag.topics[events].kind == EVENT_KIND
    actions = []
    for message in bag.messages(topic, *([events] if has_events else [])):
        action = _prompt(message) if message.topic == topic else _removal(message)
        if action is not None:
            actions.append(action)
    # A removal is told after the frame that it follows; a prompt with the frame it is on.
    return sorted(actions, key=lambda a: (a.stamp_ns or 0, a.prompt is not None))


def _prompt(message: Message) -> Action:
    request = prompt_from_message(decode(message, PromptMessage))
    return Action(
        request.name, request.prompt, message.topic,
        stamp_ns=request.stamp_ns, class_name=request.class_name,
    )  # fmt: skip


def _removal(message: Message) -> Action | None:
    event = decode(message, TrackEvent)
    if event.kind != TrackEvent.REMOVED:
        return None
    # The stamp is that of the last frame with the target, so it goes before the next one.
    return Action(
        event.target, None, message.topic, stamp_ns=nanoseconds(event.header.stamp) + 2 * SLACK_NS
    )
