"""What a runtime offers to the tracker: the four stages and three small helpers of theirs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.config import MemorySettings, ModelConfig
from sam2s_model.errors import Sam2sError
from sam2s_model.model import Conditioned, Decoded, Features, MemoryBatch, PromptBatch
from sam2s_model.textbank import TextBank


class RuntimeUnavailableError(Sam2sError):
    """A runtime, device or precision that this machine or version cannot give."""


class Runtime(Protocol):
    """Executes the stages for N targets at once; keeps no state of any target."""

    config: ModelConfig
    device: torch.device  # where memories live
    semantics: bool  # whether class vectors are wanted; False where the weights cannot make any
    fingerprint: str  # of the weights; snapshots go on only with the same
    text_bank: TextBank | None  # the one that came with the weights
    torch_threads: int | None  # for what is computed beside the stages; None: as many as torch has

    def check_memory(self, settings: MemorySettings) -> None:
        """Refuse memory settings that this runtime has no room for."""

    def lane(self) -> AbstractContextManager[None]:
        """Be at work with this runtime: whoever is so beside another shares the cores with it."""

    def encode_image(self, frame: NDArray[np.uint8]) -> Features:
        """Scale, normalise and encode a frame HxWx3 RGB of any size."""

    def attend_memory(self, features: Features, memory: MemoryBatch) -> Conditioned:
        """See Sam2s.attend_memory."""

    def decode(self, features: Features, conditioned: Tensor, prompts: PromptBatch) -> Decoded:
        """See Sam2s.decode."""

    def encode_memory(
        self, features: Features, logits: Tensor, object_score: Tensor, binary: Tensor
    ) -> Tensor:
        """See Sam2s.encode_memory."""

    def unconditioned(self, features: Features) -> Tensor:
        """See Sam2s.unconditioned."""

    def mask_to_logits(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Sam2s.mask_to_logits."""

    def class_probabilities(self, vectors: Tensor, text: Tensor) -> Tensor:
        """See SemanticToken.class_probabilities."""
