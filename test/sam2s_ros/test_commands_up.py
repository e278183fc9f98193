"""`sam2s up` with the real tracker node, and the other commands against it, all over DDS."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sam2s_ros.shipped import node_weights

pytestmark = pytest.mark.ros

DEMO = ("--demo", "--width", "192", "--height", "160", "--rate", "5", "--seed", "8")
START = 120.0  # seconds for a busy machine to import torch, load and warm up


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return node_weights(tmp_path_factory.mktemp("weights"))[0]


@pytest.fixture
def sam2s(ros_env):
    """Run a command as a process of its own: its exit code and all that it said."""

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "sam2s_model.cli", *arguments]
        done = subprocess.run(command, env=ros_env, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    return run


def node_process(up, executable: str) -> psutil.Process:
    """The child of `sam2s up` that runs a node."""
    for child in psutil.Process(up.pid).children():
        if f"sam2s_ros.{executable}" in child.cmdline():
            return child
    raise AssertionError(f"{executable} does not run:\n{up.output()}")


def wait_active(up, times: int) -> None:
    deadline = time.monotonic() + START
    while up.output().count("/up_test/tracker is active") < times:
        assert up.popen.poll() is None, up.output()
        assert time.monotonic() < deadline, up.output()
        time.sleep(0.2)


@pytest.mark.serial
def test_up_serves_every_client_survives_a_crash_and_ends_clean(
    ros_process, sam2s, model, tmp_path
):
    up = ros_process(
        "sam2s_model.cli", "up", *DEMO, "--model", model, "--namespace", "up_test",
        "--params-file", str(write_parameters(tmp_path)),
    )  # fmt: skip
    wait_active(up, 1)
    code, out = sam2s("set-target", "--name", "a", "--box", "20,20,90,90", "--timeout", "40")
    assert code == 0, out
    assert re.search(r"a: label 1, first mask \d+ px, IoU \d\.\d\d, on the image of", out)
    code, out = sam2s("set-target", "--name", "b", "--click", "500,500", "--timeout", "40")
    assert code == 2, out
    assert "/up_test/tracker refused: " in out
    code, out = sam2s("targets", "--json")
    assert code == 0, out
    (row,) = json.loads(out.splitlines()[-1])
    assert (row["label"], row["name"], row["prompts"]) == (1, "a", 1)
    code, out = sam2s("watch", "--once")
    assert code == 0, out
    assert re.search(r"/up_test/tracker: 192×160, \d+\.\d Hz, image to here p50 \d+ ms", out)
    assert re.search(r"\| +1 \| a +\|", out)
    code, out = sam2s("save-state", str(tmp_path / "op.state"))
    assert code == 0, out
    assert str(tmp_path / "op.state") in out
    assert sam2s("remove-target", "a")[0] == 0

    node_process(up, "tracker_node").send_signal(signal.SIGKILL)
    wait_active(up, 2)
    code, out = sam2s("load-state", str(tmp_path / "op.state"))
    assert code == 0, out
    assert "tracking a" in out
    assert sam2s("reset")[1].startswith("1 target removed")

    children = psutil.Process(up.pid).children()
    assert len(children) == 2
    up.signal(signal.SIGINT)
    assert up.wait(15.0) == 0
    assert not any(child.is_running() for child in children)
    assert "sam2s up: /up_test/tracker ended with code -9: starting it again" in up.output()
    assert "Traceback" not in up.output()


def write_parameters(folder):
    """Parameters that keep a small test fast; also that --params-file arrives."""
    path = folder / "tracker.yaml"
    path.write_text("/**:\n  ros__parameters:\n    memory: sam2\n")
    return path


def test_up_ends_when_the_node_cannot_be_configured(ros_process, tmp_path):
    up = ros_process("sam2s_model.cli", "up", "--model", str(tmp_path / "none.safetensors"))
    assert up.wait(START) == 1
    assert "sam2s up: /tracker refused to configure; its own log says why" in up.output()
    assert "none.safetensors" in up.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_up_is_ended_or_killed(ros_process, number):
    up = ros_process("sam2s_model.cli", "up", "--demo")
    deadline = time.monotonic() + 60.0
    while len(children := psutil.Process(up.pid).children()) < 2:
        assert time.monotonic() < deadline, up.output()
        time.sleep(0.1)
    up.signal(number)
    assert up.wait(20.0) == (0 if number == signal.SIGTERM else -number)
    gone, alive = psutil.wait_procs(children, timeout=20.0)
    assert len(gone) == 2, alive


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--autostart", "perhaps"), "`autostart` is 'perhaps'; it must be true or false"),
        (("--demo", "--rate", "fast"), "`rate` is 'fast'; it must be a number"),
        (("--image", ""), "`image` is empty"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(arguments, sentence, capsys):
    from sam2s_model import cli

    assert cli.main(["up", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_what_a_script_started_in_the_background(number):
    """Scripts start background processes with SIGINT ignored."""
    program = (
        "import signal, time; from sam2s_ros.supervisor import interrupt_on_signals\n"
        "interrupt_on_signals()\n"
        "try:\n    print('up', flush=True); time.sleep(20)\n"
        "except KeyboardInterrupt:\n    print('ended')"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a child inherits
    try:
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout.readline() == "up\n"
        child.send_signal(number)
        assert child.communicate(timeout=10)[0] == "ended\n"
    assert child.returncode == 0
