"""A stand-in for ROS 2's launch where it is not installed: records what launch files describe.

It has only what the files in launch/ may use, with the documented keyword arguments of Humble to
Rolling and no others, so that a misspelt one fails here as it would there.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from types import ModuleType


class LaunchDescriptionEntity:
    pass


@dataclass
class LaunchDescription(LaunchDescriptionEntity):
    entities: list


@dataclass
class LaunchContext:
    launch_configurations: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)


@dataclass
class LaunchConfiguration:
    variable_name: str

    def perform(self, context):
        return context.launch_configurations[self.variable_name]


@dataclass
class EnvironmentVariable:
    name: str
    default_value: object = None

    def perform(self, context):
        if self.name in context.environment:
            return context.environment[self.name]
        default = self.default_value
        return default.perform(context) if hasattr(default, "perform") else default


@dataclass
class DeclareLaunchArgument(LaunchDescriptionEntity):
    name: str
    default_value: object = None
    description: str = ""


@dataclass
class SetEnvironmentVariable(LaunchDescriptionEntity):
    name: str
    value: object


@dataclass(kw_only=True)
class OpaqueFunction(LaunchDescriptionEntity):
    function: object


@dataclass
class RegisterEventHandler(LaunchDescriptionEntity):
    event_handler: object


@dataclass(kw_only=True)
class OnProcessStart:
    target_action: object
    on_start: object


class ProcessStarted:
    pass


@dataclass(kw_only=True)
class Node(LaunchDescriptionEntity):
    executable: str
    package: str | None = None
    name: str | None = None
    namespace: str | None = None
    parameters: list = field(default_factory=list)
    remappings: list = field(default_factory=list)
    ros_arguments: list = field(default_factory=list)
    arguments: list = field(default_factory=list)
    respawn: bool = False
    respawn_delay: float | None = None
    output: str = "log"

    @property
    def node_name(self):
        return "/" + "/".join([*filter(None, (self.namespace or "").split("/")), self.name or ""])


@dataclass(kw_only=True)
class LifecycleNode(Node):
    def __post_init__(self):
        assert self.name is not None
        assert self.namespace is not None


MODULES = {
    "launch": (LaunchContext, LaunchDescription, LaunchDescriptionEntity),
    "launch.actions": (
        DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable,
    ),
    "launch.event_handlers": (OnProcessStart,),
    "launch.events": (),
    "launch.events.process": (ProcessStarted,),
    "launch.substitutions": (EnvironmentVariable, LaunchConfiguration),
    "launch_ros": (),
    "launch_ros.actions": (LifecycleNode, Node),
}  # fmt: skip


def install(monkeypatch) -> None:
    """Put the stand-in where `import launch` finds it, for one test."""
    for name, members in MODULES.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "sam2s_ros.launching", raising=False)


def launch(description: LaunchDescription, **given: str) -> tuple[list, dict]:
    """Run a description as launch would: the actions that it starts, and their environment."""
    declared = [e for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    unknown = given.keys() - {argument.name for argument in declared}
    assert not unknown, f"no such arguments: {unknown}"
    context = LaunchContext(environment=dict(os.environ))
    started: list = []
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            value = given.get(entity.name, entity.default_value)
            context.launch_configurations[entity.name] = value
        elif isinstance(entity, SetEnvironmentVariable):
            context.environment[entity.name] = entity.value.perform(context)
        elif isinstance(entity, OpaqueFunction):
            started += entity.function(context)
        else:
            started.append(entity)
    return started, context.environment
