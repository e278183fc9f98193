"""Replays one bag: every frame in order, results into a folder that appears when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2s_model.evaluation.settings import host, settings_key, versions
from sam2s_model.overlay import WHITE, outline
from sam2s_model.prompt import Prompt
from sam2s_model.result import TrackState
from sam2s_model.tracker import StreamTracker
from sam2s_model.video import VideoWriter
from sam2s_ros import messages
from sam2s_ros.bags.reader import Bag, seconds
from sam2s_ros.replay.actions import SLACK_NS, Action, Schedule
from sam2s_ros.replay.errors import NoFramesError, NoPromptsError, OutputExistsError
from sam2s_ros.replay.frames import Frame, FrameReader, frame_rate, image_topic
from sam2s_ros.replay.moments import WorstMoments
from sam2s_ros.replay.prompts_file import read_prompts
from sam2s_ros.replay.recorded import prompts_topic, recorded_actions
from sam2s_ros.replay.recorder import Recorder, recording
from sam2s_ros.replay.report import report_html
from sam2s_ros.replay.results import (
    BAG,
    FORMAT,
    REPORT,
    RESULTS,
    WORST,
    load_results,
    summarise_tracks,
    timing,
    to_json,
)
from sam2s_ros.replay.scoring import Scorer, record_json, score_summary
from sam2s_ros.replay.series import PromptMark, Tracks
from sam2s_ros.replay.settings import ReplaySettings, file_digest
from sam2s_ros.replay.suspects import SuspectFinder
from sam2s_ros.replay.truth import FolderTruth, TopicTruth, Truth
from sam2s_ros.session import PromptRequest, Session, SessionEvent, SessionResult

MARK = "input.json"  # tells whether a finished replay is the one that is asked for
PROMPTS_FILE = "prompts.yaml"  # beside the bag's metadata
CLOCK_GAP_NS = 60_000_000_000  # between stamps and recording times, from which it is mentioned
DEFAULT_FPS = 25.0  # of an overlay where stamps tell nothing
TOTALS = ("inference", "total")  # timings that are sums of others
SUSPECTED = 2.0  # badness of a suspected switch: worse than any low IoU

Progress = Callable[[int, "int | None"], None]  # frames done, frames in the bag if known


def _silent(done: int, total: int | None) -> None:
    """Report nothing."""


@dataclass
class _Tally:
    """What adds up over the frames."""

    tracks: Tracks = field(default_factory=Tracks)
    stamps: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # height, width
    accepted: int = 0


class Replay:
    """One bag on its way through a session."""

    def __init__(self, bag: Path, settings: ReplaySettings, tracker: StreamTracker) -> None:
        self.path, self.settings, self._tracker = bag, settings, tracker
        self.name = bag_name(bag)
        self.session = Session(tracker, settings.node.session_settings())
        self._tally = _Tally()
        self._worst = WorstMoments(settings.outputs.worst)
        self._suspects = SuspectFinder(settings.suspects)
        self._asked: dict[PromptRequest, Action] = {}

    def run(self, folder: Path, command: str, progress: Progress = _silent) -> dict[str, Any]:
        """Replay into an existing, empty folder; returns what results.json says."""
        begun = time.monotonic()
        self._tracker.reset()
        inputs = self.settings.inputs
        with ExitStack() as stack:
            bag = stack.enter_context(Bag(self.path))
            topic = image_topic(bag, inputs.topic)
            actions, source = self._actions(bag)
            truth = self._truth(stack, bag)
            scorer = None if truth is None else Scorer(self.name, truth)
            fps = frame_rate(bag, topic.name)
            settings = {**self.settings.describe(), "prompts": source}
            settings["truth"] = None if truth is None else truth.describe()
            key = settings_key(settings)
            schedule, reader = (
                Schedule(actions),
                FrameReader(bag, topic, self.settings.node.jump_back),
            )
            recorder, written = stack.enter_context(
                recording(folder / BAG, self.settings.outputs, {"sam2s settings": key})
            )
            video = self._video(stack, fps)
            frames = stack.enter_context(_closing(iter(reader)))
            for frame in frames:
                self._step(frame, schedule, recorder, scorer, video)
                progress(frame.index + 1, topic.total)
            digest = written.digest
            self._finish(schedule, reader, scorer)
        return self._results(
            folder, command, key, settings, topic, reader, fps, scorer, recorder, digest, begun
        )

    # --- before the first frame -----------------------------------------------------------

    def _actions(self, bag: Bag) -> tuple[list[Action], dict[str, Any]]:
        """Find out what to track: a file that was named, one in the bag's folder, recorded ones."""
        inputs = self.settings.inputs
        file = None if inputs.prompts is None else Path(inputs.prompts)
        beside = (self.path if self.path.is_dir() else self.path.parent) / PROMPTS_FILE
        if file is None and inputs.prompts_topic is None and beside.is_file():
            file = beside
        if file is not None:
            source = {"file": str(file), "sha256": file_digest(file)}
            return read_prompts(file), source
        topic = prompts_topic(bag, inputs.prompts_topic)
        actions = recorded_actions(bag, topic)
        if not actions:
            raise NoPromptsError(
                f"{self.path}: {topic} holds no prompt: say what to track with --prompts FILE"
            )
        return actions, {"topic": topic}

    def _truth(self, stack: ExitStack, bag: Bag) -> Truth | None:
        """Open the ground truth; a reader of its own, as it is read beside the images."""
        inputs = self.settings.inputs
        if inputs.truth is None:
            return None
        classes = None if inputs.classes is None else Path(inputs.classes)
        if Path(inputs.truth).is_dir():
            return FolderTruth(Path(inputs.truth), classes)
        return TopicTruth(stack.enter_context(bag.again()), inputs.truth, classes)

    def _video(self, stack: ExitStack, fps: float | None) -> VideoWriter | None:
        path = self.settings.outputs.overlay
        if path is None:
            return None
        file = _video_file(path, self.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(VideoWriter(file, fps or DEFAULT_FPS))

    # --- frame by frame -------------------------------------------------------------------

    def _step(
        self, frame: Frame, schedule: Schedule, recorder: Recorder, scorer: Scorer | None,
        video: VideoWriter | None,
    ) -> None:  # fmt: skip
        tally = self._tally
        if not tally.stamps and abs(frame.stamp_ns - frame.recorded_ns) > CLOCK_GAP_NS:
            self._mention_clocks(frame)
        tally.stamps.append(frame.stamp_ns)
        tally.sizes[frame.image.shape[0], frame.image.shape[1]] += 1
        due = schedule.due(frame.index, frame.stamp_ns)
        removed = self._remove(due, scorer)
        prompts = {_request(a): a for a in due if a.prompt is not None}
        self._asked.update(prompts)
        result = self.session.process(frame.stamp_ns, frame.frame_id, frame.image, list(prompts))
        self._replies(frame, result)
        for accepted in result.accepted:
            action = self._asked[accepted.request]
            if scorer is not None and not accepted.correction:
                scorer.prompted(action.name, frame.index, accepted.prompt, action.truth)
        rated = self._rate(frame, scorer, result)
        tally.tracks.add(frame.index, result.objects, rated)
        for accepted in result.accepted:
            track = tally.tracks.living(accepted.name)
            if track is not None:
                mark = PromptMark(frame.index, _kind(accepted.prompt), accepted.correction)
                track.prompts.append(mark)
        recorder.write(result, frame.recorded_ns, removed)
        self._watch(frame, result, rated, scorer)
        self._count(frame, result, removed)
        if video is not None:
            video.write(messages.overlay_picture(frame.image, result))

    def _mention_clocks(self, frame: Frame) -> None:
        if self.settings.outputs.times == "stamp":
            self._tally.problems.append(
                f"the images' stamps ({seconds(frame.stamp_ns)}) are of another clock than the "
                f"bag's recording times ({seconds(frame.recorded_ns)}); to play the new bag beside "
                "this one, replay with --times recorded"
            )

    def _remove(self, due: list[Action], scorer: Scorer | None) -> list[SessionEvent]:
        events = []
        for action in due:
            if action.prompt is not None:
                continue
            known = [standing.name for standing in self.session.targets]
            if action.name not in known:
                self._tally.problems.append(
                    f"{action.place}: '{action.name}' cannot be removed at {action.when}: it is "
                    f"not tracked; targets: {', '.join(known) or 'none'}"
                )
                continue
            events.append(self.session.remove(action.name))
            if scorer is not None:
                scorer.removed(action.name)
        return events

    def _replies(self, frame: Frame, result: SessionResult) -> None:
        """Name the prompts that were refused, and those that came late."""
        for request, reply in result.replies:
            action = self._asked[request]
            if reply.success:
                self._tally.accepted += 1
            else:
                self._tally.problems.append(
                    f"{action.place}: the prompt for '{action.name}' was refused on frame "
                    f"{frame.index}: {reply.message}"
                )
            late = 0 if action.stamp_ns is None else frame.stamp_ns - action.stamp_ns
            if late > SLACK_NS:
                self._tally.problems.append(
                    f"{action.place}: no image has the stamp {seconds(action.stamp_ns or 0)} of "
                    f"the prompt for '{action.name}'; it was applied {late / 1e6:.0f} ms later"
                )

    def _rate(self, frame: Frame, scorer: Scorer | None, result: SessionResult) -> dict[str, float]:
        if scorer is None:
            return {}
        size = (result.height, result.width)
        return scorer.frame(frame.index, frame.stamp_ns, frame.recorded_ns, result.objects, size)

    def _watch(
        self, frame: Frame, result: SessionResult, rated: dict[str, float], scorer: Scorer | None
    ) -> None:
        """Look for suspected switches and for the worst moments."""
        prompted = frozenset(accepted.name for accepted in result.accepted)

        def offer(name: str, badness: float, why: str) -> None:
            def draw() -> NDArray[np.uint8]:
                picture = messages.overlay_picture(frame.image, result)
                truth = None if scorer is None else scorer.truth_of(name)
                return picture if truth is None else outline(picture, truth, WHITE)

            self._worst.offer(frame.index, frame.stamp_ns, name, badness, why, draw)

        for suspect in self._suspects.add(frame.index, result.objects, prompted):
            offer(suspect.target, SUSPECTED, suspect.text)
        for entry in result.objects:
            if entry.name in rated:
                j = rated[entry.name]
                offer(entry.name, 1 - j, f"J {100 * j:.0f} against the truth")
            elif TrackState(entry.state) is TrackState.TRACKING:
                estimate = float(entry.iou)
                offer(entry.name, 1 - estimate, f"estimated IoU {100 * estimate:.0f}")

    def _count(self, frame: Frame, result: SessionResult, removed: list[SessionEvent]) -> None:
        tally = self._tally
        for event in [*removed, *result.events]:
            tally.events.append(
                {
                    "frame": frame.index,
                    "stamp_ns": event.stamp_ns,
                    "kind": event.kind.name.lower(),
                    "target": event.target,
                    "message": event.message,
                }
            )
        if result.objects and not result.accepted:
            tally.step_ms.append(result.timings["inference"] + result.timings["masks"])
            for stage, value in result.timings.items():
                if stage not in TOTALS:
                    tally.stages_ms[stage] = tally.stages_ms.get(stage, 0.0) + value

    def _finish(self, schedule: Schedule, reader: FrameReader, scorer: Scorer | None) -> None:
        tally = self._tally
        if not tally.stamps:
            why = f": {reader.problems[0]}" if reader.problems else "; it is empty"
            raise NoFramesError(f"{self.path} holds no usable image{why}")
        schedule.finish(len(tally.stamps), tally.stamps[-1])
        if not tally.accepted:
            why = "; ".join([*schedule.problems, *tally.problems][:3])
            raise NoPromptsError(f"{self.path}: no prompt could be applied: {why}")
        tally.problems[:0] = reader.problems
        tally.problems += schedule.problems
        if scorer is not None:
            scorer.truth.finish()
            tally.problems += scorer.truth.problems

    # --- after the last frame -------------------------------------------------------------

    def _results(
        self, folder: Path, command: str, key: str, settings: dict[str, Any], topic: Any,
        reader: FrameReader, fps: float | None, scorer: Scorer | None, recorder: Recorder,
        digest: str, begun: float,
    ) -> dict[str, Any]:  # fmt: skip
        tally = self._tally
        records = [] if scorer is None else scorer.finish()
        if scorer is not None:
            tally.problems += scorer.problems
        scores = None
        if records:
            scores = score_summary(records, self.settings.rule, self.settings.min_absence)
            tally.problems += scores["unscored"]
        targets = [track.as_json() for track in tally.tracks.all]
        steps = len(tally.step_ms)
        first, last = tally.stamps[0], tally.stamps[-1]
        results = {
            "format": FORMAT,
            "name": self.name,
            "key": key,
            "command": command,
            "input": {
                "bag": str(self.path),
                "topic": topic.name,
                "type": topic.kind,
                "frames": len(tally.stamps),
                "left_out": reader.skipped,
                "backward_stamps": reader.backward,
                "height": tally.sizes.most_common(1)[0][0][0],
                "width": tally.sizes.most_common(1)[0][0][1],
                "first_stamp_ns": first,
                "last_stamp_ns": last,
                "seconds": max(0, last - first) / 1e9,
                "fps": fps,
                "images_sha256": reader.digest,
            },
            "settings": settings,
            "output": {
                "bag": BAG,
                "messages_sha256": digest,
                "topics": dict(recorder.counts),
            },
            "summary": summarise_tracks(targets),
            "scores": scores,
            "targets": targets,
            "events": tally.events,
            "suspects": [suspect.as_json() for suspect in self._suspects.found],
            "worst": self._pictures(folder, first),
            "problems": list(dict.fromkeys(tally.problems)),
            "records": [record_json(record) for record in records],
            "stamps_ns": tally.stamps,
            "versions": versions(),
            "timing": timing(
                tally.step_ms,
                {name: total / steps for name, total in tally.stages_ms.items()},
                time.monotonic() - begun,
                len(tally.stamps),
                host(1),
            ),
        }
        (folder / RESULTS).write_text(to_json(results), encoding="utf-8")
        (folder / REPORT).write_text(report_html(results, folder), encoding="utf-8")
        return results

    def _pictures(self, folder: Path, first_ns: int) -> list[dict[str, Any]]:
        made = []
        (folder / WORST).mkdir()
        for number, moment in enumerate(self._worst.worst, 1):
            file = f"{WORST}/{number:02d}.jpg"
            (folder / file).write_bytes(moment.jpeg)
            second = round((moment.stamp_ns - first_ns) / 1e9, 3)
            made.append({**moment.as_json(file), "second": second})
        return made


def replay_bag(
    bag: Path,
    out: Path,
    settings: ReplaySettings,
    tracker: StreamTracker | None = None,
    *,
    command: str = "",
    overwrite: bool = False,
    progress: Progress = _silent,
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
        results = Replay(bag, settings, tracker).run(part, command, progress)
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
    if video is not None and not _video_file(video, bag_name(bag)).is_file():
        return None
    return load_results(out)


def bag_name(bag: Path) -> str:
    """Name a bag by its folder or file."""
    path = bag.resolve()
    return path.parent.name if path.name == "metadata.yaml" else path.name


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


def _video_file(path: str, name: str) -> Path:
    return Path(path.replace("{bag}", name))


@contextmanager
def _closing(frames: Iterator[Frame]) -> Iterator[Iterator[Frame]]:
    """End the reader's thread also when the loop is left early."""
    try:
        yield frames
    finally:
        if isinstance(frames, Generator):
            frames.close()


def _request(action: Action) -> PromptRequest:
    assert action.prompt is not None
    return PromptRequest(name=action.name, prompt=action.prompt, class_name=action.class_name)


def _kind(prompt: Prompt) -> str:
    if prompt.mask is not None:
        return "mask"
    points = "points" if prompt.points is not None else ""
    box = "box" if prompt.box is not None else ""
    return " and ".join(filter(None, (points, box)))
