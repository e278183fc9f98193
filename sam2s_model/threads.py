"""How many threads torch may use for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads of the CPU within this block; None leaves it alone.

    Beside ONNX Runtime one is enough for the little that torch does: its other threads would wait
    for more work by asking for it, for milliseconds after each operator, on the very cores that
    the graphs run on (nano with two targets on two cores: 23 frames a second in place of 16).
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
