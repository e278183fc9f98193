"""One bag on its way through a session: what is tracked, frame by frame, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2s_model.evaluation.settings import settings_key
from sam2s_model.overlay import WHITE, outline
from sam2s_model.prompt import Prompt
from sam2s_model.result import TrackState
from sam2s_model.tracker import StreamTracker
from sam2s_model.video import VideoWriter
from sam2s_ros import messages
from sam2s_ros.bags.errors import UnknownTopicError
from sam2s_ros.bags.reader import Bag, seconds
from sam2s_ros.replay.actions import SLACK_NS, Action, Schedule
from sam2s_ros.replay.errors import NoFramesError, NoPromptsError
from sam2s_ros.replay.frames import Frame, FrameReader, frame_rate, image_topic
from sam2s_ros.replay.journal import Journal
from sam2s_ros.replay.moments import WorstMoments
from sam2s_ros.replay.prompts_file import read_prompts
from sam2s_ros.replay.recorded import prompts_topic, recorded_actions
from sam2s_ros.replay.recorder import Recorder, recording
from sam2s_ros.replay.report import report_html
from sam2s_ros.replay.results import BAG, FORMAT, REPORT, RESULTS, to_json
from sam2s_ros.replay.scoring import Scorer, record_json, score_summary
from sam2s_ros.replay.series import PromptMark
from sam2s_ros.replay.settings import ReplaySettings, file_digest
from sam2s_ros.replay.steps import Steps
from sam2s_ros.replay.suspects import SuspectFinder
from sam2s_ros.replay.tally import Tally
from sam2s_ros.replay.truth import NO_TRUTH, FolderTruth, TopicTruth, Truth, truth_topic
from sam2s_ros.session import PromptRequest, Session, SessionResult

PROMPTS_FILE = "prompts.yaml"  # beside the bag's metadata
CLOCK_GAP_NS = 60_000_000_000  # between stamps and recording times, from which it is mentioned
DEFAULT_FPS = 25.0  # of an overlay where stamps tell nothing
SUSPECTED = 2.0  # badness of a suspected switch: worse than any low IoU

Progress = Callable[[int, "int | None"], None]  # frames done, frames in the bag if known


def silent(done: int, total: int | None) -> None:
    """Report no progress."""


class Passage:
    """One bag on its way through a session."""

    def __init__(
        self, bag: Path, settings: ReplaySettings, tracker: StreamTracker, journal: Journal
    ) -> None:
        self.path, self.settings, self._tracker = bag, settings, tracker
        self._steps = Steps(Session(tracker, settings.node.session_settings()), journal)
        self.name = bag_name(bag)
        self._tally = Tally()
        self._worst = WorstMoments(settings.outputs.worst)
        self._suspects = SuspectFinder(settings.suspects)
        self._asked: dict[PromptRequest, Action] = {}  # in the order of being given
        self._shown: tuple[int, int] | None = None  # width, height of the overlay

    def run(self, folder: Path, command: str, progress: Progress = silent) -> dict[str, Any]:
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
            key = settings_key(_decisive(settings))
            schedule = Schedule(actions)
            reader = FrameReader(bag, topic, self.settings.node.jump_back)
            recorder, written = stack.enter_context(
                recording(folder / BAG, self.settings.outputs, {"sam2s settings": key})
            )
            video = self._video(stack, fps)
            frames = stack.enter_context(_closing(iter(reader)))
            for frame in frames:
                self._step(frame, schedule, recorder, scorer, video)
                progress(frame.index + 1, topic.total)
            digest = written.digest
            self._finish(bag, schedule, reader, scorer)
        records = [] if scorer is None else scorer.finish()
        if scorer is not None:
            self._tally.problems += scorer.problems
        scores = None
        if records:
            scores = score_summary(records, self.settings.rule, self.settings.min_absence)
            self._tally.problems += scores["unscored"]
        results = {
            "format": FORMAT,
            "name": self.name,
            "key": key,
            "command": command,
            "input": {
                "bag": str(self.path),
                "topic": topic.name,
                "type": topic.kind,
                "left_out": reader.skipped,
                "backward_stamps": reader.backward,
                "fps": fps,
                "images_sha256": reader.digest,
                **self._tally.extent(),
            },
            "settings": settings,
            "output": {"bag": BAG, "messages_sha256": digest, "topics": dict(recorder.counts)},
            "scores": scores,
            "suspects": [suspect.as_json() for suspect in self._suspects.found],
            "worst": self._worst.write(folder, self._tally.stamps[0]),
            "records": [record_json(record) for record in records],
            **self._tally.as_json(time.monotonic() - begun + self._steps.seconds_before, fps),
        }
        results["timing"]["resumed_at"] = self._steps.resumed_at
        (folder / RESULTS).write_text(to_json(results), encoding="utf-8")
        (folder / REPORT).write_text(report_html(results, folder), encoding="utf-8")
        return results

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
        wanted = truth_topic(bag) if inputs.truth is None else inputs.truth
        if wanted is None or wanted == NO_TRUTH:
            return None
        classes = None if inputs.classes is None else Path(inputs.classes)
        if Path(wanted).is_dir():
            return FolderTruth(Path(wanted), classes)
        if wanted not in bag.topics:
            known = [(topic.name, topic.kind) for topic in bag.topics.values()]
            meant = f"{wanted} for the truth, and there is no such folder"
            raise UnknownTopicError(bag.path, meant, known)
        return TopicTruth(stack.enter_context(bag.again()), wanted, classes)

    def _video(self, stack: ExitStack, fps: float | None) -> VideoWriter | None:
        path = self.settings.outputs.overlay
        if path is None:
            return None
        file = video_file(path, self.name)
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
        due = schedule.due(frame.index, frame.stamp_ns)
        prompts = {_request(a): a for a in due if a.prompt is not None}
        self._asked.update(prompts)
        step = self._steps.take(frame, due, list(prompts))
        result, removed = step.result, step.removed
        tally.problems += step.problems
        if scorer is not None:
            for event in removed:
                scorer.removed(event.target)
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
        tally.count(frame.index, result, removed)
        if video is not None:
            self._show(video, messages.overlay_picture(frame.image, result))

    def _show(self, video: VideoWriter, picture: NDArray[np.uint8]) -> None:
        """Append to the overlay, which is of the first picture's size."""
        self._shown = self._shown or (picture.shape[1], picture.shape[0])
        if self._shown != (picture.shape[1], picture.shape[0]):
            picture = cast("NDArray[np.uint8]", cv2.resize(picture, self._shown))
        video.write(picture)

    def _mention_clocks(self, frame: Frame) -> None:
        if self.settings.outputs.times == "stamp":
            self._tally.problems.append(
                f"the images' stamps ({seconds(frame.stamp_ns)}) are of another clock than the "
                f"bag's recording times ({seconds(frame.recorded_ns)}); to play the new bag beside "
                "this one, replay with --times recorded"
            )

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

    def _finish(
        self, bag: Bag, schedule: Schedule, reader: FrameReader, scorer: Scorer | None
    ) -> None:
        tally = self._tally
        if not tally.stamps:
            why = "; ".join(dict.fromkeys([*bag.problems, *reader.problems])) or "it is empty"
            raise NoFramesError(f"{self.path} holds no usable image: {why}")
        schedule.finish(len(tally.stamps), tally.stamps[-1])
        if not tally.accepted:
            why = "; ".join([*schedule.problems, *tally.problems][:3])
            raise NoPromptsError(f"{self.path}: no prompt could be applied: {why}")
        # The reader has a copy of the bag, which knows nothing of its metadata.
        tally.problems[:0] = [*bag.problems, *reader.problems]
        tally.problems += schedule.problems
        if scorer is not None:
            scorer.truth.finish()
            tally.problems += scorer.truth.problems


def bag_name(bag: Path) -> str:
    """Name a bag by its folder or file."""
    path = bag.resolve()
    return path.parent.name if path.name == "metadata.yaml" else path.name


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what the new bag depends on: not where files are, and not how it is judged."""
    prompts = {k: v for k, v in settings["prompts"].items() if k != "file"}
    tracker = {k: v for k, v in settings["tracker"].items() if k not in ("model", "text_bank")}
    return {"tracker": tracker, "outputs": settings["outputs"], "prompts": prompts}


def video_file(path: str, name: str) -> Path:
    """Put a bag's name into the path of its overlay."""
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
