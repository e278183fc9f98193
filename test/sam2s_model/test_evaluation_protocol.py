"""Where clicks and boxes go: by definition, and as the reference package places them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from sam2s_model.evaluation.protocol import (
    Click,
    ProtocolError,
    clicks_prompt,
    first_prompt,
    mask_box,
    next_click,
)

Mask = NDArray[np.bool_]


def blobs(rng: np.random.Generator, shape: tuple[int, int] = (60, 80)) -> Mask:
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(rng.integers(0, 4)):
        cy, cx = rng.uniform(-0.1, 1.1, 2) * shape
        ry, rx = rng.uniform(1, 20, 2)
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    return mask


def depth(region: Mask) -> NDArray[np.float64]:
    """Distance to the nearest pixel outside the region, the image's surroundings included."""
    padded: NDArray[np.float64] = distance_transform_edt(np.pad(region, 1))
    return padded[1:-1, 1:-1]


def test_the_first_click_is_at_the_centre() -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:21, 20:31] = True
    assert next_click(mask) == Click(25, 15, True)


def test_the_border_of_the_image_is_a_border() -> None:
    mask = np.zeros((40, 50), bool)
    mask[0:11, 0:30] = True
    click = next_click(mask)
    assert click is not None
    assert click.y == 5


@pytest.mark.parametrize("seed", range(60))
def test_clicks_go_to_the_deepest_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, drawn = blobs(rng), blobs(rng)
    missing, extra = depth(truth & ~drawn), depth(drawn & ~truth)
    click = next_click(truth, drawn)
    if not (truth ^ drawn).any():
        assert click is None
        return
    assert click is not None
    there = missing if click.positive else extra
    assert there[click.y, click.x] == pytest.approx(max(missing.max(), extra.max()), abs=1e-4)


def test_an_exact_mask_needs_no_click() -> None:
    mask = np.zeros((9, 9), bool)
    assert next_click(mask, mask) is None
    assert next_click(~mask, ~mask) is None


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(60))
def test_clicks_agree_with_the_reference_package(seed: int) -> None:
    import torch
    from sam2.modeling import sam2_utils

    rng = np.random.default_rng(seed)
    truth, drawn = blobs(rng), blobs(rng)
    if not (truth ^ drawn).any():  # the reference clicks on the corner then, we do not click
        assert next_click(truth, drawn) is None
        return
    points, labels = sam2_utils.sample_one_point_from_error_center(
        torch.from_numpy(truth)[None, None], torch.from_numpy(drawn)[None, None]
    )
    click = next_click(truth, drawn)
    assert click is not None
    assert [click.x, click.y] == points[0, 0].tolist()
    assert click.positive == bool(labels[0, 0])


def test_boxes_reach_to_the_far_edge() -> None:
    mask = np.zeros((9, 9), bool)
    mask[3, 5] = True
    assert mask_box(mask) == [5, 3, 6, 4]
    prompt, clicks = first_prompt("box", mask)
    assert np.asarray(prompt.box).tolist() == [5, 3, 6, 4]
    assert clicks == []


def test_mask_prompts_are_the_mask() -> None:
    mask = np.zeros((9, 9), bool)
    mask[3, 5] = True
    prompt, _ = first_prompt("mask", mask)
    assert (np.asarray(prompt.mask) == mask).all()


def test_clicks_become_one_prompt() -> None:
    prompt = clicks_prompt([Click(3, 4, True), Click(7, 8, False)])
    assert np.asarray(prompt.points).tolist() == [[3, 4], [7, 8]]
    assert np.asarray(prompt.labels).tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["click1", "click3", "box", "mask"])
def test_what_is_not_visible_cannot_be_prompted(kind: str) -> None:
    with pytest.raises(ProtocolError, match="not visible"):
        first_prompt(kind, np.zeros((9, 9), bool))  # type: ignore[arg-type]
