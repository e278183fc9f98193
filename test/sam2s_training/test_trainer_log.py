"""What a training says: rows that fit together, a line that knows how long it takes."""

import io

import pytest

from sam2s_training.log import CsvLog, ProgressLine, RowSums, duration, read_rows
from sam2s_training.schema import differences
from sam2s_training.seeds import GLOBAL, PROMPTS, WEIGHTS, seed_of


def test_a_row_is_the_mean_of_its_steps_and_leaves_out_what_is_no_number():
    sums = RowSums()
    sums.add({"loss": 1.0, "class_right": float("nan")}, seconds=2.0, waited=0.5)
    again = RowSums(sums.state())  # as a checkpoint keeps it
    again.add({"loss": 3.0, "class_right": 0.25}, seconds=2.0, waited=0.5)
    assert again.take(clips_per_step=6) == {
        "loss": 2.0,
        "class_right": 0.25,
        "clips_per_s": 3.0,
        "waited": 0.25,
    }
    assert again.state() == {}


def test_a_column_that_turns_up_later_is_empty_before(tmp_path):
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    log.add({"step": 1, "phase": "a", "loss": 0.5, "grad_norm": 2.0})
    log.add({"step": 2, "phase": "b", "loss": 0.25, "semantic": 3.0, "grad_norm": 1.0})
    header, first, second = path.read_text().splitlines()
    assert header.startswith("step,phase,phase_step,minutes,lr,loss,semantic,grad_norm")
    assert first.startswith("1,a,,,,0.5,,2")
    assert second.startswith("2,b,,,,0.25,3,1")
    assert read_rows(path)[0] == {"step": "1", "phase": "a", "loss": "0.5", "grad_norm": "2"}
    assert [row["step"] for row in CsvLog(path, 1).rows] == ["1"]
    assert len(path.read_text().splitlines()) == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_says_how_far_and_how_long(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("sam2s_training.log.time.monotonic", lambda: clock[0])
    line = ProgressLine(1000, 10, Terminal())
    line.update(10, "clips", 490, 2.0, 4.0)
    clock[0] += 20.0
    line.update(20, "clips", 480, 1.0, 4.0)
    shown = line.stream.getvalue().rpartition("\r\033[K")[2]
    assert "clips: step 20 of 1,000 (2.0%)" in shown
    assert "loss 1.9" in shown  # nine parts of 2.0, one of 1.0
    assert "4 clips/s" in shown
    assert "phase done in 0:16:00" in shown  # 480 steps of 2 s
    assert "all in about 0:32:40" in shown
    line.say("stopped")
    assert line.stream.getvalue().endswith("\r\033[Kstopped\n")


def test_a_file_gets_a_line_now_and_then_and_silence_is_silent(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("sam2s_training.log.time.monotonic", lambda: clock[0])
    line, silent = (ProgressLine(1000, 0, io.StringIO(), silent=s) for s in (False, True))
    for step in range(1, 62):
        clock[0] += 1.0
        line.update(step, "clips", 1000 - step, 1.0, 1.0)
        silent.update(step, "clips", 1000 - step, 1.0, 1.0)
    assert len(line.stream.getvalue().splitlines()) == 2
    assert "\033" not in line.stream.getvalue()
    silent.say("stopped")
    silent.close()
    assert silent.stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (36_061, "10:01:01"), (-1, "0:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_seeds_depend_on_every_number_and_on_nothing_else():
    numbers = [
        (0, PROMPTS, 1),
        (1, PROMPTS, 1),
        (0, PROMPTS, 2),
        (0, WEIGHTS, 1),
        (0, GLOBAL, 1, 0),
    ]
    seeds = [seed_of(*each) for each in numbers]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [seed_of(*each) for each in numbers]


def test_differences_name_the_place():
    old = {"optim": {"lr": 1.0, "clip": 2.0}, "phases": [{"steps": 3}], "gone": 1}
    new = {"optim": {"lr": 1.5, "clip": 2.0}, "phases": [{"steps": 4}], "new": True}
    assert differences(old, new) == [
        "optim.lr: 1.0 -> 1.5",
        "phases[0].steps: 3 -> 4",
        "gone: 1 -> None",
        "new: None -> True",
    ]
