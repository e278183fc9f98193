"""From clip records to scores: per target, video and data set, and the macro average.

A data set's J, F and J&F are means over its targets, as in DAVIS and SA-V; shares (presence,
re-identification, classes) pool the counts of all its targets; the macro average is the plain mean
over data sets of each figure.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sam2s_model.classes import INSTRUMENTS, UNKNOWN
from sam2s_model.evaluation.record import ClipRecord, TargetSeries
from sam2s_model.metrics import (
    JF,
    MIN_ABSENCE,
    Confusion,
    FrameRule,
    Presence,
    Ratio,
    Reentry,
    counted_frames,
    latency,
    presence,
    reentries,
)

# The figures of a summary, in the order of tables: key, heading, whether more is better.
FIGURES = (
    ("jf", "J&F", True),
    ("j", "J", True),
    ("f", "F", True),
    ("absence_recall", "absence recall", True),
    ("absence_precision", "absence precision", True),
    ("reidentified", "re-identified", True),
    ("recovery_frames", "frames to recover", False),
    ("wrong_instance", "wrong instance", False),
    ("top1", "class top-1", True),
)


@dataclass(frozen=True)
class TargetScore:
    """One target's scores over the frames that count."""

    dataset: str
    clip: str
    target: str
    class_name: str | None
    prompt_frame: int
    frames: int  # that count
    jf: JF
    presence: Presence
    returns: list[Reentry]
    wrong_instance: Ratio  # of the frames with a mask: those where it is another instance's
    confusion: Confusion
    fps: float | None = None

    @property
    def reidentified(self) -> Ratio:
        """Share of returns after which the target was found again."""
        return Ratio(sum(entry.recovered for entry in self.returns), len(self.returns))

    @property
    def recovery_frames(self) -> Ratio:
        """Frames from return to recovery, summed over the returns that were recovered."""
        taken = [entry.recovered_after for entry in self.returns]
        recovered = [frames for frames in taken if frames is not None]
        return Ratio(sum(recovered), len(recovered))

    @property
    def top1(self) -> Ratio:
        """Share of frames with the right class; instruments only, as the model names no other."""
        return self.confusion.top1(INSTRUMENTS)

    def ratio(self, figure: str) -> Ratio:
        """Give one of the `FIGURES` as counts, so that targets can be pooled."""
        simple = {"jf": self.jf.mean, "j": self.jf.j, "f": self.jf.f}
        if figure in simple:
            return Ratio(simple[figure], 1)
        pooled = {
            "absence_recall": self.presence.recall,
            "absence_precision": self.presence.precision,
            "reidentified": self.reidentified,
            "recovery_frames": self.recovery_frames,
            "wrong_instance": self.wrong_instance,
            "top1": self.top1,
        }
        return pooled[figure]


@dataclass
class Scores:
    """A run's scores, and what could not be scored."""

    targets: list[TargetScore] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)  # targets with no frame that counts
    step_seconds: dict[str, list[float]] = field(default_factory=dict)  # per data set


def score_records(
    records: Sequence[ClipRecord], rule: FrameRule = "tracked", min_absence: int = MIN_ABSENCE
) -> Scores:
    """Score all targets of the records."""
    scores = Scores()
    # A tracker that names classes owes one to a target that it never got hold of, too.
    names = any(label is not None for r in records for t in r.targets for label in t.label)
    for record in records:
        scores.step_seconds.setdefault(record.dataset, []).extend(record.step_seconds)
        for series in record.targets:
            score = score_target(record, series, rule, min_absence, names)
            if score is None:
                scores.unscored.append(
                    f"{record.dataset}/{record.clip}: target {series.name} has no frame that counts"
                )
            else:
                scores.targets.append(score)
    return scores


def score_target(
    record: ClipRecord, series: TargetSeries, rule: FrameRule, min_absence: int, names: bool
) -> TargetScore | None:
    """Score one target; None if none of its frames counts.

    With `names`, a frame on which the target has not been named yet counts as `unknown`.
    """
    visible = [area > 0 for area in series.area]
    drawn = [area > 0 for area in series.predicted_area]
    counted = counted_frames(rule, record.annotated, series.prompt_frame, visible, drawn)
    if not counted:
        return None
    start = record.annotated.index(series.prompt_frame)
    with_mask = [k for k in counted if drawn[k]]
    wrong = [k for k in with_mask if series.follows[k] not in (0, series.instance)]
    confusion = Confusion()
    if series.class_name is not None:
        unnamed = UNKNOWN if names else None
        labels = (series.label[k] or unnamed for k in counted if visible[k])
        confusion.update((series.class_name, label) for label in labels if label is not None)
    return TargetScore(
        dataset=record.dataset,
        clip=record.clip,
        target=series.name,
        class_name=series.class_name,
        prompt_frame=series.prompt_frame,
        frames=len(counted),
        jf=JF(
            statistics.fmean(series.j[k] for k in counted),
            statistics.fmean(series.f[k] for k in counted),
        ),
        presence=presence(
            [not visible[k] for k in counted], [series.said_absent[k] for k in counted]
        ),
        returns=reentries(record.annotated[start:], visible[start:], series.j[start:], min_absence),
        wrong_instance=Ratio(len(wrong), len(with_mask)),
        confusion=confusion,
        fps=record.fps,
    )


def pooled_figure(targets: Sequence[TargetScore], figure: str) -> float:
    """Pool one of the `FIGURES` over targets; nan where there is nothing to count."""
    return Ratio.pooled(target.ratio(figure) for target in targets).value


def macro_figure(groups: Sequence[Sequence[TargetScore]], figure: str) -> float:
    """Average a figure over data sets, leaving out those without anything to count."""
    values = [pooled_figure(group, figure) for group in groups]
    values = [value for value in values if not math.isnan(value)]
    return statistics.fmean(values) if values else math.nan


def summarise(targets: Sequence[TargetScore], step_seconds: Sequence[float] = ()) -> dict[str, Any]:
    """Sum up a group of targets as plain JSON values; what cannot be known is None."""
    summary: dict[str, Any] = {
        "targets": len(targets),
        "videos": len({(t.dataset, t.clip) for t in targets}),
        "frames": sum(t.frames for t in targets),
        **{key: known(pooled_figure(targets, key)) for key, _, _ in FIGURES},
        "absent_frames": sum(int(t.presence.recall.total) for t in targets),
        "returns": sum(len(t.returns) for t in targets),
        "recovery_seconds": known(_recovery_seconds(targets)),
    }
    if step_seconds:
        summary["latency_seconds"] = latency(step_seconds)._asdict()
    return summary


def summarise_all(scores: Scores) -> dict[str, Any]:
    """Sum up a run: every data set with its videos, and the macro average over data sets."""
    groups = by(scores.targets, "dataset")
    datasets: dict[str, Any] = {}
    for name, targets in groups.items():
        videos = {clip: summarise(group) for clip, group in by(targets, "clip").items()}
        datasets[name] = {
            **summarise(targets, scores.step_seconds.get(name, [])),
            "jf_over_videos": statistics.fmean(video["jf"] for video in videos.values()),
            "per_video": videos,
            "confusion": confusion_table(targets),
            "target_top1": known(_majority_top1(targets).value),
        }
    macro: dict[str, Any] = {
        "datasets": len(groups),
        **{key: known(macro_figure(list(groups.values()), key)) for key, _, _ in FIGURES},
    }
    every = [s for seconds in scores.step_seconds.values() for s in seconds]
    if every:
        macro["latency_seconds"] = latency(every)._asdict()
    return {"macro": macro, "datasets": datasets}


def by(targets: Sequence[TargetScore], attribute: str) -> dict[str, list[TargetScore]]:
    """Group targets by `dataset` or `clip`, in order of first appearance."""
    groups: dict[str, list[TargetScore]] = {}
    for target in targets:
        groups.setdefault(getattr(target, attribute), []).append(target)
    return groups


def confusion_table(targets: Sequence[TargetScore]) -> dict[str, Any]:
    """Frames per true class (rows) and reported class (columns)."""
    rows, columns, counts = _total_confusion(targets).table()
    return {"true": rows, "reported": columns, "frames": counts}


def known(value: float) -> float | None:
    """Turn nan into None, which JSON can hold."""
    return None if math.isnan(value) else value


def _total_confusion(targets: Sequence[TargetScore]) -> Confusion:
    total = Confusion()
    for target in targets:
        total.update(target.confusion)
    return total


def _majority_top1(targets: Sequence[TargetScore]) -> Ratio:
    """Share of instrument targets whose most frequent reported class is right."""
    right = judged = 0
    for target in targets:
        if target.class_name in INSTRUMENTS and target.confusion:
            frames = Counter({reported: n for (_, reported), n in target.confusion.items()})
            right += frames.most_common(1)[0][0] == target.class_name
            judged += 1
    return Ratio(right, judged)


def _recovery_seconds(targets: Sequence[TargetScore]) -> float:
    timed = [t for t in targets if t.fps]
    seconds = [Ratio(t.recovery_frames.hits / (t.fps or 1), t.recovery_frames.total) for t in timed]
    return Ratio.pooled(seconds).value
