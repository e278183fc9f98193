"""The four stages as modules that the exporter traces, with their named inputs and outputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from sam2s_model.export.attention import AttendMemory
from sam2s_model.export.decoding import Decode
from sam2s_model.export.layout import Port, stage_ports
from sam2s_model.model import Features, Sam2s


class EncodeImage(nn.Module):
    """Sam2s.encode_image."""

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [1, 3, S, S], normalised -> the three parts of Features."""
        return tuple(self.model.encode_image(image))


class EncodeMemory(nn.Module):
    """Sam2s.encode_memory."""

    def __init__(self, model: Sam2s) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, coarse: Tensor, logits: Tensor, object_score: Tensor, binary: Tensor
    ) -> tuple[Tensor, ...]:
        """See Sam2s.encode_memory -> memories [N, HW, Cm]."""
        features = Features(coarse, coarse, coarse)
        return (self.model.encode_memory(features, logits, object_score, binary),)


class Traced(NamedTuple):
    """A stage that is ready for the exporter."""

    module: nn.Module
    inputs: list[Port]
    outputs: list[Port]


def stages(model: Sam2s) -> dict[str, Traced]:
    """Make the four stages of a model in evaluation mode on the CPU."""
    modules = {
        "encode_image": EncodeImage(model),
        "attend_memory": AttendMemory(model),
        "decode": Decode(model),
        "encode_memory": EncodeMemory(model),
    }
    ports = stage_ports(model.config, model.has_semantics)
    return {name: Traced(modules[name].eval(), *ports[name]) for name in ports}
