"""Clips made ahead of time, so that the optimiser does not wait for them.

Which clips come, and in what order, follows from the numbers alone: neither how many processes make
them nor where a run was stopped changes it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sam2s_training.data.clip import Clip, ClipSource, take
from sam2s_training.data.errors import ClipError, DataSettingError

Ahead = Literal["processes", "thread", "none"]
AHEAD: tuple[Ahead, ...] = ("processes", "thread", "none")


@dataclass(frozen=True)
class LoaderSettings:
    """Who makes clips ahead of time.

    `processes` suit the CPU; let the number of scenes be a multiple of workers times processes of
    the training, then each keeps scenes of its own. `thread` suits a source that renders on the
    GPU: it makes whole batches on a stream of its own. `none` makes each batch when it is asked
    for.
    """

    ahead: Ahead = "processes"
    workers: int = 1  # processes; each renders with one thread
    batches: int = 2  # made ahead of the one that is being trained on
    nice: int = 5  # how far the processes step back behind the optimiser, 0 to 19

    def __post_init__(self) -> None:
        if self.ahead not in AHEAD:
            raise DataSettingError(f"loader ahead {self.ahead!r}: one of {', '.join(AHEAD)}")
        for name, low, high in (("workers", 1, 256), ("batches", 1, 1024), ("nice", 0, 19)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise DataSettingError(f"loader {name} is {value}; it must be {low} to {high}")


class Batch(NamedTuple):
    """The clips of one micro-step in one process of the training, and their numbers."""

    clips: list[Clip]
    indices: list[int]


class Loader:
    """Batches of clips for one process of a training, without end.

    Process r of w takes clips first + r, first + r + w, …; so the processes together have, in each
    step, what one process with w times the batch would have. Close it, or use it in a `with`.

    Args:
        source: gives clips by number; for `processes` it is sent to them by pickle.
        batch: clips of a batch.
        settings: who makes the clips.
        first: number of the first clip, over all processes of the training.
        rank: this process's number, r.
        world: how many processes train together, w.
        device: where the clips go.
    """

    def __init__(
        self,
        source: ClipSource,
        batch: int,
        settings: LoaderSettings | None = None,
        *,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch < 1 or first < 0 or not 0 <= rank < world:
            raise DataSettingError(
                f"batch {batch}, first clip {first}, rank {rank} of {world}: batch must be at "
                "least 1, the first clip's number at least 0, and the rank one of the processes"
            )
        self.batch = batch
        self.waited = 0.0  # seconds that the training waited for clips so far
        settings, place = settings or LoaderSettings(), torch.device(device)
        self._numbers = iter(_Numbers(first, rank, world))
        numbers = _Numbers(first, rank, world)
        self._maker: _Maker
        if settings.ahead == "processes":
            self._maker = _Processes(source, batch, settings, numbers, place)
        elif settings.ahead == "thread":
            self._maker = _Thread(source, batch, settings, numbers, place)
        else:
            self._maker = _AtOnce(source, batch, numbers, place)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        clips = self._maker.clips()
        self.waited += time.perf_counter() - start
        return Batch(clips, [next(self._numbers) for _ in range(self.batch)])

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop making clips, and wait until the processes or the thread have ended."""
        self._maker.close()


class _Maker(Protocol):
    """Makes batches in order."""

    def clips(self) -> list[Clip]:
        """Give the next batch."""

    def close(self) -> None:
        """End; a second time does nothing."""


class _AtOnce:
    """Makes a batch when it is asked for."""

    def __init__(
        self, source: ClipSource, batch: int, numbers: _Numbers, device: torch.device
    ) -> None:
        self.source, self.batch, self.device = source, batch, device
        self._numbers = iter(numbers)

    def clips(self) -> list[Clip]:
        indices = [next(self._numbers) for _ in range(self.batch)]
        return [clip.to(self.device) for clip in _make(self.source, indices)]

    def close(self) -> None:
        pass


class _Processes:
    """Lets processes make clips, in turns, and puts them into order."""

    def __init__(
        self,
        source: ClipSource,
        batch: int,
        settings: LoaderSettings,
        numbers: _Numbers,
        device: torch.device,
    ) -> None:
        self.batch, self.device = batch, device
        loader: DataLoader[Clip | _Failure] = DataLoader(
            _Clips(source),
            batch_size=None,  # one clip is one task: a batch is shared by all processes
            sampler=numbers,
            num_workers=settings.workers,
            prefetch_factor=max(1, -(-settings.batches * batch // settings.workers)),
            collate_fn=_as_it_is,
            worker_init_fn=_StepBack(settings.nice),
            # A fork would copy locks and threads of the training, a CUDA context even.
            multiprocessing_context="spawn",
            pin_memory=device.type == "cuda",
        )
        with _own_signals():
            self._clips: Iterator[Clip | _Failure] | None = iter(loader)

    def clips(self) -> list[Clip]:
        if self._clips is None:
            raise ClipError("the loader is closed; make a new one")
        batch = []
        for _ in range(self.batch):
            try:
                clip = next(self._clips)
            # RuntimeError: torch missed it; the others: it died while a clip was being handed over.
            except (RuntimeError, OSError, EOFError) as error:
                raise ClipError(f"a process that makes clips has ended: {error}") from error
            if isinstance(clip, _Failure):
                raise ClipError(clip.message)
            batch.append(clip.to(self.device))
        return batch

    def close(self) -> None:
        # torch's iterator ends its processes when it is freed.
        self._clips = None


class _Thread:
    """Makes batches in a thread, on a GPU in a stream of its own beside the training's."""

    def __init__(
        self,
        source: ClipSource,
        batch: int,
        settings: LoaderSettings,
        numbers: _Numbers,
        device: torch.device,
    ) -> None:
        self.source, self.batch, self.device = source, batch, device
        self._numbers = iter(numbers)
        self._stop = threading.Event()
        self._made: queue.Queue[_Made | BaseException] = queue.Queue(settings.batches)
        self._thread = threading.Thread(target=self._fill, daemon=True, name="clips")
        self._thread.start()

    def clips(self) -> list[Clip]:
        if self._stop.is_set():
            raise ClipError("the loader is closed; make a new one")
        item = self._made.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item.wait()

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # it may stand before a full queue
                self._made.get_nowait()
            self._thread.join(0.02)

    def _fill(self) -> None:
        try:
            cuda = self.device.type == "cuda"
            stream = torch.cuda.Stream(self.device) if cuda else None  # type: ignore[no-untyped-call]
            while not self._stop.is_set():
                with torch.cuda.stream(stream):  # does nothing without a stream
                    indices = [next(self._numbers) for _ in range(self.batch)]
                    clips = [clip.to(self.device) for clip in _make(self.source, indices)]
                    self._made.put(_Made(clips, stream.record_event() if stream else None))
        except BaseException as error:  # the training's thread raises it
            self._made.put(error)


class _Made(NamedTuple):
    """A batch from the thread; on a GPU perhaps still being rendered."""

    clips: list[Clip]
    ready: torch.cuda.Event | None

    def wait(self) -> list[Clip]:
        """Let the current stream wait for the batch, and own its memory from now on."""
        if self.ready is not None:
            current = torch.cuda.current_stream(self.clips[0].images.device)
            current.wait_event(self.ready)
            for clip in self.clips:
                for tensor in (clip.images, clip.masks, clip.classes):
                    tensor.record_stream(current)
        return self.clips


class _Numbers(Sampler[int]):
    """The numbers of one process's clips, without end."""

    def __init__(self, first: int, rank: int, world: int) -> None:
        self.first, self.rank, self.world = first, rank, world

    def __iter__(self) -> Iterator[int]:
        number = self.first + self.rank
        while True:
            yield number
            number += self.world


class _Failure(NamedTuple):
    """What went wrong in a process; the exception itself might not travel."""

    message: str


class _Clips(Dataset["Clip | _Failure"]):
    """The source as torch's loader wants it."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __getitem__(self, index: int) -> Clip | _Failure:
        try:
            return _make(self.source, [index])[0]
        except ClipError as error:
            return _Failure(str(error))


@dataclass(frozen=True)
class _StepBack:
    """Prepare a process: low priority, and signals left to the training."""

    nice: int

    def __call__(self, worker: int) -> None:
        os.nice(self.nice)
        # Ctrl-C and torchrun reach the whole group, but the training still wants its last step;
        # it ends its processes itself, and they end when it is gone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep torch from raising the death of a process anywhere in the training.

    `next` finds it out too, within seconds, and there it can be told and handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # torch installs its handler in the main thread alone
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _make(source: ClipSource, indices: list[int]) -> list[Clip]:
    try:
        return take(source, indices)
    except Exception as error:
        which = f"clip {indices[0]}" if len(indices) == 1 else f"one of clips {indices}"
        raise ClipError(f"{which}: {type(error).__name__}: {error}") from error


def _as_it_is(item: Any) -> Any:
    return item
