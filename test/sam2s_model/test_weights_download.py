"""Downloads against a real server on the loopback that drops, lies and changes its mind."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from weights_server import Behaviour, WeightsServer

from sam2s_model.weights import (
    CheckpointFormatError,
    ChecksumError,
    DownloadError,
    Record,
    download,
)

BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with WeightsServer() as server:
        server.behaviour = Behaviour(body=BODY)
        yield server


def get(server: WeightsServer, target: Path, **options: object) -> Record:
    settings = {"quiet": True, "backoff": 0.001, "timeout": 5.0, "retries": 3} | options
    return download(f"{server.url}/w.pt", target, **settings)  # type: ignore[arg-type]


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_whole_with_its_record_and_nothing_else(
    server: WeightsServer, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "w.pt"
    record = get(server, target)
    assert target.read_bytes() == BODY
    assert record == Record(f"{server.url}/w.pt", len(BODY), DIGEST) == Record.read(target)
    assert leftovers(target.parent) == {"w.pt", "w.pt.json"}


def test_dropped_connections_are_taken_up_where_they_stopped(
    server: WeightsServer, tmp_path: Path
) -> None:
    server.behaviour.drop_after = [1_000_000, 500_000, 0, 7]
    get(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == BODY
    starts = [request.get("Range") for request in server.requests]
    assert starts == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-", "bytes=1500007-"]
    assert server.requests[1]["If-Range"] == '"v1"'


def test_a_later_call_goes_on_from_what_an_earlier_one_left(
    server: WeightsServer, tmp_path: Path
) -> None:
    server.behaviour.drop_after = [2_000_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"2,000,000 bytes are kept .* copy the file to"):
        get(server, tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()
    server.requests.clear()
    get(server, tmp_path / "w.pt")
    assert [request.get("Range") for request in server.requests] == ["bytes=2000000-"]
    assert (tmp_path / "w.pt").read_bytes() == BODY


def test_a_part_that_is_complete_already_is_only_checked(
    server: WeightsServer, tmp_path: Path
) -> None:
    (tmp_path / "w.pt.part").write_bytes(BODY)
    note = {"url": f"{server.url}/w.pt", "validator": '"v1"', "size": len(BODY)}
    (tmp_path / "w.pt.part.json").write_text(json.dumps(note))
    assert get(server, tmp_path / "w.pt").sha256 == DIGEST


@pytest.mark.parametrize("etag", ['"v2"', None])
def test_two_versions_of_a_file_are_never_mixed(
    server: WeightsServer, tmp_path: Path, etag: str | None
) -> None:
    server.behaviour.etag = '"v1"' if etag else None
    server.behaviour.drop_after = [1_000_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(server, tmp_path / "w.pt")
    # Without an ETag only the size tells that the file has changed.
    newer = BODY[::-1] if etag else BODY[::-1] + b"longer"
    server.behaviour = Behaviour(body=newer, etag=etag)
    get(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == newer


def test_a_part_from_another_address_is_not_continued(
    server: WeightsServer, tmp_path: Path
) -> None:
    (tmp_path / "w.pt.part").write_bytes(b"x" * 1000)
    note = {"url": "https://elsewhere.example/w.pt", "validator": None, "size": len(BODY)}
    (tmp_path / "w.pt.part.json").write_text(json.dumps(note))
    get(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None]


def test_a_server_without_ranges_or_length_still_works(
    server: WeightsServer, tmp_path: Path
) -> None:
    server.behaviour.ranges = False
    server.behaviour.drop_after = [1_000_000]
    get(server, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == BODY
    server.behaviour.chunked = True
    get(server, tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_bytes() == BODY


def test_busy_servers_are_asked_again_and_refusals_are_not(
    server: WeightsServer, tmp_path: Path
) -> None:
    server.behaviour.statuses = [503, 429]
    get(server, tmp_path / "w.pt")
    assert len(server.requests) == 3
    server.requests.clear()
    server.behaviour.statuses = [404]
    with pytest.raises(DownloadError, match=r"answers 404 .*put it at .*x\.pt"):
        get(server, tmp_path / "x.pt")
    assert len(server.requests) == 1
    assert leftovers(tmp_path) == {"w.pt", "w.pt.json"}


@pytest.mark.parametrize("claimed", [len(BODY) + 5000, 10])
def test_a_wrong_length_never_becomes_a_file(
    server: WeightsServer, tmp_path: Path, claimed: int
) -> None:
    server.behaviour.claimed_length = claimed
    if claimed > len(BODY):
        with pytest.raises(DownloadError, match=r"contradicts itself|could not be fetched"):
            get(server, tmp_path / "w.pt")
    else:
        with pytest.raises(ChecksumError, match="delivered 10 bytes"):
            get(server, tmp_path / "w.pt", expected_sha256=DIGEST)
    assert not (tmp_path / "w.pt").exists()
    assert not (tmp_path / "w.pt.json").exists()


def test_an_unexpected_size_is_refused_before_it_is_fetched(
    server: WeightsServer, tmp_path: Path
) -> None:
    server.behaviour = Behaviour(body=b"<html>log in</html>", content_type="text/html")
    with pytest.raises(DownloadError, match=r"offers 19 bytes \(text/html\) where 3,000,000"):
        get(server, tmp_path / "w.pt", expected_size=len(BODY))
    assert leftovers(tmp_path) == set()


def test_a_wrong_hash_leaves_nothing_and_names_both(server: WeightsServer, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match=f"SHA-256 {DIGEST}, expected {'0' * 64}"):
        get(server, tmp_path / "w.pt", expected_sha256="0" * 64)
    assert leftovers(tmp_path) == set()
    get(server, tmp_path / "w.pt", expected_sha256=DIGEST.upper())
    assert (tmp_path / "w.pt").exists()


def test_what_the_check_refuses_is_not_kept(server: WeightsServer, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        assert path.read_bytes() == BODY
        raise CheckpointFormatError("not a checkpoint")

    (tmp_path / "w.pt").write_bytes(b"the good old one")
    with pytest.raises(CheckpointFormatError):
        get(server, tmp_path / "w.pt", check=refuse)
    assert (tmp_path / "w.pt").read_bytes() == b"the good old one"
    assert leftovers(tmp_path) == {"w.pt"}


def test_two_processes_do_not_write_one_part(server: WeightsServer, tmp_path: Path) -> None:
    with (tmp_path / "w.pt.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match=r"another process is fetching w\.pt"):
            get(server, tmp_path / "w.pt")
    assert server.requests == []
    get(server, tmp_path / "w.pt")


def test_no_server_and_no_web_address(tmp_path: Path) -> None:
    with WeightsServer() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="3 attempts in a row brought nothing"):
        download(f"{url}/w.pt", tmp_path / "w.pt", retries=3, backoff=0.001, quiet=True)
    assert leftovers(tmp_path) == set()
    with pytest.raises(DownloadError, match="expected https"):
        download("file:///etc/passwd", tmp_path / "w.pt")


def test_a_cache_that_cannot_be_written_is_told(server: WeightsServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DownloadError, match=r"cannot be written .*set SAM2S_CACHE"):
        get(server, tmp_path / "file" / "w.pt")
    assert server.requests == []


def test_the_bar_shows_the_part_that_was_there(
    server: WeightsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behaviour.drop_after = [1_500_000]
    get(server, tmp_path / "w.pt", quiet=False)
    shown = capsys.readouterr().err
    assert "fetching w.pt:  50%" in shown
    assert "checking w.pt" in shown
