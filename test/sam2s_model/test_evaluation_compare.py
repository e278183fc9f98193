"""Two runs side by side: the differences, and intervals against a bootstrap written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sam2s_model.evaluation.compare import CompareError, compare_runs, comparison_markdown
from sam2s_model.evaluation.scores import FIGURES

Scores = dict[tuple[str, str, str], float]


def results(scores: Scores, returns: dict[tuple[str, str, str], Any] | None = None) -> Any:
    """A results.json with these J&F values, and found returns per target."""
    returns = returns or {}
    targets = []
    for key, value in scores.items():
        figures = {name: [0.0, 0.0] for name, _, _ in FIGURES}
        figures.update(jf=[value, 1], j=[value, 1], f=[value, 1])
        figures["reidentified"] = list(returns.get(key, (0, 0)))
        targets.append(dict(zip(("dataset", "clip", "target"), key, strict=True), figures=figures))
    return {
        "frames_counted": "tracked",
        "settings": {"tracker": {"memory": "sam2"}, "protocol": {"prompt": "click1"}},
        "scores": {"macro": {}},
        "targets": targets,
    }


def random_pair(seed: int, clips: int = 30, datasets: int = 1) -> tuple[Scores, Scores]:
    rng = np.random.default_rng(seed)
    keys = [
        (f"set{d}", f"clip{c}", str(t))
        for d in range(datasets)
        for c in range(clips)
        for t in range(int(rng.integers(1, 4)))
    ]
    a = {key: float(rng.uniform(0.4, 0.9)) for key in keys}
    b = {key: a[key] + float(rng.normal(0.03, 0.05)) for key in keys}
    return a, b


def test_a_run_does_not_differ_from_itself() -> None:
    a, _ = random_pair(0)
    comparison = compare_runs(results(a), results(a))
    for d in comparison.macro[:3]:
        assert (d.difference, d.low, d.high) == (0, 0, 0)
        assert not d.clear
    assert comparison.settings == []


def test_a_constant_gain_has_no_width() -> None:
    a, _ = random_pair(0)
    b = {key: value + 0.05 for key, value in a.items()}
    jf = compare_runs(results(a), results(b)).macro[0]
    assert (jf.difference, jf.low, jf.high) == pytest.approx((0.05, 0.05, 0.05))
    assert jf.clear


@pytest.mark.parametrize("unit", ["video", "target"])
def test_intervals_agree_with_a_bootstrap_written_out(unit: Any) -> None:
    a, b = random_pair(1)
    jf = compare_runs(results(a), results(b), unit=unit).macro[0]
    assert jf.difference == pytest.approx(np.mean(list(b.values())) - np.mean(list(a.values())))
    groups: dict[Any, list[float]] = {}
    for key in a:
        groups.setdefault(key[:2] if unit == "video" else key, []).append(b[key] - a[key])
    units = list(groups.values())
    rng = np.random.default_rng(99)
    means = []
    for _ in range(4000):
        drawn = [units[k] for k in rng.integers(0, len(units), len(units))]
        means.append(np.mean([value for values in drawn for value in values]))
    low, high = np.percentile(means, (2.5, 97.5))
    # Two bootstraps differ by chance, here by a few percent of the interval's width.
    assert (jf.low, jf.high) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # The true gain of every pair is 0.03: of 60 intervals 57 should hold it.
    covered = 0
    for seed in range(60):
        a, b = random_pair(seed + 100, clips=40)
        jf = compare_runs(results(a), results(b), resamples=1000).macro[0]
        covered += jf.low <= 0.03 <= jf.high
    assert 51 <= covered <= 60


def test_the_seed_is_fixed() -> None:
    a, b = random_pair(2)
    first, second = (compare_runs(results(a), results(b)).macro[0] for _ in range(2))
    assert first == second


def test_the_macro_average_weighs_data_sets_alike() -> None:
    a = {("x", "1", "1"): 0.5, **{("y", str(k), "1"): 0.5 for k in range(9)}}
    b = {**a, ("x", "1", "1"): 0.7}
    comparison = compare_runs(results(a), results(b))
    assert comparison.macro[0].difference == pytest.approx(0.1)
    assert comparison.datasets["x"][0].difference == pytest.approx(0.2)
    assert comparison.datasets["y"][0].difference == 0


def test_shares_are_pooled_by_counts() -> None:
    keys = [("x", str(k), "1") for k in range(4)]
    scores = dict.fromkeys(keys, 0.5)
    a = results(scores, {keys[0]: (1, 1), keys[1]: (0, 9)})
    b = results(scores, {keys[0]: (1, 1), keys[1]: (9, 9)})
    found = next(d for d in compare_runs(a, b).macro if d.figure == "reidentified")
    assert (found.a, found.b, found.units) == (pytest.approx(0.1), 1.0, 2)


def test_one_video_has_no_interval() -> None:
    a = {("x", "1", "1"): 0.5, ("x", "1", "2"): 0.6}
    b = {("x", "1", "1"): 0.6, ("x", "1", "2"): 0.6}
    assert math.isnan(compare_runs(results(a), results(b)).macro[0].low)
    assert not math.isnan(compare_runs(results(a), results(b), unit="target").macro[0].low)


def test_only_common_targets_count() -> None:
    a, b = random_pair(3, clips=5)
    extra = ("set0", "more", "1")
    comparison = compare_runs(results({**a, extra: 1.0}), results(b))
    assert comparison.pairs == len(b)
    assert comparison.unpaired == ["set0/more/1"]
    with pytest.raises(CompareError, match="in common"):
        compare_runs(results({extra: 1.0}), results(b))


def test_different_frame_rules_are_not_compared() -> None:
    a, b = random_pair(3, clips=5)
    other = {**results(b), "frames_counted": "davis"}
    with pytest.raises(CompareError, match="--frames"):
        compare_runs(results(a), other)


def test_the_tables_say_who_is_better() -> None:
    a, _ = random_pair(0, datasets=2)
    worse = {key: value - 0.05 for key, value in a.items()}
    other = results(worse)
    other["settings"] = {"tracker": {"memory": "efp"}, "protocol": {"prompt": "click1"}}
    text = comparison_markdown(compare_runs(results(a), other), "one", "two")
    assert "| memory" in text
    assert "efp" in text
    assert "B worse" in text
    assert "-5.0" in text
    assert "## set1" in text
