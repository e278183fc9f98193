"""Two processes are one process with twice the batch."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tiny import CONTENT, log_of, state_of, tiny, train

from sam2s_training.schema import merged
from sam2s_training.start import fresh_model

CHANGES = {
    "phases": [
        {"name": "pictures", "steps": 1, "data": {"sampler": {"consecutive": 0}}},
        {"name": "clips", "steps": 2, "optim": {"accumulate": 2}, "unroll": {"checkpoint": True}},
    ]
}


def torchrun(tmp_path, *arguments):
    """Start two processes that meet through a file-less rendezvous on this machine."""
    recipe = tmp_path / "ddp.yaml"
    recipe.write_text(yaml.safe_dump(merged(CONTENT, CHANGES)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "sam2s_training", "train", str(recipe), "--device", "cpu", "--quiet"]
    command += ["--out", str(tmp_path / "two"), *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    try:
        output, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"two processes did not end:\n{output}")
    return output


def test_two_processes_give_the_losses_of_one_with_twice_the_batch(tmp_path):
    """In slices too: the second takes up where the first stopped."""
    for arguments in (["--until-step", "2"], []):
        process = torchrun(tmp_path, *arguments)
        output = finish(process)
        assert process.returncode == 0, output
    train(tiny(**CHANGES, optim={"batch": 2}), tmp_path / "one")
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [row["step"] for row in two] == ["1", "2", "3"]
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "focal", "dice", "iou", "presence", "semantic", "grad_norm"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3, abs=1e-6), name
    first, second = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert first.clips == second.clips == 2 + 2 * 4
    # Adam divides by the gradient's size: where that is but rounding, single weights differ.
    before = fresh_model(tiny()).state_dict()
    moved = sum(float((w - before[name]).abs().sum()) for name, w in first.model.items())
    apart = sum(float((w - second.model[name]).abs().sum()) for name, w in first.model.items())
    print(f"weights moved by {moved:.2f} in all and are {apart:.4f} apart")
    assert apart < 0.01 * moved


def test_a_signal_to_one_process_stops_both_after_the_same_step(tmp_path):
    process = torchrun(tmp_path, "--set", "phases=[{name: clips, steps: 100000}]")
    log = tmp_path / "two" / "log.csv"
    deadline = time.monotonic() + 120
    while not log.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no step was made"
        time.sleep(0.1)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGTERM)  # the second one; the first writes
    output = finish(process)
    assert process.returncode == 0, output
    assert state_of(tmp_path / "two").step >= 1
