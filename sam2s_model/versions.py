"""What results and exports rest on: libraries by version, the project's own code by digest."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions_of(libraries: Sequence[str]) -> dict[str, str]:
    """Name the versions of Python and of the libraries that are installed.

    `source` is a digest of this package's code: between releases only it tells one from another.
    """
    found = {"python": platform.python_version(), "source": _code_digest()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _code_digest() -> str:
    package = Path(__file__).resolve().parent
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return code.hexdigest()[:12]
