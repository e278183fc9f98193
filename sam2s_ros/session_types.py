"""What goes into a session and what comes out of it. ROS-free; stamps are nanoseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sam2s_model import Prompt
from sam2s_model.result import FrameResult, TrackState
from sam2s_ros.patch import Mask, Patch
from sam2s_ros.rle import Runs, encode_patch

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


class EventKind(Enum):
    """What can happen to a target or to the stream; names are those of TrackEvent's constants."""

    ADDED = "added"
    CORRECTED = "corrected"
    OCCLUDED = "occluded"
    LOST = "lost"
    REACQUIRED = "reacquired"
    REMOVED = "removed"
    STREAM_STALE = "stream_stale"
    STREAM_RESUMED = "stream_resumed"
    CLOCK_JUMPED = "clock_jumped"


@dataclass(frozen=True, eq=False)
class PromptRequest:
    """A wish to add or correct a target; two requests are never equal, so replies find theirs."""

    name: str
    prompt: Prompt
    class_name: str = ""  # what the operator calls it; empty: left to the model
    stamp_ns: int | None = None  # of the image that the operator saw; None: the next image


@dataclass(frozen=True)
class PromptReply:
    """What became of a request."""

    success: bool
    message: str = ""  # why it was refused and what would be right
    label_value: int = 0
    area: int = 0  # pixels of the first mask at source size
    iou: float = 0.0  # predicted, of the first mask
    stamp_ns: int = 0  # of the image that the prompt was applied to


@dataclass(frozen=True, eq=False)
class AcceptedPrompt:
    """A prompt that was applied, with the image it was applied to."""

    request: PromptRequest
    label_value: int
    correction: bool  # of a known target; otherwise the prompt made a new one
    stamp_ns: int
    frame_id: str

    @property
    def name(self) -> str:
        """The target's name."""
        return self.request.name

    @property
    def prompt(self) -> Prompt:
        """What marked it."""
        return self.request.prompt

    @property
    def class_name(self) -> str:
        """What the operator called it; empty if nothing."""
        return self.request.class_name


@dataclass(frozen=True)
class SessionEvent:
    """Something happened to a target or to the stream."""

    kind: EventKind
    target: str  # empty for events of the stream
    label_value: int  # 0 for events of the stream
    state: TrackState  # after the event
    seconds: float  # since the target was last seen, or the stream's gap
    message: str  # one sentence for a person
    stamp_ns: int
    frame_id: str


@dataclass(frozen=True, eq=False)
class SessionObject:
    """One target on one frame, at source size."""

    name: str
    label_value: int  # 1..255
    state: TrackState
    iou: float
    presence: float
    class_name: str
    class_confidence: float
    class_scores: Mapping[str, float]  # of every class, smoothed; empty without a text bank
    drawn: Patch | Mask  # its mask, or the part of it that is not empty

    @cached_property
    def patch(self) -> Patch:
        """The part of the mask that is not empty."""
        return self.drawn if isinstance(self.drawn, Patch) else Patch.of(self.drawn)

    @cached_property
    def mask(self) -> Mask:
        """The mask, bool (H, W)."""
        return self.drawn.whole() if isinstance(self.drawn, Patch) else self.drawn

    @cached_property
    def runs(self) -> Runs:
        """The mask's runs, from which its area, box and centroid follow."""
        return encode_patch(self.patch)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return self.runs.area

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The mask's bounds x0, y0, x1, y1, x1 and y1 exclusive; None if empty."""
        return self.runs.box

    @property
    def centroid(self) -> tuple[float, float] | None:
        """Mean x, y of the mask's pixel centres; None if empty."""
        return self.runs.centroid


@dataclass(frozen=True)
class TargetStanding:
    """How a target stands between frames."""

    name: str
    label_value: int
    state: TrackState
    iou: float
    class_name: str
    class_confidence: float
    added_ns: int  # stamp of the image that its first prompt was applied to
    last_seen_ns: int  # stamp of the last image that it was tracked in; 0: never
    prompts: int  # accepted so far
    memory_entries: int  # frames in its memory now


@dataclass(frozen=True, eq=False)
class SessionResult:
    """All that one frame has brought."""

    stamp_ns: int
    frame_id: str
    frame_index: int  # frames tracked since the last reset, this one not counted
    height: int
    width: int
    result: FrameResult  # the tracker's own
    objects: tuple[SessionObject, ...]  # ordered by label_value
    events: tuple[SessionEvent, ...] = ()
    accepted: tuple[AcceptedPrompt, ...] = ()
    replies: tuple[tuple[PromptRequest, PromptReply], ...] = ()
    # Milliseconds: `shrink`, `catch_up`, the tracker's stages, and `inference`, from the first to
    # the last of them; of an image prepared ahead, with its wait for the one before it.
    timings: Mapping[str, float] = field(default_factory=dict)
