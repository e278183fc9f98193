"""The door: one bag into a folder of results, which appears when it is complete."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from sam2s_model.evaluation.settings import settings_key
from sam2s_model.tracker import StreamTracker
from sam2s_ros.replay.errors import OutputExistsError
from sam2s_ros.replay.passage import PROMPTS_FILE, Passage, Progress, bag_name, silent, video_file
from sam2s_ros.replay.results import RESULTS, load_results
from sam2s_ros.replay.settings import ReplaySettings

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
) -> dict[str, Any]:
    """Replay a bag into the folder `out`; a replay that is complete there already is kept.

    Nothing appears under `out` before everything is complete.
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
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        tracker = tracker or settings.build()
        results = Passage(bag, settings, tracker).run(part, command, progress)
        (part / MARK).write_text(_input_mark(bag, settings), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return results


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
