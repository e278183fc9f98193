"""What a replay has tracked so far, on disk, so that one that was interrupted goes on from there.

Kept are the session's results, frame by frame, and now and then the session's state. Everything
else that a replay makes follows from the results and the bag, and is made anew from them, which
takes a fraction of the tracker's time.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import pickle
import shutil
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from sam2s_model.result import FrameResult, TargetResult, TrackState
from sam2s_ros.replay.errors import ReplayError
from sam2s_ros.session import PromptRequest, SessionEvent, SessionObject, SessionResult
from sam2s_ros.state_file import StateFileError, read_state, write_state

LOG = logging.getLogger(__name__)

EVERY = 250  # frames between two savings at most …
SECONDS = 20.0  # … and seconds: a slow machine's work is worth as much
STEPS, STATE = "steps", "state"
_LENGTH = struct.Struct("<I")  # of a step's bytes, which follow
# All that a step may be made of; nothing else is read from the file.
_OWN = ("sam2s_ros.", "sam2s_model.")  # their classes
_OTHERS = {
    ("numpy", "dtype"), ("numpy", "ndarray"), (__name__, "_tensor"), (__name__, "_mask"),
    *(
        (f"numpy.{core}.{module}", name)  # numpy 2 has moved them
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")
        )
    ),
}  # fmt: skip


class JournalError(ReplayError):
    """A journal that cannot be gone on from."""


@dataclass(frozen=True)
class Step:
    """What happened on one frame."""

    removed: tuple[SessionEvent, ...]  # before it
    problems: tuple[str, ...]
    result: SessionResult


class Journal:
    """The steps of one replay.

    Args:
        folder: where it is kept; nothing is there before the first saving.
        mark: says what is replayed how; a journal of something else is thrown away.
        every: frames between two savings at most.
    """

    def __init__(self, folder: Path, mark: str, every: int = EVERY) -> None:
        self._folder, self._mark, self._every = folder, mark, every
        self._new: list[bytes] = []
        self._saved = time.monotonic()
        self._kept = self._read_state()
        self._file: BinaryIO | None = None
        self._length = int(self._kept.get("bytes", 0))
        if not self._kept and folder.is_dir():
            LOG.warning(
                "%s is of another bag, other settings, other code or damaged: begun anew", folder
            )
            self.remove()

    @property
    def frames(self) -> int:
        """Steps that an interrupted replay has left; the state is that before the last one."""
        return int(self._kept.get("frames", 0))

    @property
    def seconds(self) -> float:
        """How long the interrupted replay had taken for them."""
        return float(self._kept.get("seconds", 0.0))

    @property
    def state(self) -> Mapping[str, Any]:
        """The session's state before the last step."""
        state: Mapping[str, Any] = self._kept["session"]
        return state

    def recall(self, requests: Sequence[PromptRequest]) -> Step:
        """Read the next step; `requests` are all prompts that have been given so far."""
        if self._file is None:
            self._file = (self._folder / STEPS).open("rb")
        try:
            (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            data = zlib.decompress(self._file.read(length))
            step = _Reader(io.BytesIO(data), requests).load()
        except Exception as error:  # a damaged pickle may raise whatever it likes
            raise JournalError(f"{self._folder / STEPS} is damaged: {error!r}") from error
        if not isinstance(step, Step):
            raise JournalError(f"{self._folder / STEPS} holds no steps")
        return step

    def due(self, frame: int) -> bool:
        """Tell whether this frame's step shall be saved with the state before it."""
        late = time.monotonic() - self._saved > SECONDS
        return frame > self.frames and (late or frame % self._every == 0)

    def add(self, step: Step, requests: Sequence[PromptRequest]) -> None:
        """Take in the next step; it is on disk after the next `save`."""
        buffer = io.BytesIO()
        _Writer(buffer, requests).dump(_lean(step))
        data = zlib.compress(buffer.getvalue(), 1)
        self._new.append(_LENGTH.pack(len(data)) + data)

    def save(self, state: Mapping[str, Any], frames: int, seconds: float) -> None:
        """Write all steps so far, and the session's state before the last of them."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / STEPS).open("r+b" if self._length else "wb") as file:
            file.seek(self._length)
            file.truncate()  # what an interrupted replay wrote last has no state
            file.writelines(self._new)
            self._length = file.tell()
        self._new.clear()
        self._saved = time.monotonic()
        content = {
            "mark": self._mark, "frames": frames, "bytes": self._length, "seconds": seconds,
            "session": dict(state),
        }  # fmt: skip
        write_state(self._folder / STATE, content)

    def remove(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._kept, self._length = {}, 0
        self._new.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read_state(self) -> dict[str, Any]:
        if not (self._folder / STATE).is_file():
            return {}
        try:
            state = read_state(self._folder / STATE)
        except StateFileError:
            return {}
        whole = (self._folder / STEPS).is_file() and state.get("mark") == self._mark
        return state if whole else {}


def _lean(step: Step) -> Step:
    """Leave out the logits, by far the most, of frames on which no masks can overlap."""
    result = step.result
    boxes = [o.box for o in result.objects if o.state is TrackState.TRACKING and o.box is not None]
    if any(_meet(a, b) for a, b in combinations(boxes, 2)):
        return step
    targets = {
        name: dataclasses.replace(target, low_res_logits=torch.empty(0), lead_logits=None)
        for name, target in result.result.items()
    }
    lean = FrameResult(result.result.frame, targets, result.result.timings)
    return dataclasses.replace(step, result=dataclasses.replace(result, result=lean))


def _meet(a: Sequence[int], b: Sequence[int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array)


def _mask(shape: tuple[int, ...], packed: bytes) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=math.prod(shape))
    return bits.reshape(shape).view(np.bool_)


class _Writer(pickle.Pickler):
    """Writes prompts by their number: the next process makes its own from the same source."""

    def __init__(self, file: BinaryIO, requests: Sequence[PromptRequest]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._numbers = {request: number for number, request in enumerate(requests)}

    def persistent_id(self, obj: Any) -> int | None:
        return self._numbers[obj] if isinstance(obj, PromptRequest) else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            return _tensor, (obj.detach().cpu().numpy(),)
        if isinstance(obj, (TargetResult, SessionObject)):  # without what it keeps to have it ready
            fields = dataclasses.fields(obj)
            return type(obj), tuple(getattr(obj, field.name) for field in fields)
        if isinstance(obj, np.ndarray) and obj.dtype == np.bool_:  # masks: an eighth to compress
            return _mask, (obj.shape, np.packbits(obj).tobytes())
        if isinstance(obj, Enum):  # some Pythons write a call of getattr
            return type(obj), (obj.value,)
        return NotImplemented


class _Reader(pickle.Unpickler):
    """Reads steps, and makes nothing but what they consist of."""

    def __init__(self, file: BinaryIO, requests: Sequence[PromptRequest]) -> None:
        super().__init__(file)
        self._requests = requests

    def persistent_load(self, number: Any) -> PromptRequest:
        return self._requests[int(number)]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _OTHERS:
            return super().find_class(module, name)
        if module.startswith(_OWN) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__.startswith(_OWN):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a step")
