"""The ONNX Runtime: runs a folder of exported graphs on a CPU, with CUDA or with TensorRT."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.allocator import keep_freed_memory
from sam2s_model.config import MemorySettings
from sam2s_model.export.layout import stage_ports
from sam2s_model.export.manifest import BANK_FILE, HELPERS_FILE, Manifest
from sam2s_model.model import Conditioned, Decoded, Features, MemoryBatch, PromptBatch
from sam2s_model.runtime.base import RuntimeUnavailableError
from sam2s_model.runtime.eager import scale_to_input
from sam2s_model.runtime.lanes import Lanes
from sam2s_model.runtime.onnx_graph import (
    PROVIDERS,
    OnnxGraph,
    OnnxOptions,
    available_providers,
    most_sizes,
)
from sam2s_model.textbank import TextBank

LOG = logging.getLogger(__name__)


class OnnxRuntime:
    """Runs the stages of an export folder.

    Args:
        folder: what `sam2s export` wrote.
        provider: "cpu", "cuda" or "tensorrt".
        options: threads, memory and optimisation.
        allow_fallback: whether to run on the CPU where the provider is not available.
        max_targets: how many targets TensorRT's engines are built for.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        provider: str = "cpu",
        options: OnnxOptions | None = None,
        *,
        allow_fallback: bool = False,
        max_targets: int = 16,
    ) -> None:
        folder = Path(folder)
        options = options or OnnxOptions()
        self.provider = choose_provider(provider, allow_fallback)
        self.manifest = Manifest.load(folder)
        self.config = self.manifest.config
        self.semantics = self.manifest.semantics
        self.fingerprint = self.manifest.fingerprint
        self.text_bank: TextBank | None = None
        if self.manifest.text_bank_sha256:
            self.text_bank = TextBank.load(folder / BANK_FILE)
        self.device = torch.device("cpu" if self.provider == "cpu" else "cuda")
        self.torch_threads: int | None = 1 if self.provider == "cpu" else None
        if self.provider == "cpu":
            keep_freed_memory()
        fixed = options.fixed_slots
        self.fixed_slots = self.provider != "cpu" if fixed is None else fixed
        self._helpers = self._load_helpers(folder)
        self._lanes = Lanes()
        capacities = self.manifest.capacities
        sizes = most_sizes(capacities.slots, capacities.pointers, max_targets)
        self.graphs = {
            name: OnnxGraph(
                folder / self.manifest.graphs[name].file,
                ports,
                self.provider,
                options,
                sizes,
                self.fingerprint,
                self._lanes,
            )
            for name, ports in stage_ports(self.config, self.manifest.semantics).items()
        }

    def check_memory(self, settings: MemorySettings) -> None:
        """Refuse memory settings that the graphs have no room for."""
        self.manifest.capacities.check(self.config, settings)

    def lane(self) -> AbstractContextManager[None]:
        """See Runtime.lane. With OnnxOptions.overlap each of two has half of the threads."""
        return self._lanes.lane()

    def encode_image(self, frame: NDArray[np.uint8]) -> Features:
        """Scale, normalise and encode a frame HxWx3 RGB of any size."""
        image = scale_to_input(frame, self.config.image_size, self.device)
        return Features(*self.graphs["encode_image"](image))

    def attend_memory(self, features: Features, memory: MemoryBatch) -> Conditioned:
        """See Sam2s.attend_memory."""
        if self.fixed_slots:
            capacities = self.manifest.capacities
            memory = padded(memory, capacities.slots, capacities.pointers)
        spatial, role, pointers, distance, seen = memory
        if seen is None:
            seen = torch.ones(
                len(role), role.shape[1] + pointers.shape[1], dtype=torch.bool, device=self.device
            )
        given = self.graphs["attend_memory"](
            features.coarse, spatial, role, pointers, distance, seen
        )
        if len(given) == 2 and self.semantics:
            return Conditioned(given[0], given[1])
        return Conditioned(given[0], given[0].new_zeros(len(spatial), 0))

    def decode(self, features: Features, conditioned: Tensor, prompts: PromptBatch) -> Decoded:
        """See Sam2s.decode."""
        masks = prompts.masks
        if masks is None:
            size = self.config.prompt_mask_size
            masks = torch.zeros(len(conditioned), 1, size, size, device=self.device)
        return Decoded(
            *self.graphs["decode"](
                features.fine_4,
                features.fine_8,
                conditioned,
                prompts.xy,
                prompts.labels,
                masks,
                prompts.mask_given,
                prompts.ambiguous,
            )
        )

    def encode_memory(
        self, features: Features, logits: Tensor, object_score: Tensor, binary: Tensor
    ) -> Tensor:
        """See Sam2s.encode_memory."""
        return self.graphs["encode_memory"](features.coarse, logits, object_score, binary)[0]

    def unconditioned(self, features: Features) -> Tensor:
        """See Sam2s.unconditioned."""
        return features.coarse + self._helpers["no_mem_embed"][None, :, None, None]

    def mask_to_logits(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Sam2s.mask_to_logits."""
        size = (self.config.mask_size, self.config.mask_size)
        output = F.interpolate(
            mask * 20.0 - 10.0, size=size, mode="bilinear", align_corners=False, antialias=True
        )
        weight = self._helpers["mask_downsample.weight"]
        return output, F.conv2d(mask, weight, self._helpers["mask_downsample.bias"], stride=4)

    def class_probabilities(self, vectors: Tensor, text: Tensor) -> Tensor:
        """See SemanticToken.class_probabilities."""
        return (self._helpers["log_scale"].exp() * vectors @ text.T).softmax(-1)

    def _load_helpers(self, folder: Path) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(folder / HELPERS_FILE, device=str(self.device))


def choose_provider(provider: str, allow_fallback: bool) -> str:
    """The provider to run with: the one asked for, or the CPU if that may replace it."""
    if provider not in PROVIDERS:
        raise RuntimeUnavailableError(
            f"there is no provider '{provider}'; choose one of {', '.join(PROVIDERS)}"
        )
    offered = available_providers()
    why = ""
    if provider not in offered:
        why = f"the installed onnxruntime offers only: {', '.join(offered)}"
    elif provider != "cpu" and not torch.cuda.is_available():
        why = "torch, whose tensors hold the memory, sees no CUDA device"
    if not why:
        return provider
    if allow_fallback:
        LOG.warning("provider '%s' is not available (%s); running on the CPU", provider, why)
        return "cpu"
    raise RuntimeUnavailableError(
        f"provider '{provider}' was asked for, but {why}. Use provider 'cpu', install "
        "onnxruntime-gpu and a CUDA build of torch, or allow the fallback to the CPU "
        "(allow_fallback=True, --allow-fallback)"
    )


def padded(memory: MemoryBatch, slots: int, pointers: int) -> MemoryBatch:
    """Give a batch all slots and pointers of the bank; the new ones are hidden."""
    spatial, role, pointer, distance, seen = memory
    count, held = role.shape
    kept = pointer.shape[1]
    if seen is None:
        seen = torch.ones(count, held + kept, dtype=torch.bool, device=role.device)
    more, further = slots - held, pointers - kept
    return MemoryBatch(
        F.pad(spatial, (0, 0, 0, 0, 0, more)),
        F.pad(role, (0, more)),
        F.pad(pointer, (0, 0, 0, further)),
        F.pad(distance, (0, further)),
        torch.cat(
            (F.pad(seen[:, :held], (0, more)), F.pad(seen[:, held:], (0, further))),
            dim=1,
        ),
    )
