"""Many bags: in several processes, one shard of them or all, going on where it stopped.

What was finished stays, a bag that was interrupted goes on from its journal. `failures.json` says
why bags failed; they are tried again the next time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.runner import Shard
from sam2s_model.whole_file import write_whole
from sam2s_ros.bags.files import find_bags
from sam2s_ros.replay.errors import ReplayError
from sam2s_ros.replay.runner import finished, replay_bag
from sam2s_ros.replay.settings import ReplaySettings

FAILURES = "failures.json"
DEAD = "its process died (killed, or out of memory?)"
REFRESH = 0.5  # seconds between two signs of life of the progress bar


@dataclass(frozen=True)
class Task:
    """One bag and the folder of its results."""

    bag: Path
    out: Path
    name: str


@dataclass(frozen=True)
class Outcome:
    """What became of a task: `failure` is None where it succeeded."""

    task: Task
    failure: str | None = None


def find_tasks(root: Path, out: Path) -> list[Task]:
    """List the bags below a folder, each with a folder of its own for the results."""
    bags = find_bags(root)
    if not bags:
        raise ReplayError(f"{root} holds no bag")
    tasks = []
    for bag in bags:
        name = bag.relative_to(root).as_posix() if bag != root else bag.name
        tasks.append(Task(bag, out / name, name))
    return tasks


def replay_all(
    tasks: Sequence[Task],
    settings: ReplaySettings,
    root: Path,
    *,
    jobs: int = 1,
    shard: Shard | None = None,
    overwrite: bool = False,
    command: str = "",
    show_progress: bool = True,
) -> list[Outcome]:
    """Replay the bags of a shard; a bag that fails is named, and the others finish."""
    if jobs < 1:
        raise ReplayError(f"{jobs} jobs: at least one is needed")
    mine = [tasks[k] for k in (shard or Shard()).take(range(len(tasks)))]  # type: ignore[arg-type,call-overload]
    if jobs > 1 and not settings.node.threads:
        # Cores are shared out, else every process would take them all.
        node = settings.node.changed({"threads": max(1, (os.cpu_count() or 1) // jobs)})
        settings = replace(settings, node=node)
    waiting = [t for t in mine if overwrite or finished(t.bag, t.out, settings) is None]
    job = _Job(settings, command)
    outcomes = []
    bar = tqdm(
        total=len(mine), initial=len(mine) - len(waiting), unit="bag", disable=not show_progress
    )
    with bar, _Frames(bar) as frames:
        for outcome in _run(waiting, job, jobs, frames):
            outcomes.append(outcome)
            if outcome.failure:
                bar.write(f"{outcome.task.name} failed: {outcome.failure}")
            bar.update()
    _write_failures(root, mine, outcomes)
    return outcomes


def failures(root: Path) -> dict[str, str]:
    """Read which bags failed below a folder of results, and why."""
    file = root / FAILURES
    if not file.is_file():
        return {}
    content: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write_failures(root: Path, mine: Sequence[Task], outcomes: Sequence[Outcome]) -> None:
    """Renew what is known of this shard's bags; other shards' failures stay."""
    known = failures(root)
    for task in mine:
        known.pop(task.name, None)
    known.update({o.task.name: o.failure for o in outcomes if o.failure})
    write_whole(root / FAILURES, json.dumps(dict(sorted(known.items())), indent=1))


@dataclass(frozen=True)
class _Job:
    """What a process needs to replay bags."""

    settings: ReplaySettings
    command: str


_worker: dict[str, Any] = {}


def _run(tasks: Sequence[Task], job: _Job, jobs: int, frames: _Frames) -> Iterator[Outcome]:
    if not tasks:
        return
    if jobs == 1:
        _worker.update(job=job, put=frames.add, tracker=None)
        for task in tasks:
            yield _work(task)
        return
    # Fork would copy a process that already runs threads of torch and OpenCV.
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    frames.listen(queue)

    def pool(processes: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(processes, context, _start, (job, queue))

    orphans: list[Task] = []
    with pool(min(jobs, len(tasks))) as everyone:
        futures: dict[Future[Outcome], Task] = {everyone.submit(_work, t): t for t in tasks}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    orphans.append(futures[future])
        except BaseException:
            everyone.shutdown(cancel_futures=True)
            raise
    # A process that dies takes the whole pool along. The others go on one at a time, so that the
    # bag that kills its process is known.
    for task in orphans:
        with pool(1) as alone:
            try:
                yield alone.submit(_work, task).result()
            except BrokenProcessPool:
                yield Outcome(task, DEAD)


def _start(job: _Job, queue: Any) -> None:
    _worker.update(job=job, put=queue.put, tracker=None)


def _work(task: Task) -> Outcome:
    """Replay a bag; whatever goes wrong with it goes into its outcome."""
    job: _Job = _worker["job"]
    counted = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal counted
        _worker["put"]((task.name, done - counted, done, total))
        counted = done

    overlay = job.settings.outputs.overlay
    named = None if overlay is None else overlay.replace("{bag}", task.name.replace("/", "_"))
    settings = replace(job.settings, outputs=replace(job.settings.outputs, overlay=named))
    try:
        if _worker["tracker"] is None:
            _worker["tracker"] = job.settings.build()
        # What is there is of other settings, or of a bag that has changed since.
        replay_bag(
            task.bag, task.out, settings, _worker["tracker"],
            command=job.command, overwrite=True, progress=progress,
        )  # fmt: skip
    except Sam2sError as error:
        return Outcome(task, str(error))
    except Exception as error:  # a fault here or in a decoder: the other bags are still worth it
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(
            task, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        )
    return Outcome(task)


class _Frames:
    """Shows which frame the bags are at, how fast, and how long the current ones will take."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._frames, self._start, self._shown = bar, 0, time.monotonic(), 0.0
        self._left: dict[str, int] = {}
        self._queue: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Frames:
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def add(self, step: tuple[str, int, int, int | None]) -> None:
        name, new, done, total = step
        self._frames += new
        self._left[name] = 0 if total is None else max(0, total - done)
        now = time.monotonic()
        if now - self._shown >= REFRESH:
            self._shown = now
            rate = self._frames / (now - self._start)
            left = sum(self._left.values()) / rate if rate else 0.0
            self._bar.set_postfix_str(
                f"{name} frame {done} of {total or '?'}, {rate:.1f} frames a second, "
                f"open bags done in {left:.0f} s"
            )

    def listen(self, queue: Any) -> None:
        self._queue = queue
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while (step := self._queue.get()) is not None:
            self.add(step)
