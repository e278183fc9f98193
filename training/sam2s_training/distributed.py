"""The processes of a training: one alone, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sam2s_model.errors import Sam2sError


class DeviceError(Sam2sError):
    """A device that this machine lacks."""


@dataclass(frozen=True)
class World:
    """One process among all; `rank` 0 writes files and speaks."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add numbers up over all processes; a barrier too."""
        if self.size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Add a tensor of this process's device up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def leave(self) -> None:
        """End the connection to the other processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn auto, cpu, cuda or cuda:1 into a device that is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"'{name}' is no device; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError("this machine offers no CUDA device; give --device cpu, or auto")
        if ":" not in name:
            device = torch.device("cuda", local_rank)
        if device.index >= torch.cuda.device_count():
            raise DeviceError(
                f"{device} is not there: this machine has {torch.cuda.device_count()} CUDA devices"
            )
        torch.cuda.set_device(device)
    return device


def join(device: str) -> World:
    """Join the processes that torchrun started (it sets RANK and WORLD_SIZE), or stay alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(choose_device(device))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(chosen, dist.get_rank(), dist.get_world_size())
