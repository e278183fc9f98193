"""The endoscope node as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from sam2s_model.errors import Sam2sError
from sam2s_ros.dds import with_profile

NAMESPACE = f"/sam2s_demo_{os.getpid()}"  # two demonstrations do not hear each other
END_SECONDS = 5.0  # for the node to end after SIGINT


class CameraError(Sam2sError):
    """The endoscope node ended when it should not have."""


class Camera:
    """Starts the endoscope node; a context manager that ends it, whatever happens.

    `parameters` are the node's own; its output goes to the file `log`.
    """

    def __init__(self, parameters: dict[str, object], log: Path) -> None:
        self.log = log
        arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={str(value).lower()}"]
        self._command = [sys.executable, "-m", "sam2s_ros.endoscope_node", *arguments]

    def __enter__(self) -> Camera:
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, env=with_profile(), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        """Whether the node's process has ended, wanted or not."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raise if the node has ended by itself, with the last thing that it said."""
        if self.ended:
            raise CameraError(
                f"the endoscope node ended early with code {self._process.returncode}: "
                f"{self.last_words()}"
            )

    def last_words(self) -> str:
        """Give the last line of the node's output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def end(self) -> int:
        """End the node and return its exit code."""
        if not self.ended:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
