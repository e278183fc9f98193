"""Files that are whole or not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sam2s_model.whole_file import whole_file, write_whole


def write_half(path: Path, durable: bool) -> None:
    """Be interrupted while writing."""
    with whole_file(path, durable=durable) as part:
        part.write_text("half of the sec")
        raise KeyboardInterrupt


@pytest.mark.parametrize("durable", [False, True])
def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "erste Fassung: ä")
    with pytest.raises(KeyboardInterrupt):
        write_half(path, durable)
    assert path.read_text(encoding="utf-8") == "erste Fassung: ä"
    with whole_file(path, durable=durable) as part:
        part.write_text("second")
        assert path.read_text(encoding="utf-8") == "erste Fassung: ä"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_writers_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    texts = [f"{number}" * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(path, text), texts))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "file.txt"):
        pass
    assert not list(tmp_path.iterdir())
