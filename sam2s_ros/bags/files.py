"""Which files a bag consists of, and what its metadata says: read with patience.

A recorder that is killed leaves no metadata, or files that end in the middle. Whatever does not
fit is put into `problems`, and the storage files themselves decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from sam2s_ros.bags.errors import NoBagError

Kind = Literal["sqlite3", "mcap"]

METADATA = "metadata.yaml"
SUFFIXES: dict[str, Kind] = {".db3": "sqlite3", ".mcap": "mcap"}
PACKED = ".zstd"
NEWEST_METADATA = 9  # the latest version known when this was written (Kilted)


@dataclass
class StorageFile:
    """One file of a bag."""

    path: Path
    kind: Kind
    name: str = ""  # for messages, where the path is that of an unpacked copy

    def __str__(self) -> str:
        return self.name or str(self.path)

    @property
    def packed(self) -> bool:
        """Whether it is compressed as a whole."""
        return self.path.suffix == PACKED


@dataclass
class BagFiles:
    """The files of a bag in their order, and what is wrong with them."""

    files: list[StorageFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    message_count: int | None = None  # that the metadata promises


def is_bag(path: Path) -> bool:
    """Tell whether a path is a bag: a folder with metadata or storage files, or such a file."""
    if path.is_dir():
        return (path / METADATA).is_file() or any(_storage(p) for p in path.iterdir())
    return path.is_file() and _storage(path) is not None


def find_bags(root: Path) -> list[Path]:
    """List the bags below a folder; a bag's own folder is not searched further."""
    if is_bag(root):
        return [root]
    found: list[Path] = []
    for path in sorted(p for p in root.iterdir() if not p.name.startswith(".")):
        if path.is_dir():
            found += find_bags(path)
    return found


def bag_files(path: Path) -> BagFiles:
    """Find a bag's files, given its folder, its metadata.yaml or one storage file."""
    if path.name == METADATA and path.is_file():
        path = path.parent
    if not path.exists():
        raise NoBagError(f"{path}: there is no such bag")
    if path.is_file():
        alone = _storage(path)
        if alone is None:
            raise NoBagError(
                f"{path} is no bag: a bag is a folder with metadata.yaml, or a .db3 or .mcap file"
            )
        return BagFiles([alone])
    present = sorted(
        (file for file in map(_storage, path.iterdir()) if file), key=lambda f: _natural(f.path)
    )
    if not present:
        raise NoBagError(f"{path} is no bag: it holds no .db3 or .mcap file")
    if not (path / METADATA).is_file():
        return BagFiles(
            present,
            [
                f"{path} has no metadata.yaml, as after a recorder that was killed; its "
                f"{len(present)} storage file(s) were read by themselves"
            ],
        )
    return _with_metadata(path, present)


def _with_metadata(path: Path, present: list[StorageFile]) -> BagFiles:
    found = BagFiles(present)
    try:
        content = yaml.safe_load((path / METADATA).read_text(encoding="utf-8"))
        info = content["rosbag2_bagfile_information"]
        version = int(info["version"])
        names = [Path(str(name)).name for name in info["relative_file_paths"]]
        found.message_count = int(info["message_count"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        found.problems.append(
            f"{path / METADATA} is wrong ({type(error).__name__}: {what}); the storage files "
            "were read by themselves; `ros2 bag reindex` mends it"
        )
        return found
    if version > NEWEST_METADATA:
        found.problems.append(
            f"{path / METADATA} is of version {version}, newer than {NEWEST_METADATA}; it was "
            "read as if it were that"
        )
    by_name = {file.path.name: file for file in present}
    missing = [name for name in names if name not in by_name]
    if missing:
        found.problems.append(
            f"{path / METADATA} names {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not there; what is there was read"
        )
    extra = [name for name in by_name if name not in names]
    if extra:
        found.problems.append(
            f"{path / METADATA} does not name {', '.join(extra)}; "
            f"{'it was' if len(extra) == 1 else 'they were'} read too"
        )
    order = {name: k for k, name in enumerate(names)}
    found.files = sorted(present, key=lambda f: (order.get(f.path.name, len(order)),))
    return found


def _storage(path: Path) -> StorageFile | None:
    inner = path.with_suffix("") if path.suffix == PACKED else path
    kind = SUFFIXES.get(inner.suffix)
    return StorageFile(path, kind) if kind and not path.name.startswith(".") else None


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort part 10 after part 9."""
    return [
        (int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", path.name)
    ]
