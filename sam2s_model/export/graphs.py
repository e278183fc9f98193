"""The four stages as modules that the exporter traces, with their named inputs and outputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from sam2s_model.export.attention import AttendMemory
from sam2s_model.export.decoding import Decode
from sam2s_model.export.encoding import EncodeImage
from sam2s_model.export.layout import Port, stage_ports
from sam2s_model.export.manifest import Capacities
from sam2s_model.export.remembering import EncodeMemory
from sam2s_model.model import Sam2s


class Traced(NamedTuple):
    """A stage that is ready for the exporter."""

    module: nn.Module
    inputs: list[Port]
    outputs: list[Port]


def stages(model: Sam2s, capacities: Capacities, opset: int) -> dict[str, Traced]:
    """Make the four stages of a model in evaluation mode on the CPU."""
    modules = {
        "encode_image": EncodeImage(model),
        "attend_memory": AttendMemory(model, capacities, opset),
        "decode": Decode(model),
        "encode_memory": EncodeMemory(model),
    }
    ports = stage_ports(model.config, model.has_semantics)
    return {name: Traced(modules[name].eval(), *ports[name]) for name in ports}
