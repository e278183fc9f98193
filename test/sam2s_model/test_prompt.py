"""Prompts: what is taken, what is refused and how, and that a refusal changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from builders import box_mask, click, clip, identical, lively_model
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sam2s_model import Prompt, Sam2sError, StreamTracker
from sam2s_model.prompt import (
    EmptyBoxError,
    EmptyMaskError,
    EmptyPromptError,
    NoPositivePointError,
    PromptError,
    PromptOutsideImageError,
    PromptShapeError,
    PromptValueError,
)
from sam2s_model.tracker import (
    EmptyFrameError,
    FrameError,
    TargetNameError,
    TooManyTargetsError,
    UnknownTargetError,
)

WIDTH, HEIGHT = 80, 60

# What is wrong with a prompt itself: the error's class, a word of the remedy, the prompt.
MALFORMED: dict[str, tuple[type[PromptError], str, dict[str, Any]]] = {
    "nothing": (EmptyPromptError, "give points", {}),
    "no points": (EmptyPromptError, "give points", {"points": [], "labels": []}),
    "points alone": (PromptShapeError, "one label per point", {"points": [[1, 2]]}),
    "labels alone": (PromptShapeError, "one label per point", {"labels": [1]}),
    "too few labels": (
        PromptShapeError,
        "need 2 labels",
        {"points": [[1, 2], [3, 4]], "labels": [1]},
    ),
    "labels in rows": (PromptShapeError, "in one list", {"points": [[1, 2]], "labels": [[1]]}),
    "a flat point": (PromptShapeError, "[[x, y], …]", {"points": [1, 2], "labels": [1]}),
    "three coordinates": (PromptShapeError, "[[x, y], …]", {"points": [[1, 2, 3]], "labels": [1]}),
    "words": (PromptShapeError, "must be numbers", {"points": [["a", "b"]], "labels": [1]}),
    "ragged points": (PromptShapeError, "numbers", {"points": [[1], [2, 3]], "labels": [1, 1]}),
    "label 2": (PromptValueError, "1 (on the target) or 0", {"points": [[1, 2]], "labels": [2]}),
    "label -1": (PromptValueError, "1 (on the target) or 0", {"points": [[1, 2]], "labels": [-1]}),
    "label NaN": (PromptValueError, "1 (on", {"points": [[1, 2]], "labels": [math.nan]}),
    "NaN": (PromptValueError, "finite", {"points": [[1, math.nan]], "labels": [1]}),
    "infinity": (PromptValueError, "finite", {"points": [[-math.inf, 1]], "labels": [1]}),
    "a box with NaN": (PromptValueError, "finite", {"box": [0, 0, math.nan, 5]}),
    "a box of three": (PromptShapeError, "[x0, y0, x1, y1]", {"box": [0, 0, 5]}),
    "a box of pairs": (PromptShapeError, "[x0, y0, x1, y1]", {"box": [[0, 0], [5, 5]]}),
    "a box of words": (PromptShapeError, "[x0, y0, x1, y1]", {"box": "left"}),
    "a box without width": (EmptyBoxError, "x1 must exceed x0", {"box": [5, 5, 5, 9]}),
    "a box upside down": (EmptyBoxError, "y1 exceed y0", {"box": [5, 9, 8, 5]}),
    "a mask of nothing": (EmptyMaskError, "at least one pixel", {"mask": np.zeros((60, 80), bool)}),
    "a mask without size": (
        EmptyMaskError,
        "at least one pixel",
        {"mask": np.zeros((0, 80), bool)},
    ),
    "a mask of floats": (PromptShapeError, "bool array HxW", {"mask": np.ones((60, 80))}),
    "a mask of colours": (PromptShapeError, "bool array HxW", {"mask": np.ones((60, 80, 3), bool)}),
    "a mask and a box": (
        PromptShapeError,
        "stands alone",
        {"mask": np.ones((60, 80), bool), "box": [1, 1, 5, 5]},
    ),
}

# What does not fit the frame of 80x60, or the target.
MISPLACED: dict[str, tuple[type[PromptError], str, dict[str, Any]]] = {
    "right of the image": (PromptOutsideImageError, "0..80", {"points": [[81, 5]], "labels": [1]}),
    "left of the image": (PromptOutsideImageError, "0..80", {"points": [[-1, 5]], "labels": [1]}),
    "below the image": (PromptOutsideImageError, "0..60", {"points": [[5, 60.5]], "labels": [1]}),
    "far away": (PromptOutsideImageError, "0..60", {"points": [[5, 1e30]], "labels": [1]}),
    "a negative point outside": (
        PromptOutsideImageError,
        "0..60",
        {"points": [[5, 5], [5, 99]], "labels": [1, 0]},
    ),
    "a box that sticks out": (PromptOutsideImageError, "0..80", {"box": [60, 5, 90, 50]}),
    "a box over the top": (PromptOutsideImageError, "0..60", {"box": [5, -3, 30, 50]}),
    "a mask of another size": (PromptOutsideImageError, "80x60", {"mask": np.ones((80, 60), bool)}),
}
NO_POSITIVE = {"points": [[5, 5], [9, 9]], "labels": [0, 0]}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_prompt_is_refused_with_its_remedy(case: str) -> None:
    kind, remedy, fields = MALFORMED[case]
    with pytest.raises(PromptError) as caught:
        Prompt(**fields)
    assert type(caught.value) is kind
    assert remedy in str(caught.value)


@pytest.mark.parametrize("case", MISPLACED)
def test_a_prompt_outside_the_image_is_refused_with_the_image_in_words(case: str) -> None:
    kind, remedy, fields = MISPLACED[case]
    for first in (True, False):
        with pytest.raises(PromptError) as caught:
            Prompt(**fields).check(WIDTH, HEIGHT, first=first)
        assert type(caught.value) is kind
        assert remedy in str(caught.value)


def test_a_target_cannot_begin_with_negative_points_but_be_corrected_by_them() -> None:
    prompt = Prompt(points=[[5, 5], [9, 9]], labels=[0, 0])
    with pytest.raises(NoPositivePointError, match="at least one point on it"):
        prompt.check(WIDTH, HEIGHT, first=True)
    prompt.check(WIDTH, HEIGHT, first=False)


def test_a_box_makes_up_for_missing_positive_points() -> None:
    Prompt(points=[[5, 5]], labels=[0], box=[1, 1, 9, 9]).check(WIDTH, HEIGHT, first=True)


def test_a_prompt_is_a_copy_of_what_it_was_made_from() -> None:
    points, mask = np.array([[3.0, 4.0]]), np.ones((HEIGHT, WIDTH), bool)
    by_point, by_mask = Prompt(points=points, labels=[1]), Prompt(mask=mask)
    points[:] = np.nan
    mask[:] = False
    by_point.check(WIDTH, HEIGHT, first=True)
    assert np.asarray(by_point.points).tolist() == [[3, 4]]
    assert np.asarray(by_mask.mask).all()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_masks_of_whole_numbers_are_masks(dtype: type) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype)
    mask[3, 4] = 1
    prompt = Prompt(mask=mask)
    prompt.check(WIDTH, HEIGHT, first=True)
    assert np.array_equal(np.asarray(prompt.mask), mask.astype(bool))


# --- any prompt -------------------------------------------------------------------------------


def inside(limit: int) -> st.SearchStrategy[float]:
    return st.floats(0, limit, width=32) | st.sampled_from([0.0, float(limit)])


@st.composite
def fitting(draw: st.DrawFn, width: int, height: int) -> Prompt:
    """Any prompt that a new target on a frame of this size may begin with."""
    kind = draw(st.sampled_from(["points", "box", "both", "mask"]))
    if kind == "mask":
        seed = draw(st.integers(0, 2**16))
        mask = np.random.default_rng(seed).random((height, width)) < draw(st.floats(0, 1))
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
        return Prompt(mask=mask)
    box, points, labels = None, None, None
    if kind != "points":
        x0, x1 = sorted((draw(inside(width)), draw(inside(width))))
        y0, y1 = sorted((draw(inside(height)), draw(inside(height))))
        assume(x0 < x1 and y0 < y1)
        box = [x0, y0, x1, y1]
    if kind != "box":
        points = draw(st.lists(st.tuples(inside(width), inside(height)), min_size=1, max_size=6))
        labels = draw(st.lists(st.integers(0, 1), min_size=len(points), max_size=len(points)))
        if box is None:
            labels[draw(st.integers(0, len(labels) - 1))] = 1
    return Prompt(points=points, labels=labels, box=box)


SIDES = st.integers(1, 90)


@given(width=SIDES, height=SIDES, data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_prompt_inside_any_frame_is_accepted(
    width: int, height: int, data: st.DataObject
) -> None:
    prompt = data.draw(fitting(width, height))
    prompt.check(width, height, first=True)
    prompt.check(width, height, first=False)
    if prompt.mask is None:
        xy, labels = prompt.tokens(width, height, 64)
        assert xy.shape == (len(labels), 2)
        assert np.isfinite(xy).all()
        assert ((xy >= 0) & (xy <= 64)).all()


@given(width=SIDES, height=SIDES, data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_point_or_box_outside_any_frame_is_refused(
    width: int, height: int, data: st.DataObject
) -> None:
    off = st.floats(0.01, 1e6)
    x, y = data.draw(inside(width)), data.draw(inside(height))
    side = data.draw(st.sampled_from(["left", "right", "above", "below"]))
    beyond = data.draw(off)
    if side in ("left", "right"):
        x = -beyond if side == "left" else width + beyond
    else:
        y = -beyond if side == "above" else height + beyond
    by_point = Prompt(points=[[x, y]], labels=[data.draw(st.integers(0, 1))])
    with pytest.raises(PromptOutsideImageError):
        by_point.check(width, height, first=False)
    corners = [min(x, 0.0), min(y, 0.0), max(x, 1.0), max(y, 1.0)]
    with pytest.raises(PromptOutsideImageError):
        Prompt(box=corners).check(width, height, first=True)


@given(width=SIDES, height=SIDES, other=st.tuples(SIDES, SIDES))
@settings(max_examples=50, deadline=None)
def test_any_mask_of_another_size_is_refused(
    width: int, height: int, other: tuple[int, int]
) -> None:
    assume(other != (height, width))
    with pytest.raises(PromptOutsideImageError):
        Prompt(mask=np.ones(other, bool)).check(width, height, first=True)


NUMBERS = st.floats(width=32) | st.integers(-5, 100) | st.just(math.nan)
ANYTHING = st.recursive(
    st.none() | NUMBERS | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=10,
)


@given(points=ANYTHING, labels=ANYTHING, box=ANYTHING, mask=ANYTHING)
@settings(max_examples=300, deadline=None)
def test_whatever_is_given_becomes_a_prompt_or_a_refusal(
    points: Any, labels: Any, box: Any, mask: Any
) -> None:
    """No other error leaves, and what is accepted holds finite numbers of the right shape."""
    try:
        prompt = Prompt(points=points, labels=labels, box=box, mask=mask)
        prompt.check(90, 90, first=True)
    except PromptError:
        return
    if prompt.mask is not None:
        assert np.asarray(prompt.mask).any()
        return
    xy, kinds = prompt.tokens(90, 90, 64)
    assert xy.shape == (len(kinds), 2)
    assert len(kinds) > 0
    assert ((xy >= 0) & (xy <= 64)).all()


def test_any_accepted_prompt_tracks() -> None:
    model = lively_model()

    @given(width=st.integers(1, 60), height=st.integers(1, 60), data=st.data())
    @settings(max_examples=25, deadline=None)
    def tracks(width: int, height: int, data: st.DataObject) -> None:
        tracker = StreamTracker(model)
        frame = np.full((height, width, 3), 90, np.uint8)
        tracker.add_target("first", data.draw(fitting(width, height), label="first"))
        tracker.step(frame)
        tracker.add_target("first", data.draw(fitting(width, height), label="correction"))
        tracker.add_target("second", data.draw(fitting(width, height), label="second"))
        result = tracker.step(frame)
        for target in result.values():
            assert target.logits.shape == (height, width)
            assert np.isfinite(target.logits).all()
            assert 0 <= target.iou <= 1

    tracks()


# --- the tracker after a refusal --------------------------------------------------------------


@pytest.fixture(scope="module")
def trackers() -> tuple[StreamTracker, StreamTracker]:
    """Two trackers of one model, so that one shows what the other would have done."""
    model = lively_model()
    return StreamTracker(model, max_targets=2), StreamTracker(model, max_targets=2)


def _misplaced(case: str) -> Callable[[StreamTracker], object]:
    fields = MISPLACED[case][2]
    return lambda tracker: tracker.add_target("known", Prompt(**fields))


FRAME = clip(1)[0]
REFUSED: dict[str, tuple[type[Sam2sError], str, Callable[[StreamTracker], object]]] = {
    **{
        f"prompt: {case}": (kind, remedy, _misplaced(case))
        for case, (kind, remedy, _) in MISPLACED.items()
    },
    **{
        f"prompt: {case}": (
            kind,
            remedy,
            lambda t, fields=fields: t.add_target("x", Prompt(**fields)),
        )
        for case, (kind, remedy, fields) in MALFORMED.items()
    },
    "no positive point": (
        NoPositivePointError,
        "label 1",
        lambda t: t.add_target("waiting", Prompt(**NO_POSITIVE)),
    ),
    "no prompt": (PromptError, "Prompt(…)", lambda t: t.add_target("x", [[1, 2]])),  # type: ignore[arg-type]
    "a name that is none": (TargetNameError, "non-empty", lambda t: t.add_target("", click())),
    "a name that is a number": (
        TargetNameError,
        "non-empty text",
        lambda t: t.add_target(3, click()),  # type: ignore[arg-type]
    ),
    "one target too many": (
        TooManyTargetsError,
        "max_targets",
        lambda t: t.add_target("third", click()),
    ),
    "an unknown target": (UnknownTargetError, "'known'", lambda t: t.remove_target("knwon")),
    "no frame": (FrameError, "uint8 HxWx3", lambda t: t.step(None)),  # type: ignore[arg-type]
    "a frame in a list": (FrameError, "numpy array", lambda t: t.step(FRAME.tolist())),  # type: ignore[arg-type]
    "a frame of floats": (FrameError, "astype(np.uint8)", lambda t: t.step(FRAME / 255.0)),
    "a grey frame": (FrameError, "HxWx3", lambda t: t.step(FRAME[..., 0])),
    "a frame with alpha": (FrameError, "HxWx3", lambda t: t.step(np.zeros((6, 8, 4), np.uint8))),
    "channels first": (FrameError, "HxWx3", lambda t: t.step(np.zeros((3, 60, 80), np.uint8))),
    "a stack of frames": (FrameError, "HxWx3", lambda t: t.step(FRAME[None])),
    "int16": (FrameError, "uint8", lambda t: t.step(FRAME.astype(np.int16))),
    "no rows": (EmptyFrameError, "no pixels", lambda t: t.step(FRAME[:0])),
    "no columns": (EmptyFrameError, "no pixels", lambda t: t.step(FRAME[:, :0])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_leaves_the_tracker_as_it_was(
    case: str, trackers: tuple[StreamTracker, StreamTracker]
) -> None:
    kind, remedy, misuse = REFUSED[case]
    frames = clip(4)
    for tracker in trackers:
        tracker.reset()
        tracker.add_target("known", click())
        tracker.step(frames[0])
        tracker.step(frames[1])
        tracker.add_target("waiting", box_mask(20, 20, 60, 50))
    tracker, undisturbed = trackers
    before = tracker.state_dict()
    with pytest.raises(Sam2sError) as caught:
        misuse(tracker)
    assert type(caught.value) is kind
    assert remedy in str(caught.value)
    assert identical(tracker.state_dict(), before)
    for frame in frames[2:]:
        ours, theirs = tracker.step(frame), undisturbed.step(frame)
        assert list(ours) == list(theirs)
        for name in ours:
            assert torch.equal(ours[name].low_res_logits, theirs[name].low_res_logits)
    assert identical(tracker.state_dict(), undisturbed.state_dict())


def test_a_name_is_unknown_while_there_are_no_targets() -> None:
    with pytest.raises(UnknownTargetError, match="add_target makes one"):
        StreamTracker(lively_model()).remove_target("a")


def test_a_waiting_prompt_that_does_not_fit_the_frame_is_dropped_and_the_rest_goes_on() -> None:
    """Before the first frame its size is unknown, so `step` is the first to see the misfit."""
    model = lively_model()
    tracker, undisturbed = StreamTracker(model), StreamTracker(model)
    frames = clip(3)
    tracker.add_target("far", click(300, 20))
    for each in (tracker, undisturbed):
        each.add_target("near", click(20, 20))
    with pytest.raises(PromptOutsideImageError, match="'far' was dropped"):
        tracker.step(frames[0])
    assert tracker.targets == ("near",)
    assert identical(tracker.state_dict(), undisturbed.state_dict())
    for frame in frames:
        ours, theirs = tracker.step(frame), undisturbed.step(frame)
        assert torch.equal(ours["near"].low_res_logits, theirs["near"].low_res_logits)


def test_a_correction_that_does_not_fit_a_smaller_frame_is_dropped_and_tracking_goes_on() -> None:
    model = lively_model()
    tracker, undisturbed = StreamTracker(model), StreamTracker(model)
    for each in (tracker, undisturbed):
        each.add_target("a", click())
        each.step(clip(1)[0])
    tracker.add_target("a", click(79, 59))
    small = clip(1, width=40, height=30)[0]
    with pytest.raises(PromptOutsideImageError, match="'a' was dropped"):
        tracker.step(small)
    assert identical(tracker.state_dict(), undisturbed.state_dict())
    ours, theirs = tracker.step(small), undisturbed.step(small)
    assert torch.equal(ours["a"].low_res_logits, theirs["a"].low_res_logits)
