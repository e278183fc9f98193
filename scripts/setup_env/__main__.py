"""`python3 -m scripts.setup_env`, in the checkout's root: what `make setup` calls."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import sys
from collections.abc import Iterator

from scripts.setup_env.layout import ROS, SetupError
from scripts.setup_env.steps import Setup


@contextlib.contextmanager
def alone() -> Iterator[int]:
    """Hold the lock of this checkout's set-up; wait for another set-up, or what it left running."""
    ROS.mkdir(exist_ok=True)
    with (ROS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this checkout is at work; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def terminated(*_: object) -> None:
    """Treat SIGTERM as Ctrl-C, so that children are ended too."""
    raise KeyboardInterrupt


def main() -> int:
    """Set up the checkout."""
    parser = argparse.ArgumentParser(description="Make this checkout ready to run.")
    parser.parse_args()
    signal.signal(signal.SIGTERM, terminated)
    try:
        with alone() as lock:
            Setup(lock).run()
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nset-up: interrupted; `make setup` goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
