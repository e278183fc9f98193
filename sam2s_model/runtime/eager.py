"""The plain PyTorch runtime, on a CPU or a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.allocator import keep_freed_memory
from sam2s_model.config import MemorySettings
from sam2s_model.model import Conditioned, Decoded, Features, MemoryBatch, PromptBatch, Sam2s
from sam2s_model.runtime.base import RuntimeUnavailableError

PRECISIONS = ("fp32", "bf16")
MEAN = (0.485, 0.456, 0.406)  # of RGB values in 0..1, as SAM 2 was trained
DEVIATION = (0.229, 0.224, 0.225)

StageT = TypeVar("StageT", bound=Callable[..., Any])


def _stage(method: StageT) -> StageT:
    """Run a stage without gradients and in the runtime's precision."""

    @wraps(method)
    def run(self: EagerRuntime, *args: Any) -> Any:
        with torch.inference_mode(), self.autocast():
            return method(self, *args)

    return cast(StageT, run)


def scale_to_input(frame: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """Resize a frame HxWx3 to the network's square input and normalise it: [1, 3, S, S] float32.

    The antialiased bicubic filter on bytes is the one that SAM 2's frames were prepared with.
    """
    if not (frame.flags.c_contiguous and frame.flags.writeable):
        frame = frame.copy()  # torch cannot share read-only memory, such as a message's buffer
    image = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None]
    if image.shape[-2:] != (size, size):
        if device.type == "cpu":
            image = F.interpolate(image, size=(size, size), mode="bicubic", antialias=True)
        else:  # the byte kernel exists on the CPU only; rounding gives the same bytes
            exact = F.interpolate(image.float(), size=(size, size), mode="bicubic", antialias=True)
            image = exact.round().clamp(0, 255)
    image = image.contiguous()  # one layout for all frames, or sums would be rounded differently
    scale = torch.tensor([255.0 * s for s in DEVIATION], device=device)[:, None, None]
    shift = torch.tensor([m / s for m, s in zip(MEAN, DEVIATION, strict=True)], device=device)
    return image.float() / scale - shift[:, None, None]


def shrink(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale a frame HxWx3 on the CPU as `scale_to_input` does: uint8 [S, S, 3]."""
    if frame.shape[:2] == (size, size):
        return frame
    if not (frame.flags.c_contiguous and frame.flags.writeable):
        frame = frame.copy()
    image = torch.from_numpy(frame).permute(2, 0, 1)[None]
    scaled = F.interpolate(image, size=(size, size), mode="bicubic", antialias=True)
    small: NDArray[np.uint8] = scaled[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(small)


class EagerRuntime:
    """Runs a Sam2s module's stages as they are."""

    def __init__(
        self, model: Sam2s, device: torch.device | str = "cpu", precision: str = "fp32"
    ) -> None:
        if precision not in PRECISIONS:
            raise RuntimeUnavailableError(
                f"there is no precision '{precision}' for the torch runtime; "
                f"choose one of {', '.join(PRECISIONS)}"
            )
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise RuntimeUnavailableError(
                f"'{device}' is no device; use 'cpu', 'cuda' or 'cuda:0'"
            ) from error
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeUnavailableError(
                "device 'cuda' was asked for, but torch sees no CUDA device here; use "
                "device='cpu' or install a CUDA build of torch"
            )
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = model.to(self.device).eval()
        self.config = model.config
        self.precision = precision
        self.semantics = model.has_semantics
        self.fingerprint = model.fingerprint()
        self.text_bank = model.text_bank
        self.torch_threads: int | None = None

    def check_memory(self, settings: MemorySettings) -> None:
        """Any settings do: nothing here is made for a number of slots."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision that stages run in."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def lane(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to share out: torch's threads belong to the thread that calls it."""
        return contextlib.nullcontext()

    @_stage
    def encode_image(self, frame: NDArray[np.uint8]) -> Features:
        """Scale, normalise and encode a frame HxWx3 RGB of any size."""
        return self.model.encode_image(scale_to_input(frame, self.config.image_size, self.device))

    @_stage
    def attend_memory(self, features: Features, memory: MemoryBatch) -> Conditioned:
        """See Sam2s.attend_memory."""
        return self.model.attend_memory(features, memory, self.semantics)

    @_stage
    def decode(self, features: Features, conditioned: Tensor, prompts: PromptBatch) -> Decoded:
        """See Sam2s.decode."""
        return self.model.decode(features, conditioned, prompts)

    @_stage
    def encode_memory(
        self, features: Features, logits: Tensor, object_score: Tensor, binary: Tensor
    ) -> Tensor:
        """See Sam2s.encode_memory."""
        return self.model.encode_memory(features, logits, object_score, binary)

    @_stage
    def unconditioned(self, features: Features) -> Tensor:
        """See Sam2s.unconditioned."""
        return self.model.unconditioned(features)

    @_stage
    def mask_to_logits(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Sam2s.mask_to_logits."""
        return self.model.mask_to_logits(mask)

    @_stage
    def class_probabilities(self, vectors: Tensor, text: Tensor) -> Tensor:
        """See SemanticToken.class_probabilities."""
        return self.model.semantic.class_probabilities(vectors, text)
