"""Threads of one process give way to each other soon."""

import statistics
import subprocess
import sys

import pytest

# A thread that wakes up every few milliseconds beside one that never stops.
PROGRAM = """
import statistics, sys, threading, time
from sam2s_ros.turns import take_short_turns
if sys.argv[1] == "short":
    take_short_turns()
ended = False
def work():
    while not ended:
        pass
worker = threading.Thread(target=work)
worker.start()
late = []
for _ in range(60):
    begin = time.perf_counter()
    time.sleep(0.002)
    late.append(time.perf_counter() - begin - 0.002)
ended = True
worker.join()
print(statistics.median(late))
"""


def lateness(turns: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, turns], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.serial
def test_a_thread_that_wakes_up_gets_its_turn_soon():
    usual = statistics.median(lateness("usual") for _ in range(3))
    short = statistics.median(lateness("short") for _ in range(3))
    print(f"median wait {1e3 * usual:.2f} ms as Python has it, {1e3 * short:.2f} ms in short turns")
    assert short < 0.5 * usual
