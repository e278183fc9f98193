"""A copy of the set-up in a folder of its own, where nothing can be harmed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ["Makefile", "constraints.txt", "requirements-ros.txt", "setup.py", "setup.cfg"]
FILES += ["package.xml", "pyproject.toml"]


class Checkout:
    """A checkout without an environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        for name in FILES:
            shutil.copy(ROOT / name, root / name)
        for name in ("scripts", "sam2s_msgs", "config", "training"):
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, root / name, ignore=ignore)
        # A person's shell: nothing of the environment that runs these tests.
        self.env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the set-up with these changes to the environment."""
        return subprocess.run(
            [sys.executable, "-m", "scripts.setup_env"],
            cwd=self.root,
            env={**self.env, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def python(self, code: str, **variables: str) -> str:
        """Run code inside the copied set-up and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env={**self.env, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def programs(self, *left_out: str) -> str:
        """Return a PATH with the usual programs but for some."""
        folder = self.root / f"bin-without-{'-'.join(left_out)}"
        folder.mkdir(exist_ok=True)
        for name in ("cc", "c++", "make", "cmake", "git", "sh", "bash"):
            found = shutil.which(name)
            if name not in left_out and found:
                (folder / name).symlink_to(found)
        return str(folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout without an environment."""
    return Checkout(tmp_path)
