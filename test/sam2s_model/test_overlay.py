"""Drawings change what they should, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2s_model.overlay import (
    Drawing,
    OverlayError,
    caption,
    colour_of,
    contact_sheet,
    draw_targets,
    outline,
    tag,
    tint,
)

GREY = np.full((60, 80, 3), 100, np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[20:40, 30:60] = True


def changed(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image != GREY).any(-1)


def test_a_tint_colours_the_mask_and_only_it() -> None:
    drawn = tint(GREY, MASK, (0, 200, 100), opacity=0.5)
    assert (changed(drawn) == MASK).all()
    assert drawn[30, 40].tolist() == [50, 150, 100]
    assert (GREY == 100).all(), "the picture itself is left alone"


def test_an_outline_follows_the_border() -> None:
    drawn = changed(outline(GREY, MASK, (255, 255, 0)))
    assert drawn[20, 30:60].all()
    assert drawn[20:40, 30].all()
    assert not drawn[25:35, 35:55].any()
    assert not drawn[:18].any()


def test_a_target_without_a_mask_shows_the_true_border() -> None:
    nothing = np.zeros_like(MASK)
    assert not changed(draw_targets(GREY, [Drawing(nothing, (0, 255, 0), "hook")])).any()
    drawn = draw_targets(GREY, [Drawing(nothing, (0, 255, 0), "hook", truth=MASK)])
    assert (drawn[20, 40] == 255).all()


@pytest.mark.parametrize("corner", [(0, 0), (79, 59), (-5, 200), (40, 30)])
def test_labels_stay_inside(corner: tuple[int, int]) -> None:
    drawn = tag(GREY, "hook", corner, (255, 255, 0))
    assert drawn.shape == GREY.shape
    assert (drawn == (255, 255, 0)).all(-1).sum() > 100
    assert (drawn.astype(int).sum(-1) < 250).any(), "dark letters on a bright patch"


def test_labels_lie_above_all_masks() -> None:
    first = Drawing(MASK, (255, 255, 0), "hook")
    covering = Drawing(np.ones_like(MASK), (0, 255, 255))
    drawn = draw_targets(GREY, [first, covering])
    assert (drawn == (255, 255, 0)).all(-1).sum() > 100, "the label's patch is not tinted"
    assert (
        not (draw_targets(GREY, [first._replace(label=""), covering]) == (255, 255, 0))
        .all(-1)
        .any()
    )


def test_a_caption_stands_above_the_picture() -> None:
    drawn = caption(GREY, "frame 7")
    assert drawn.shape[1:] == (80, 3)
    assert (drawn[-60:] == GREY).all()
    assert (drawn[:-60] > 200).any()


def test_colours_of_neighbours_differ() -> None:
    colours = [np.array(colour_of(k), int) for k in range(12)]
    assert len({tuple(c) for c in colours}) == 12
    steps = [abs(a - b).sum() for a, b in pairwise(colours)]
    assert min(steps) > 100
    # Blood and tissue are where red outweighs both others.
    assert not any(r > 1.3 * g and r > 1.3 * b for r, g, b in colours)


def test_contact_sheets() -> None:
    pictures = [np.full((10, 20, 3), 20 * k, np.uint8) for k in range(1, 6)]
    sheet = contact_sheet(pictures, columns=2, gap=3)
    assert sheet.shape == (3 * 13 + 3, 2 * 23 + 3, 3)
    assert sheet[3, 3, 0] == 20
    assert sheet[3 + 26, 3, 0] == 100
    assert contact_sheet(pictures).shape[1] == 3 * 24 + 4
    with pytest.raises(OverlayError, match="10×20, 20×10"):
        contact_sheet([pictures[0], np.zeros((20, 10, 3), np.uint8)])
    with pytest.raises(OverlayError, match="at least one"):
        contact_sheet([])


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(OverlayError, match="80×60"):
        tint(GREY, np.zeros((80, 60), bool), (0, 0, 0))
