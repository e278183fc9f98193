"""Label maps against a decision pixel by pixel."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2s_ros.label_map import Layer, draw_labels
from sam2s_ros.patch import Patch


def layer(value: int, logits: np.ndarray) -> Layer:
    mask = logits > 0
    return Layer(value, Patch.of(mask), int(mask.sum()), lambda y, x: logits[y, x])


def draw(height: int, width: int, layers: list[Layer]) -> np.ndarray:
    return draw_labels(np.zeros((height, width), np.uint8), layers)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**16), height=st.integers(1, 9), width=st.integers(1, 9),
    values=st.lists(st.integers(1, 255), max_size=5, unique=True), shift=st.floats(-2, 2),
)  # fmt: skip
def test_each_pixel_goes_to_the_most_certain_target(seed, height, width, values, shift):
    random = np.random.default_rng(seed)
    # Whole numbers, so that there are pixels of which several targets are equally certain.
    logits = [random.normal(shift, 2, (height, width)).round().astype(np.float32) for _ in values]
    labels = draw(height, width, list(map(layer, values, logits)))
    assert labels.dtype == np.uint8
    for y in range(height):
        for x in range(width):
            claims = [(one[y, x], -n) for n, one in enumerate(logits) if one[y, x] > 0]
            assert labels[y, x] == (values[-max(claims)[1]] if claims else 0)


def test_masks_that_do_not_overlap_are_drawn_as_they_are():
    left = np.zeros((6, 8), np.float32)
    left[1:4, :4] = 1
    right = np.zeros((6, 8), np.float32)
    right[2:6, 4:] = 2
    layers = [layer(3, left), layer(255, right), layer(9, np.zeros_like(left))]
    assert np.array_equal(draw(6, 8, layers), 3 * (left > 0) + 255 * (right > 0))


@pytest.mark.serial
def test_cost_of_a_large_label_map(capsys):
    """The figures are printed; the bound only tells this from a loop over pixels."""
    y, x = np.mgrid[:1024, :1280].astype(np.float32)
    logits = [1 - ((x - 250 - 250 * n) / 200) ** 2 - ((y - 512) / 300) ** 2 for n in range(4)]
    costs = {}
    for name, chosen in (("2 targets", (0, 2)), ("4 overlapping targets", (0, 1, 2, 3))):
        layers = [layer(n + 1, logits[n]) for n in chosen]
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            draw(1024, 1280, layers)
            times.append(time.perf_counter() - begin)
        costs[name] = 1e3 * float(np.median(times))
    with capsys.disabled():
        print("\nlabel map 1280×1024, ms:", ", ".join(f"{k} {v:.2f}" for k, v in costs.items()))
    assert max(costs.values()) < 50
