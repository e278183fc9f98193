"""When to wait for the next image, by a clock that is given."""

from __future__ import annotations

import pytest

from sam2s_ros.pace import ENOUGH, SLACK, Pace

INTERVAL = 0.04


def steady(count: int = ENOUGH + 1) -> tuple[Pace, float]:
    """A stream of images at one rate, and when the last one came."""
    pace = Pace()
    for n in range(count):
        pace.note(100 + n * INTERVAL)
    return pace, 100 + (count - 1) * INTERVAL


def test_nothing_is_expected_of_a_stream_that_has_just_begun() -> None:
    pace, last = steady(ENOUGH)
    assert pace.interval is None
    assert pace.worth_waiting(last, 0.01, last + 0.9 * INTERVAL) == 0.0
    assert steady()[0].interval == pytest.approx(INTERVAL)


def test_an_image_younger_than_an_interval_is_started_on() -> None:
    pace, last = steady()
    for later in (0.0, 0.01, 0.029):
        assert pace.worth_waiting(last, 0.01, last + later) == 0.0


def test_an_older_one_waits_for_what_is_on_its_way_but_not_for_long() -> None:
    pace, last = steady()
    latest = last + (1 + SLACK) * INTERVAL
    for later in (0.031, 0.04, 0.049):
        now = last + later
        assert now + pace.worth_waiting(last, 0.01, now) == pytest.approx(latest)
    assert pace.worth_waiting(last, 0.01, latest + 0.001) == 0.0  # it was lost, or the stream ends


@pytest.mark.parametrize("age", [None, -0.01, 1.1 * INTERVAL, 86400.0])
def test_clocks_that_are_not_shared_say_nothing(age) -> None:
    pace, last = steady()
    assert pace.worth_waiting(last, age, last + 0.9 * INTERVAL) == 0.0


def test_lost_images_and_those_that_come_together_do_not_change_the_pace() -> None:
    pace, last = steady(10)
    for gap in (3 * INTERVAL, INTERVAL, 0.0, INTERVAL):
        last += gap
        pace.note(last)
    assert pace.interval == pytest.approx(INTERVAL)
