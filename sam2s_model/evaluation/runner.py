"""Evaluate many clips: resumably, in several processes, one shard of them or all.

A run folder holds `run.json` (settings, clips, machine), `clips/<key>/<dataset>/<clip>.json` (one
record per clip, written when it is done) and `masks/<key>/<dataset>/<clip>/*.png` (predictions in
DAVIS layout). `<key>` depends on the settings, so runs with other settings never mix; a record also
carries a digest of its clip's data, and is made anew if they have changed.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.clip import evaluate_clip
from sam2s_model.evaluation.protocol import Tracker
from sam2s_model.evaluation.record import ClipRecord, RecordError
from sam2s_model.evaluation.settings import Settings, host, settings_key, versions
from sam2s_model.evaluation.sources import Clip

Progress = Callable[[int], None]

DEAD = "its process died (killed, or out of memory?)"
REFRESH = 0.5  # seconds between two signs of life of the progress bar


class RunnerError(Sam2sError):
    """A run that cannot be started."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run with certain settings keeps its files."""

    root: Path
    key: str

    def record(self, clip: Clip) -> Path:
        """Record of a clip."""
        return self.root / "clips" / self.key / clip.dataset / f"{clip.name}.json"

    def masks(self, dataset: str, clip: str) -> Path:
        """Folder of a clip's predicted masks."""
        return self.root / "masks" / self.key / dataset / clip

    def records(self) -> list[ClipRecord]:
        """Load all records, by data set and clip."""
        return [
            ClipRecord.load(path)
            for path in sorted((self.root / "clips" / self.key).rglob("*.json"))
        ]


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count` equal shares of the clips, counted from 1."""

    index: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """Read `i/n`."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise RunnerError(f"shard {text!r}: expected i/n, such as 2/4 for the second of four")
        shard = Shard(int(index), int(count))
        if not 1 <= shard.index <= shard.count:
            raise RunnerError(f"shard {text!r}: i must be from 1 to n")
        return shard

    def take(self, clips: Sequence[Clip]) -> list[Clip]:
        """Deal the clips out like cards, so that long and short ones spread."""
        return list(clips[self.index - 1 :: self.count])


@dataclass(frozen=True)
class _Job:
    """What a process needs to evaluate clips."""

    settings: Settings
    folder: RunFolder
    jobs: int
    keep_masks: bool
    versions: dict[str, str] = field(default_factory=versions)


def run_clips(
    clips: Sequence[Clip],
    settings: Settings,
    root: Path,
    jobs: int = 1,
    keep_masks: bool = True,
    show_progress: bool = True,
) -> RunFolder:
    """Evaluate the clips without a valid record; one that fails does not stop the others."""
    if jobs < 1:
        raise RunnerError(f"{jobs} jobs: at least one is needed")
    folder = RunFolder(root, settings_key(settings.describe()))
    job = _Job(settings, folder, jobs, keep_masks)
    waiting = [clip for clip in clips if not _is_done(clip, folder, keep_masks)]
    bar = tqdm(
        total=len(clips), initial=len(clips) - len(waiting), unit="clip", disable=not show_progress
    )
    with bar, _FrameCount(bar) as frames:
        for record in _run_all(waiting, job, frames):
            record.save(folder.root / "clips" / folder.key / record.dataset / f"{record.clip}.json")
            if record.failure:
                bar.write(f"{record.dataset}/{record.clip} failed: {record.failure}")
            bar.update()
    return folder


def _run_all(clips: Sequence[Clip], job: _Job, frames: _FrameCount) -> Iterator[ClipRecord]:
    if not clips:
        return
    if job.jobs == 1:
        tracker: Tracker | None = None
        for clip in clips:
            if tracker is None:
                tracker = job.settings.tracker.build()
            yield _evaluate(clip, tracker, job, frames.add)
        return
    yield from _run_in_processes(clips, job, frames)


def _evaluate(clip: Clip, tracker: Tracker, job: _Job, progress: Progress) -> ClipRecord:
    """Evaluate a clip; whatever goes wrong with it goes into its record."""
    record = ClipRecord(clip.dataset, clip.name, "", versions=job.versions, host=host(job.jobs))
    masks = job.folder.masks(clip.dataset, clip.name) if job.keep_masks else None
    if masks is not None:
        shutil.rmtree(masks, ignore_errors=True)
        masks.mkdir(parents=True)
    try:
        record.key = clip.fingerprint()
        evaluate_clip(clip.open(), tracker, job.settings.protocol, record, masks, progress)
    except Sam2sError as error:
        record.failure, record.targets = str(error), []
    except Exception as error:
        # A fault in the tracker or in a decoder: the other clips are still worth evaluating.
        place = traceback.extract_tb(error.__traceback__)[-1]
        record.failure = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        record.targets = []
    return record


def _is_done(clip: Clip, folder: RunFolder, keep_masks: bool) -> bool:
    path = folder.record(clip)
    if not path.exists():
        return False
    try:
        record = ClipRecord.load(path)
    except RecordError:
        return False
    if keep_masks and not folder.masks(clip.dataset, clip.name).exists():
        return False
    return record.failure is None and record.key == clip.fingerprint()


# --- several processes --------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _run_in_processes(
    clips: Sequence[Clip], job: _Job, frames: _FrameCount
) -> Iterator[ClipRecord]:
    # Fork would copy a process that already runs threads of torch and OpenCV.
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    frames.listen(queue)

    def pool(processes: int) -> _Pool:
        return _Pool(processes, context, _start_worker, (job, queue))

    orphans = []
    with pool(job.jobs) as everyone:
        futures = {everyone.submit(_work, clip): clip for clip in clips}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                orphans.append(futures[future])
    # A process that dies takes the whole pool with it. The clips left over go on one at a time, so
    # that the clip that kills its process is known and the others are evaluated.
    while orphans:
        with pool(1) as alone:
            while orphans:
                clip = orphans.pop(0)
                try:
                    yield alone.submit(_work, clip).result()
                except BrokenProcessPool:
                    yield ClipRecord(clip.dataset, clip.name, "", failure=DEAD, host=host(1))
                    break


class _Pool(ProcessPoolExecutor):
    """A pool that, interrupted, does not wait for all clips."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)


def _start_worker(job: _Job, queue: Any) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // job.jobs))
    _worker.update(job=job, queue=queue, tracker=None)


def _work(clip: Clip) -> ClipRecord:
    job: _Job = _worker["job"]
    if _worker["tracker"] is None:
        _worker["tracker"] = job.settings.tracker.build()
    return _evaluate(clip, _worker["tracker"], job, _worker["queue"].put)


class _FrameCount:
    """Shows how many frames have been tracked, by this process or by the workers."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._frames, self._start, self._shown = bar, 0, time.monotonic(), 0.0
        self._queue: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _FrameCount:
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def add(self, frames: int) -> None:
        self._frames += frames
        now = time.monotonic()
        if now - self._shown >= REFRESH:
            self._shown = now
            rate = self._frames / (now - self._start)
            self._bar.set_postfix_str(f"{self._frames} frames, {rate:.1f} a second")

    def listen(self, queue: Any) -> None:
        self._queue = queue
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while (frames := self._queue.get()) is not None:
            self.add(frames)
