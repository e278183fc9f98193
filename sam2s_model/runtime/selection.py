"""Which runtime a tracker gets, by name."""

from __future__ import annotations

from os import PathLike

import torch

from sam2s_model.model import Sam2s
from sam2s_model.runtime.base import Runtime, RuntimeUnavailableError
from sam2s_model.runtime.eager import EagerRuntime
from sam2s_model.runtime.onnx_graph import OnnxOptions


def make_runtime(
    model: Sam2s | str | PathLike[str],
    runtime: str | Runtime,
    *,
    device: torch.device | str,
    precision: str,
    provider: str,
    allow_fallback: bool,
    onnx: OnnxOptions | None,
    max_targets: int,
) -> Runtime:
    """Make a runtime; see StreamTracker for the arguments."""
    if not isinstance(runtime, str):
        return runtime
    if runtime not in ("torch", "onnx"):
        raise RuntimeUnavailableError(
            f"there is no runtime '{runtime}'; use runtime='torch' or runtime='onnx'"
        )
    if runtime == "torch":
        if not isinstance(model, Sam2s):
            raise RuntimeUnavailableError(
                f"runtime 'torch' runs a model, not '{model}': give load_model(…), or "
                "runtime='onnx' with a folder that `sam2s export` wrote"
            )
        if provider != "cpu" or onnx is not None:
            raise RuntimeUnavailableError(
                "provider and onnx are settings of runtime 'onnx'; runtime 'torch' takes a device"
            )
        return EagerRuntime(model, device, precision)
    if isinstance(model, Sam2s):
        raise RuntimeUnavailableError(
            "runtime 'onnx' runs exported graphs: write them with `sam2s export` and give their "
            "folder instead of the model"
        )
    if str(device) != "cpu" or precision != "fp32":
        raise RuntimeUnavailableError(
            "device and precision are settings of runtime 'torch'; runtime 'onnx' takes a "
            "provider, and its precision was chosen by `sam2s export --precision`"
        )
    from sam2s_model.runtime.onnx import OnnxRuntime

    return OnnxRuntime(
        model, provider, onnx, allow_fallback=allow_fallback, max_targets=max_targets
    )
