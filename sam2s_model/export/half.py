"""Graphs in float16: the same inputs and outputs, half the size."""

from __future__ import annotations

from typing import Any


def halved(proto: Any) -> Any:
    """Convert a graph's weights and arithmetic to float16; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=False)
