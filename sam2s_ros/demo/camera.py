"""The endoscope node as a child process."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from sam2s_ros.dds import with_profile
from sam2s_ros.plan import ENDOSCOPE_CONFIG, NodePlan, Value
from sam2s_ros.share import shared_file
from sam2s_ros.supervisor import NodeProcess, end_all

NAMESPACE = f"/sam2s_demo_{os.getpid()}"  # two demonstrations do not hear each other


class Camera:
    """Starts the endoscope node; a context manager that ends it, whatever happens.

    `parameters` are the node's own; its output goes to the file `log`.
    """

    def __init__(self, parameters: dict[str, Value], log: Path) -> None:
        log.unlink(missing_ok=True)
        plan = NodePlan(
            executable="endoscope_node",
            name="endoscope",
            namespace=NAMESPACE,
            params_file=str(shared_file("config", ENDOSCOPE_CONFIG)),
            parameters=parameters,
        )
        self._process = NodeProcess(plan, with_profile(), log)

    def __enter__(self) -> Camera:
        self._process.start()
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
        return self._process.code is not None

    def last_words(self) -> str:
        """Give the last line of the node's output."""
        return self._process.last_words()

    def end(self) -> int:
        """End the node and return its exit code."""
        end_all([self._process])
        return self._process.code or 0
