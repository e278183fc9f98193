"""Running commands: which step is at work and for how long, logs, reasons of failure."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.setup_env.layout import LOGS, NOT_SETUP, ROOT, SetupError

HEARTBEAT = 15.0  # seconds between lines of progress where there is no terminal


class Progress:
    """Says which step is at work and for how long; keeps each command's output in a log."""

    def __init__(self, steps: int, lock: int) -> None:
        self.steps = steps
        self.lock = lock  # inherited by children: a step that outlives us keeps the lock
        self.number = 0
        self.title = ""
        self.log = LOGS / "none.log"
        self.started = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def begin(self, name: str, title: str) -> None:
        """Start the next step's clock and log."""
        self.number += 1
        self.title = f"[{self.number}/{self.steps}] {title}"
        self.started = time.monotonic()
        self.log = LOGS / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        if not self.terminal:
            print(f"{self.title} ...", flush=True)

    def end(self, outcome: str = "done") -> None:
        """Close the step's line."""
        seconds = time.monotonic() - self.started
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}{self.title}: {outcome} in {seconds:.1f} s", flush=True)

    def _tick(self, beat: float) -> float:
        """Show the time gone and the log's last line; return when to show it next."""
        now = time.monotonic()
        if now < beat:
            return beat
        text = f"{self.title} {now - self.started:4.0f} s  {last_line(self.log)}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{text[:width]}", end="", flush=True)
            return now + 0.5
        print(text[:120], flush=True)
        return now + HEARTBEAT

    def call(self, command: list[str], env: Mapping[str, str]) -> None:
        """Run a command to its end, or raise with the reason that its output gives."""
        with self.log.open("a", encoding="utf-8") as log:
            print("+", *command, file=log, flush=True)
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self.lock,),
            )
        beat = time.monotonic() + (0.5 if self.terminal else HEARTBEAT)
        try:
            while child.poll() is None:
                beat = self._tick(beat)
                time.sleep(0.1)
        finally:
            if child.poll() is None:
                stop_group(child)
        if child.returncode != 0:
            reason = explain(self.log, child.returncode)
            raise SetupError(f"{self.title} failed: {reason}; all of it: {self.log}")


def stop_group(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started, first politely."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = (line.strip() for line in reversed(lines) if not line.startswith("WARNING"))
    return next(filter(None, said), "")


def explain(log: Path, code: int) -> str:
    """Find the sentence in a failed command's log that helps a person."""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}, {NOT_SETUP}"
    text = log.read_text(encoding="utf-8", errors="replace")
    offline = ("NameResolutionError", "ConnectTimeout", "NewConnectionError", "ProxyError")
    if any(sign in text for sign in offline):
        return "the package index cannot be reached, check the network or proxy and run it again"
    if "No space left on device" in text:
        return "the disk is full, free some space and run it again"
    errors = re.findall(r"^(?:ERROR|CMake Error|.*?: error): .*$", text, re.MULTILINE)
    return (errors[-1] if errors else last_line(log)).strip().rstrip(".")
