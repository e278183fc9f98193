"""Runs planned nodes as processes without launch: respawned when they die, ended together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from sam2s_ros.plan import NodePlan

RESPAWN_DELAY = 1.0  # seconds: a process that dies at once must not eat the machine
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here, because between fork and exec nothing may be
END_SECONDS = 5.0  # for a node to end after SIGINT, then again after SIGTERM


class NodeProcess:
    """One node of a plan; `starts` counts how often it was started.

    Its output goes to the file `log`, or without one to where this process's goes.
    """

    def __init__(
        self, plan: NodePlan, environment: Mapping[str, str], log: Path | None = None
    ) -> None:
        self.plan, self.log = plan, log
        self.starts = 0
        self._environment = dict(environment)
        self._not_before = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._told = False  # that this process has ended

    @property
    def pid(self) -> int | None:
        """The process id; None before the first start."""
        return None if self._popen is None else self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code of a process that has ended; None while it runs."""
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        """Start the process."""
        command = [sys.executable, "-m", f"sam2s_ros.{self.plan.executable}"]
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self.log.open("ab")) if self.log else None
            # A session of its own: Ctrl-C reaches it once, from here, not from the terminal too.
            self._popen = subprocess.Popen(
                [*command, *self.plan.ros_arguments()], env=self._environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip
        self.starts += 1
        self._told = False

    def tend(self, say: Callable[[str], None]) -> bool:
        """Start the process again if it has died; tells whether it is to be counted on."""
        if self.code is None:
            return True
        if not self._told:
            self._told = True
            self._not_before = time.monotonic() + RESPAWN_DELAY
            then = ": starting it again" if self.plan.respawn else ""
            say(f"{self.plan.full_name} ended with code {self.code}{then}")
        if not self.plan.respawn:
            return False
        if time.monotonic() >= self._not_before:
            self.start()
        return True

    def last_words(self) -> str:
        """Give the last line of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log else ""
        lines = text.strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def signal(self, number: signal.Signals) -> None:
        """Signal the process and whatever it started."""
        if self._popen is not None and self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for the end; tells whether it has come."""
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        return self.code is not None or self._popen is None


def interrupt_on_signals() -> None:
    """Make SIGTERM a KeyboardInterrupt, as Ctrl-C is, so that what was started is ended.

    Ctrl-C is named too, because scripts start what runs in the background with SIGINT ignored;
    ROS 2's nodes heed it there, and so does what looks after them.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when the supervisor is gone, even if it was killed."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_all(processes: Sequence[NodeProcess]) -> None:
    """End all processes, gently first; none is left when this returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            process.signal(number)
        deadline = time.monotonic() + END_SECONDS
        ended = [process.wait(max(0.0, deadline - time.monotonic())) for process in processes]
        if all(ended):
            return
