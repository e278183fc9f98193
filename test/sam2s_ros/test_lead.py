"""When to prepare the next image, by durations that are given."""

from __future__ import annotations

import pytest

from sam2s_ros.lead import KEPT, PATIENCE, SLACK, Lead


def watched(tracked: float, prepared: float) -> Lead:
    lead = Lead()
    for _ in range(3):
        lead.note_tracked(tracked)
        lead.note_prepared(prepared)
    return lead


def test_nothing_is_waited_for_as_long_as_nothing_is_known() -> None:
    lead = Lead()
    assert lead.wait(0.0) == 0.0
    lead.note_tracked(0.1)
    assert lead.wait(0.0) == 0.0


def test_preparing_ends_when_tracking_does() -> None:
    lead = watched(tracked=0.100, prepared=0.020)
    begin = 0.100 - 0.020 * (1 + SLACK)
    assert lead.wait(0.0) == pytest.approx(begin)
    assert lead.wait(0.050) == pytest.approx(begin - 0.050)
    assert lead.wait(0.095) == pytest.approx(0.005)  # the other is about to end
    assert lead.wait(0.110) == 0.0


def test_a_slow_preparation_begins_at_once() -> None:
    assert watched(tracked=0.030, prepared=0.030).wait(0.0) == 0.0


def test_a_preparation_is_put_off_only_if_the_other_image_is_nearly_done() -> None:
    lead = watched(tracked=0.030, prepared=0.030)
    soon = PATIENCE * 0.030
    assert lead.wait(0.030 - 1.1 * soon) == 0.0
    assert lead.wait(0.030 - 0.9 * soon) == pytest.approx(0.9 * soon)
    assert lead.wait(0.040) == 0.0


def test_one_slow_image_changes_nothing_and_many_do() -> None:
    lead = watched(tracked=0.100, prepared=0.020)
    usual = lead.wait(0.0)
    lead.note_tracked(5.0)
    assert lead.wait(0.0) == pytest.approx(usual)
    for _ in range(KEPT):
        lead.note_tracked(0.200)
    assert lead.wait(0.0) == pytest.approx(usual + 0.100)
