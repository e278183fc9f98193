"""Parameters of a node as a table: declared, described, bounded, and read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from sam2s_model.errors import Sam2sError

RELIABILITIES = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}


class ParameterError(Sam2sError):
    """A parameter, or a set of them, that a node cannot work with."""


class Setting(NamedTuple):
    """One parameter."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False  # may change while the node runs

    def check(self, value: Any) -> None:
        """Refuse a value that is none of the choices; ROS itself sees to ranges and types."""
        if self.choices and value not in self.choices:
            raise ParameterError(f"the parameter '{self.name}' is '{value}'; {expected(self)}")


def declare_all(node: Node, settings: Iterable[Setting]) -> dict[str, Any]:
    """Declare parameters and give their values by name, or say which one cannot be."""
    values: dict[str, Any] = {}
    for setting in settings:
        try:
            parameter = node.declare_parameter(setting.name, setting.default, _descriptor(setting))
        except ParameterException as error:
            hint = " (write 10.0, not 10)" if isinstance(setting.default, float) else ""
            raise ParameterError(
                f"the parameter '{setting.name}' was refused: {expected(setting)}{hint} [{error}]"
            ) from error
        setting.check(parameter.value)
        values[setting.name] = parameter.value
    return values


def expected(setting: Setting) -> str:
    """Say what a parameter may be."""
    if setting.choices:
        return f"it must be one of {', '.join(setting.choices)}"
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    wanted = f"it must be {kind[type(setting.default)]}"
    if setting.low is not None:
        wanted += f" in {setting.low:g}…{setting.high:g}"
    return wanted


def _descriptor(setting: Setting) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=setting.description,
        read_only=not setting.live,
        additional_constraints=expected(setting) if setting.choices else "",
    )
    if setting.low is not None and setting.high is not None:
        if isinstance(setting.default, int):
            bounds = IntegerRange(from_value=int(setting.low), to_value=int(setting.high), step=1)
            descriptor.integer_range = [bounds]
        else:
            limits = FloatingPointRange(from_value=setting.low, to_value=setting.high)
            descriptor.floating_point_range = [limits]
    return descriptor
