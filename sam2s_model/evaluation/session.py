"""A run folder as a whole: what it was asked to do (run.json), and several merged into one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2s_model.errors import Sam2sError
from sam2s_model.evaluation.record import ClipRecord, read_json
from sam2s_model.evaluation.report import ReportOptions, write_report
from sam2s_model.evaluation.runner import RunFolder, Shard, run_clips
from sam2s_model.evaluation.settings import Settings
from sam2s_model.evaluation.sources import Clip, SourceError, find_clips
from sam2s_model.video import AnnotatedSequence
from sam2s_model.whole_file import write_whole

RUN_FILE = "run.json"


class MergeError(Sam2sError):
    """Run folders that do not belong together."""


@dataclass(frozen=True)
class Source:
    """What `find_clips` was given."""

    source: str
    masks: str | None = None
    classes: str | None = None
    split: str | None = None

    def clips(self) -> list[Clip]:
        """List the source's clips."""
        return find_clips(self.source, _path(self.masks), _path(self.classes), self.split)


@dataclass(frozen=True)
class RecordedClip:
    """A clip known from a record alone: its source is not on this machine."""

    dataset: str
    name: str

    def open(self) -> AnnotatedSequence:
        """Refuse, and say why."""
        raise SourceError(f"the source of {self.dataset}/{self.name} is not on this machine")

    def fingerprint(self) -> str:
        """Nothing to digest."""
        return ""


def collect_clips(sources: Sequence[Source]) -> list[Clip]:
    """List the clips of all sources; two of the same name cannot be told apart later."""
    clips = [clip for source in sources for clip in source.clips()]
    seen: set[tuple[str, str]] = set()
    for clip in clips:
        if (clip.dataset, clip.name) in seen:
            raise SourceError(
                f"two sources hold a clip {clip.dataset}/{clip.name}: rename one's folder, or "
                "evaluate them into separate run folders"
            )
        seen.add((clip.dataset, clip.name))
    return clips


def evaluate_sources(
    root: Path,
    sources: Sequence[Source],
    settings: Settings,
    options: ReportOptions | None = None,
    shard: Shard | None = None,
    jobs: int = 1,
    keep_masks: bool = True,
    command: str = "",
) -> dict[str, Any]:
    """Evaluate the sources' clips (or a shard of them) into a run folder; returns results.json."""
    options = options or ReportOptions()
    clips = collect_clips(sources)
    mine = (shard or Shard()).take(clips)
    folder = run_clips(mine, settings, root, jobs, keep_masks, options.show_progress)
    run = describe_run(settings.describe(), folder.key, sources, clips, command)
    write_run(folder, run)
    return write_report(folder, run, mine, options)


def write_run(folder: RunFolder, run: Mapping[str, Any]) -> None:
    """Write run.json."""
    write_whole(folder.root / RUN_FILE, json.dumps(run, indent=1))


def describe_run(
    settings: Mapping[str, Any],
    key: str,
    sources: Sequence[Source],
    clips: Sequence[Clip],
    command: str,
) -> dict[str, Any]:
    """Make run.json's content; `clips` are those of all shards."""
    return {
        "key": key,
        "settings": settings,
        "sources": [asdict(source) for source in sources],
        "clips": [[clip.dataset, clip.name] for clip in clips],
        "command": command,
    }


def merge_runs(
    folders: Sequence[Path], out: Path, command: str
) -> tuple[RunFolder, dict[str, Any], list[Clip]]:
    """Bring the records and masks of several run folders together in `out`.

    All must have been run with the same settings. Of a clip that several hold, a record that
    succeeded wins over one that failed.
    """
    runs = [read_json(folder / RUN_FILE) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if run["key"] != runs[0]["key"]:
            raise MergeError(
                f"{folders[0]} and {folder} were run with different settings "
                f"({_unlike(runs[0]['settings'], run['settings'])}); merge only shards of one run"
            )
    target = RunFolder(out, runs[0]["key"])
    names = list(dict.fromkeys((d, c) for run in runs for d, c in run["clips"]))
    for source in (RunFolder(folder, target.key) for folder in folders):
        if source.root.resolve() != out.resolve():
            for dataset, name in names:
                _take(source, target, RecordedClip(dataset, name))
    sources = {json.dumps(s, sort_keys=True): Source(**s) for run in runs for s in run["sources"]}
    found: dict[tuple[str, str], Clip] = {}
    for origin in sources.values():
        try:
            found.update({(clip.dataset, clip.name): clip for clip in origin.clips()})
        except Sam2sError:
            continue  # the source is elsewhere; its clips' records are here
    clips = [found.get(pair, RecordedClip(*pair)) for pair in names]
    run = describe_run(runs[0]["settings"], target.key, list(sources.values()), clips, command)
    run["merged"] = [
        {"folder": str(f), "command": r["command"]} for f, r in zip(folders, runs, strict=True)
    ]
    write_run(target, run)
    return target, run, clips


def _take(source: RunFolder, target: RunFolder, clip: Clip) -> None:
    """Copy a clip's record and masks, unless the target has a better record."""
    theirs, ours = source.record(clip), target.record(clip)
    if not theirs.exists():
        return
    record = ClipRecord.load(theirs)
    if ours.exists() and (record.failure or not ClipRecord.load(ours).failure):
        return
    masks = source.masks(clip.dataset, clip.name)
    if masks.is_dir():
        shutil.copytree(masks, target.masks(clip.dataset, clip.name), dirs_exist_ok=True)
    record.save(ours)


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    found = [
        f"{name}: {a[part].get(name)} and {b[part].get(name)}"
        for part in ("tracker", "protocol")
        for name in dict.fromkeys([*a[part], *b[part]])
        if a[part].get(name) != b[part].get(name)
    ]
    return ", ".join(found) or "unknown ones"


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
