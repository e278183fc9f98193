"""A resumable download: Range requests, a .part file, a record of what came, an atomic rename."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from sam2s_model.weights.errors import ChecksumError, DownloadError

CHUNK = 1 << 20  # bytes read at once
TIMEOUT = 30.0  # s without a byte before a connection counts as dropped
RETRIES = 5  # attempts in a row that bring no new byte before giving up
BACKOFF = 1.0  # s before the second attempt, doubled by each later one
RESTARTS = 3  # times a download begins again because the server contradicts what it said before
_RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Record:
    """What is known of a fetched file; stands beside it as <file>.json."""

    url: str
    size: int  # bytes
    sha256: str  # hex

    @staticmethod
    def path_for(file: Path) -> Path:
        """Give the place of a file's record."""
        return file.with_name(file.name + ".json")

    @staticmethod
    def read(file: Path) -> Record | None:
        """Read the record of a file; None where there is none."""
        path = Record.path_for(file)
        try:
            fields = json.loads(path.read_text())
            return Record(str(fields["url"]), int(fields["size"]), str(fields["sha256"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ChecksumError(
                f"the record {path} cannot be read ({error}); if you trust {file.name}, delete "
                "the record and run `sam2s weights verify` to make a new one"
            ) from error

    def write(self, file: Path) -> None:
        """Write the record beside the file, atomically."""
        path = Record.path_for(file)
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)


def sha256_of(path: Path, *, quiet: bool = True) -> str:
    """Hash a file; with a progress bar unless quiet."""
    digest = hashlib.sha256()
    with path.open("rb") as file, _bar(f"checking {path.name}", path.stat().st_size, 0, quiet) as b:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            b.update(len(chunk))
    return digest.hexdigest()


def check_digest(sha256: str | None) -> None:
    """Raise if a demanded hash is not one."""
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ChecksumError(f"'{sha256}' is no SHA-256; expected 64 hexadecimal digits")


def partial_path(target: Path) -> Path:
    """Give the place where a download of `target` gathers its bytes."""
    return target.with_name(target.name + ".part")


def download(
    url: str,
    target: Path,
    *,
    expected_size: int | None = None,
    expected_sha256: str | None = None,
    check: Callable[[Path], object] | None = None,
    retries: int = RETRIES,
    backoff: float = BACKOFF,
    timeout: float = TIMEOUT,
    quiet: bool = False,
) -> Record:
    """Fetch `url` into `target`, resuming what an earlier attempt left, and record its hash.

    `target` appears only once its bytes are complete, `check` has accepted them (it raises if
    not; it is given the finished .part file) and size and hash are as expected, where given.
    A dropped connection is taken up again where it stopped; `retries` attempts in a row without
    a new byte give up and keep the .part file for the next call.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is no web address; expected https://… or http://…")
    part = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = part.open("ab")
    except OSError as error:
        raise DownloadError(
            f"{part} cannot be written ({error.strerror}); set SAM2S_CACHE to a folder you may "
            "write to"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(
                f"another process is fetching {target.name} into {part}; wait until it is done"
            ) from error
        transfer = _Transfer(url, target, expected_size, timeout, quiet)
        try:
            transfer.run(retries, backoff)
            record = _accept(transfer, expected_sha256, check, quiet)
        finally:
            # An attempt that brought nothing leaves nothing behind.
            if part.exists() and part.stat().st_size == 0:
                transfer.discard()
    return record


def _accept(
    transfer: _Transfer,
    expected_sha256: str | None,
    check: Callable[[Path], object] | None,
    quiet: bool,
) -> Record:
    part, target = transfer.part, transfer.target
    digest = sha256_of(part, quiet=quiet)
    size = part.stat().st_size
    try:
        if expected_sha256 is not None and digest != expected_sha256.lower():
            if check is not None:
                check(part)  # "an HTML page" explains more than a wrong hash does
            raise ChecksumError(
                f"{transfer.url} delivered {size:,} bytes with SHA-256 {digest}, expected "
                f"{expected_sha256}; nothing was kept. Fetch again, and if it stays so ask "
                "whoever publishes the file; to accept these bytes knowingly give "
                f"--sha256 {digest}"
            )
        if check is not None:
            check(part)
    except Exception:
        transfer.discard()
        raise
    record = Record(transfer.url, size, digest)
    # The record goes first: should the power fail in between, it demands the right bytes.
    record.write(target)
    part.replace(target)
    transfer.note.unlink(missing_ok=True)
    return record


class _Transfer:
    """The bytes of one URL on their way into the .part file, over as many connections as needed."""

    def __init__(
        self, url: str, target: Path, expected_size: int | None, timeout: float, quiet: bool
    ) -> None:
        self.url = url
        self.target = target
        self.part = partial_path(target)
        # Says which version of the file the part belongs to: two versions must never be mixed.
        self.note = self.part.with_name(self.part.name + ".json")
        self.expected_size = expected_size
        self.timeout = timeout
        self.quiet = quiet
        self.total: int | None = None  # bytes of the whole file, once a server has told
        self.restarts = 0

    def discard(self) -> None:
        """Forget the bytes that came so far."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def run(self, retries: int, backoff: float) -> None:
        """Connect until the file is complete."""
        failures = 0
        while True:
            before = self.part.stat().st_size
            try:
                if self._connect(before):
                    return
                reason = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code == 416 and self._is_all(before, _total_of(error.headers)):
                    return
                reason = self._after_status(error)
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise DownloadError(self._no_space()) from error
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            now = self.part.stat().st_size
            failures = 0 if now > before else failures + 1
            if failures >= retries:
                raise DownloadError(
                    f"{self.url} could not be fetched: {retries} attempts in a row brought nothing "
                    f"({reason}); {now:,} bytes are kept and the same command goes on from there. "
                    f"Without a network, copy the file to {self.target}"
                )
            if failures:
                time.sleep(backoff * 2 ** (failures - 1))

    def _connect(self, start: int) -> bool:
        """Read one connection to its end; True once the file is complete."""
        known = self._known_version() if start else None
        if start and known is None:
            # Left by another address, or by nobody knows whom: nothing to go on from.
            self._restart()
            start = 0
        headers = {"User-Agent": "sam2s", "Accept-Encoding": "identity"}
        if start and known:
            headers["Range"] = f"bytes={start}-"
            if known["validator"]:
                headers["If-Range"] = known["validator"]
        request = urllib.request.Request(self.url, headers=headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            self.total = _total_size(response)
            self._check_total(response.headers.get("Content-Type"))
            if start and known:
                partial = response.status == 206 and _range_start(response.headers) == start
                if not partial or self.total != known["size"]:
                    # No Range support, or another version of the file: from the beginning.
                    self._restart()
                    start = 0
                    if response.status == 206:
                        return False
            self._remember(response.headers)
            self._check_space(start)
            self._read(response, start)
        size = self.part.stat().st_size
        if self.total is not None and size > self.total:
            self._restart()
            return False
        return size == self.total if self.total is not None else True

    def _is_all(self, here: int, offered: int | None) -> bool:
        """Whether the bytes here are the whole file, as the server says now and said before."""
        known = self._known_version()
        return here == offered and known is not None and known["size"] in (None, here)

    def _after_status(self, error: urllib.error.HTTPError) -> str:
        """Give the reason to try again after an HTTP error, or raise if trying is no use."""
        if error.code == 416:
            self._restart()
            return "the server's file is shorter than what came before"
        if error.code in _RETRIED_STATUS:
            return f"{error.code} {error.reason}"
        raise DownloadError(
            f"{self.url} answers {error.code} {error.reason}; check the address (SAM2S_WEIGHTS_URL "
            f"sets another one), or fetch the file elsewhere and put it at {self.target}"
        ) from error

    def _read(self, response: IO[bytes], start: int) -> None:
        with (
            self.part.open("r+b") as file,
            _bar(f"fetching {self.target.name}", self.total, start, self.quiet) as bar,
        ):
            file.seek(start)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))

    def _restart(self) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS:
            self.discard()
            raise DownloadError(
                f"{self.url} contradicts itself about the file's size or version; nothing was "
                f"kept. Try again later, or fetch the file elsewhere and put it at {self.target}"
            )
        # Truncated, not deleted: the lock hangs on this very file.
        with self.part.open("r+b") as file:
            file.truncate(0)
        self.note.unlink(missing_ok=True)

    def _known_version(self) -> dict[str, Any] | None:
        """Give validator and size of the version the part belongs to, if it is this URL's."""
        try:
            note = json.loads(self.note.read_text())
            same = note["url"] == self.url
            return {"validator": note["validator"], "size": note["size"]} if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, headers: Message) -> None:
        etag = headers.get("ETag") or ""
        # If-Range allows strong validators only.
        validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
        note = {"url": self.url, "validator": validator, "size": self.total}
        self.note.write_text(json.dumps(note))

    def _check_total(self, content_type: str | None) -> None:
        if None in (self.total, self.expected_size) or self.total == self.expected_size:
            return
        raise DownloadError(
            f"{self.url} offers {self.total:,} bytes ({content_type or 'of no stated type'}) where "
            f"{self.expected_size:,} were expected, so it is another file or an error page; check "
            "the address, or demand the file you want with --sha256"
        )

    def _check_space(self, start: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if self.total is not None and free < self.total - start:
            raise DownloadError(self._no_space())

    def _no_space(self) -> str:
        free = shutil.disk_usage(self.part.parent).free
        needed = f"{self.total:,} bytes" if self.total is not None else "a file of unknown size"
        return (
            f"{self.part.parent} has {free:,} bytes free, {self.target.name} is {needed}; make "
            "room or set SAM2S_CACHE to a larger disk"
        )


def _range_start(headers: Message) -> int | None:
    text = str(headers.get("Content-Range") or "")
    first = text.removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _total_of(headers: Message) -> int | None:
    total = str(headers.get("Content-Range") or "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _total_size(response: Any) -> int | None:
    """Give the whole file's size in bytes, whether this answer is all of it or a part."""
    if response.status == 206:
        return _total_of(response.headers)
    length = str(response.headers.get("Content-Length") or "")
    return int(length) if length.isdigit() else None


def _bar(title: str, total: int | None, start: int, quiet: bool) -> tqdm[Any]:
    return tqdm(
        desc=title,
        total=total,
        initial=start,
        unit="B",
        unit_scale=True,
        disable=quiet,
        leave=False,
    )
