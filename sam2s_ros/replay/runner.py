"""The door: one bag into a folder of results, which appears when it is complete."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.settings import host, settings_key, versions
from sam2s_model.tracker import StreamTracker
from sam2s_ros.replay.errors import OutputExistsError
from sam2s_ros.replay.journal import EVERY, Journal, JournalError
from sam2s_ros.replay.passage import PROMPTS_FILE, Passage, Progress, bag_name, silent, video_file
from sam2s_ros.replay.results import RESULTS, load_results
from sam2s_ros.replay.settings import ReplaySettings

LOG = logging.getLogger(__name__)

NEW = "new"  # the folder of the results while they are being made
MARK = "input.json"  # tells whether a finished replay is the one that is asked for


def replay_bag(
    bag: Path,
    out: Path,
    settings: ReplaySettings,
    tracker: StreamTracker | None = None,
    *,
    command: str = "",
    overwrite: bool = False,
    progress: Progress = silent,
    save_every: int = EVERY,
) -> dict[str, Any]:
    """Replay a bag into the folder `out`; a replay that is complete there already is kept.

    Nothing appears under `out` before everything is complete. A replay that was interrupted is gone
    on with where its journal ends.
    """
    if not overwrite and (done := finished(bag, out, settings)) is not None:
        return done
    if out.exists() and not (overwrite and (out / RESULTS).is_file()):
        raise OutputExistsError(
            f"{out} exists and holds a replay of something else, or with other settings: give "
            "--overwrite, or another --out"
            if (out / RESULTS).is_file()
            else f"{out} exists and holds no replay: give another --out"
        )
    with _workshop(out) as part:
        mark = _input_mark(bag, settings)
        tracker = tracker or settings.build()
        sure = json.dumps([mark, versions(), host(1)["cpu"]])
        journal = Journal(part / "journal", sure, save_every)
        try:
            results = Passage(bag, settings, tracker, journal).run(_anew(part), command, progress)
        except JournalError as error:  # damaged, or of a machine that counts otherwise
            LOG.warning("%s: begun anew", error)
            journal.remove()
            results = Passage(bag, settings, tracker, journal).run(_anew(part), command, progress)
        (part / NEW / MARK).write_text(mark, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        (part / NEW).replace(out)
    return results


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """Make a hidden folder beside `out`, for one process at a time.

    After an interruption the journal stays in it, if there is one, and nothing else.
    """
    part = out.with_name(f".{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    with (part / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputExistsError(
                f"another process is replaying into {out} just now: wait for it, or give another "
                "--out"
            ) from error
        except OSError:
            pass  # a network file system without locks: there it is for the user to see to
        try:
            yield part
        except BaseException as error:
            # What was asked for cannot be done: to go on with it would be of no use.
            if isinstance(error, Sam2sError) or not (part / "journal").is_dir():
                shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(part / NEW, ignore_errors=True)
            raise
        shutil.rmtree(part, ignore_errors=True)


def _anew(part: Path) -> Path:
    """Make the folder of the results, without what a process that was killed has left in it."""
    folder = part / NEW
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def finished(bag: Path, out: Path, settings: ReplaySettings) -> dict[str, Any] | None:
    """Give the results of the same replay if they are complete in `out`."""
    mark = out / MARK
    if not (mark.is_file() and (out / RESULTS).is_file()):
        return None
    if mark.read_text(encoding="utf-8") != _input_mark(bag, settings):
        return None
    video = settings.outputs.overlay
    if video is not None and not video_file(video, bag_name(bag)).is_file():
        return None
    return load_results(out)


def _input_mark(bag: Path, settings: ReplaySettings) -> str:
    """Text that changes with the settings, the bag's files and the prompts beside it."""
    present = bag.iterdir() if bag.is_dir() else (bag, bag.parent / PROMPTS_FILE)
    files = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in sorted(present)
        if file.is_file()
    ]
    mark = {"bag": str(bag.resolve()), "files": files, "settings": settings.describe()}
    return json.dumps({"key": settings_key(mark)}) + "\n"
