"""From a stage's module to a checked ONNX graph, through torch's exporter."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sam2s_model.export.errors import ExportError
from sam2s_model.export.graphs import Traced
from sam2s_model.export.layout import Port
from sam2s_model.export.operators import translations

OPSET = 23  # the first with rotary encoding as one operator; ONNX Runtime 1.23 and later
OPSETS = range(20, 24)  # 20 is the first with Gelu as one operator; newer ones were not tried

# Sizes to trace with: all different, and none 1, so that no two are taken for one dimension.
EXAMPLE_SIZES = {"targets": 3, "slots": 5, "pointers": 7, "slots+pointers": 12, "points": 4}


def check_opset(opset: int) -> None:
    """Refuse operator sets that the graphs cannot be written in."""
    if opset not in OPSETS:
        raise ExportError(
            f"opset {opset} does not work: the graphs need operators of opset {OPSETS[0]}, and "
            f"{OPSETS[-1]} is the newest that they were tried with"
        )


def trace(stage: Traced, name: str, opset: int) -> Any:
    """Turn a stage into a simplified and checked onnx.ModelProto."""
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise ExportError(
            f"exporting needs the package {error.name}: install the extra 'onnx', "
            "`pip install sam2s_ros[onnx]`"
        ) from error
    inputs = tuple(example(port) for port in stage.inputs)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.shape) if _named(size)}
        for port in stage.inputs
    )
    with _quiet():
        program = torch.onnx.export(
            stage.module,
            inputs,
            dynamo=True,
            opset_version=opset,
            input_names=[port.name for port in stage.inputs],
            output_names=[port.name for port in stage.outputs],
            dynamic_shapes=dynamic,
            custom_translation_table=translations(opset),
            verbose=False,
        )
    assert program is not None
    with _quiet():
        proto = onnxslim.slim(program.model_proto)
    proto.graph.name = name
    del proto.graph.value_info[:]  # shapes in terms of the tracer's own names
    for values, ports in ((proto.graph.input, stage.inputs), (proto.graph.output, stage.outputs)):
        for value, port in zip(values, ports, strict=True):
            _name_dimensions(value, port)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def example(port: Port, sizes: dict[str, int] | None = None) -> Tensor:
    """Make a tensor of a port's shape and type."""
    shape = port.sized(sizes or EXAMPLE_SIZES)
    if port.dtype == torch.float32:
        return torch.linspace(-1.0, 1.0, int(torch.tensor(shape).prod())).reshape(shape)
    return torch.ones(shape, dtype=port.dtype)


def operators(proto: Any) -> Counter[str]:
    """Count a graph's operators by type."""
    return Counter(node.op_type for node in proto.graph.node)


def _named(size: int | str) -> bool:
    return isinstance(size, str)


def _name_dimensions(value: Any, port: Port) -> None:
    """Give the dimensions of a graph's input or output the names that the manifest has."""
    if value.name != port.name:
        raise ExportError(f"the exporter wrote '{value.name}' where '{port.name}' was expected")
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in port.shape:
        dim = shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from reporting what nobody can act on, such as absent torchvision."""
    names = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
