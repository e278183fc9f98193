"""Names and where their files are: shipped with the library, or official and cached."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from sam2s_model.weights.download import (
    Record,
    check_digest,
    download,
    partial_path,
    sha256_of,
)
from sam2s_model.weights.errors import (
    CheckpointFormatError,
    ChecksumError,
    UnknownWeightsError,
    WeightsUnavailableError,
)
from sam2s_model.weights.formats import identify, read_metadata

SHIPPED_FOLDER = Path(__file__).parent.parent / "data"
SHIPPED_NAMES = ("nano",)  # promised names, listed as missing while the folder lacks them
OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"


@dataclass(frozen=True)
class WeightSource:
    """A checkpoint that can be fetched."""

    name: str  # the preset's name
    filename: str
    size: int  # bytes, as published
    sha256: str | None  # hex as published; None: whatever comes first is recorded and kept to


# SAM 2.1 as published on 2024-09-29.
OFFICIAL = (
    WeightSource(
        "tiny",
        "sam2.1_hiera_tiny.pt",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    WeightSource(
        "small",
        "sam2.1_hiera_small.pt",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    WeightSource(
        "base_plus",
        "sam2.1_hiera_base_plus.pt",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    WeightSource(
        "large",
        "sam2.1_hiera_large.pt",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
)


class WeightState(str, Enum):
    """Whether weights can be loaded now."""

    AVAILABLE = "available"
    DOWNLOADABLE = "downloadable"
    MISSING = "missing"  # a shipped name whose file this installation lacks
    DAMAGED = "damaged"  # there, but not of the recorded size or not readable


@dataclass(frozen=True)
class WeightStatus:
    """One line of `sam2s weights list`."""

    name: str
    preset: str
    state: WeightState
    path: Path | None  # where the file is, if it is there
    size: int | None  # bytes of the file, or those to fetch
    note: str  # what to do next, or what is odd; "" if all is well


def default_cache() -> Path:
    """Give the folder of fetched weights: $SAM2S_CACHE, or ~/.cache/sam2s; in it weights/."""
    root = os.environ.get("SAM2S_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "sam2s") / "weights"


def default_url() -> str:
    """Give the address the official files lie under; $SAM2S_WEIGHTS_URL names a mirror."""
    return os.environ.get("SAM2S_WEIGHTS_URL", "").rstrip("/") or OFFICIAL_URL


@dataclass(frozen=True)
class WeightStore:
    """The registry over one cache folder, one folder of shipped weights and one server."""

    cache: Path = field(default_factory=default_cache)
    shipped: Path = SHIPPED_FOLDER
    sources: tuple[WeightSource, ...] = OFFICIAL
    base_url: str = field(default_factory=default_url)

    def status(self) -> list[WeightStatus]:
        """List every known name, shipped ones first; sizes are compared, hashes are not."""
        files = self._shipped_files()
        shipped = [self._shipped_status(name, path) for name, path in files.items()]
        promised = [
            WeightStatus(name, name, WeightState.MISSING, None, None, "not shipped yet, train it")
            for name in SHIPPED_NAMES
            if name not in files
        ]
        return [*shipped, *promised, *(self._source_status(source) for source in self.sources)]

    def resolve(self, name_or_path: str | Path) -> Path:
        """Give the file of a known name, its hash checked, or of a path.

        A name's file is the shipped one, else the converted .safetensors in the cache, else the
        fetched .pt. Nothing is downloaded here: `fetch` does that, on demand only.
        """
        path = self.locate(name_or_path)
        source = self._source(str(name_or_path))
        if source is not None and path.parent == self.cache:
            self._check_hash(path, source)
        return path

    def locate(self, name_or_path: str | Path) -> Path:
        """Find the file as `resolve` does, without looking at its bytes."""
        text = str(name_or_path)
        shipped = self._shipped_files()
        if text in shipped:
            return shipped[text]
        if text in SHIPPED_NAMES:
            raise WeightsUnavailableError(
                f"the weights '{text}' are not shipped with this installation; train them, or "
                f"put {text}.safetensors into {self.shipped}, or give a path"
            )
        source = self._source(text)
        if source is not None:
            file = self._cached_file(source)
            if file is None:
                raise WeightsUnavailableError(
                    f"the weights '{source.name}' are not on this machine; run `sam2s weights "
                    f"fetch {source.name}` ({source.size / 1e6:.0f} MB), or copy "
                    f"{source.filename} to {self.cache}"
                )
            return file
        path = Path(text).expanduser()
        if path.is_file():
            return path
        raise UnknownWeightsError(self._unknown(text, path, shipped))

    def fetch(
        self, name: str, *, sha256: str | None = None, force: bool = False, quiet: bool = False
    ) -> Path:
        """Bring a name's file into the cache, or check the one that is there.

        Args:
            name: preset name, or the official file's name.
            sha256: a hash to demand instead of the recorded or published one.
            force: fetch again although the file is there.
            quiet: no progress bars.
        """
        source = self._source(name)
        if source is None:
            return self.resolve(name)
        check_digest(sha256)
        target = self.cache / source.filename
        present = target if sha256 is not None else self._cached_file(source)
        if present is not None and present.exists() and not force:
            self._check_hash(present, source, demanded=sha256, quiet=quiet)
            return present
        size, digest = self._expected(target, source, sha256)
        download(
            f"{self.base_url}/{source.filename}",
            target,
            expected_size=size,
            expected_sha256=digest,
            check=identify,
            quiet=quiet,
        )
        return target

    def expected_sha256(self, path: Path) -> str | None:
        """Give the hash a file must have: the recorded one, else its official one, else None."""
        source = next((s for s in self.sources if path == self.cache / s.filename), None)
        record = Record.read(path)
        if record is not None:
            return record.sha256
        return source.sha256 if source is not None else None

    def _expected(
        self, target: Path, source: WeightSource, demanded: str | None
    ) -> tuple[int | None, str | None]:
        if demanded is not None:
            return None, demanded
        record = Record.read(target)
        if record is not None:
            return record.size, record.sha256
        return (source.size, source.sha256) if source.sha256 else (None, None)

    def _check_hash(
        self, file: Path, source: WeightSource, *, demanded: str | None = None, quiet: bool = True
    ) -> None:
        """Compare with the demanded, recorded or published hash; record it if nothing has yet."""
        official = file.name == source.filename
        record = Record.read(file)
        expected = demanded or (record.sha256 if record else source.sha256 if official else None)
        found = sha256_of(file, quiet=quiet)
        if expected is not None and found != expected.lower():
            identify(file)  # "a truncated archive" explains more than a wrong hash does
            origin = "demanded" if demanded else "recorded" if record else "published"
            raise ChecksumError(
                f"{file} has SHA-256 {found}, {origin} is {expected}: the file has changed; run "
                f"`sam2s weights fetch {source.name} --force`, or accept these bytes knowingly "
                f"with --sha256 {found}"
            )
        if record is None or record.sha256 != found:
            identify(file)
            # In a cache that may only be read there is no place for a record, and no need:
            # whoever cannot write cannot change the file either.
            with contextlib.suppress(OSError):
                Record(f"file:{file.name}", file.stat().st_size, found).write(file)

    def _shipped_files(self) -> Mapping[str, Path]:
        return {path.stem: path for path in sorted(self.shipped.glob("*.safetensors"))}

    def _source(self, name: str) -> WeightSource | None:
        for source in self.sources:
            if name in (source.name, source.filename, source.filename.removesuffix(".pt")):
                return source
        return None

    def _cached_file(self, source: WeightSource) -> Path | None:
        fetched = self.cache / source.filename
        return next((p for p in (fetched.with_suffix(".safetensors"), fetched) if p.exists()), None)

    def _shipped_status(self, name: str, path: Path) -> WeightStatus:
        size = path.stat().st_size
        try:
            preset = read_metadata(path).get("preset", name)
        except CheckpointFormatError as error:
            return WeightStatus(name, name, WeightState.DAMAGED, path, size, str(error))
        return WeightStatus(name, preset, WeightState.AVAILABLE, path, size, "shipped")

    def _source_status(self, source: WeightSource) -> WeightStatus:
        file = self._cached_file(source)
        if file is None:
            part = partial_path(self.cache / source.filename)
            done = part.stat().st_size if part.exists() else 0
            note = f"`sam2s weights fetch {source.name}`"
            note += f" goes on at {done / source.size:.0%}" if done else ""
            return WeightStatus(
                source.name, source.name, WeightState.DOWNLOADABLE, None, source.size, note
            )
        size = file.stat().st_size
        try:
            record = Record.read(file)
            identify(file)
        except (ChecksumError, CheckpointFormatError) as error:
            return WeightStatus(
                source.name, source.name, WeightState.DAMAGED, file, size, str(error)
            )
        if record is not None and record.size != size:
            note = f"{record.size:,} bytes are recorded; fetch it again with --force"
            return WeightStatus(source.name, source.name, WeightState.DAMAGED, file, size, note)
        note = "" if record is not None else "no record yet; `sam2s weights verify` makes it"
        return WeightStatus(source.name, source.name, WeightState.AVAILABLE, file, size, note)

    def _unknown(self, text: str, path: Path, shipped: Mapping[str, Path]) -> str:
        names = [*dict.fromkeys([*shipped, *SHIPPED_NAMES, *(s.name for s in self.sources)])]
        if path.is_dir():
            return f"{path} is a folder; give the file in it, or a known name: {', '.join(names)}"
        candidates = names + [s.filename for s in self.sources]
        near = difflib.get_close_matches(text, candidates, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        if path.parent.is_dir() and len(path.parts) > 1:
            beside = [p.name for p in path.parent.iterdir() if p.suffix in (".pt", ".safetensors")]
            close = difflib.get_close_matches(path.name, beside, n=1)
            hint = f"; did you mean {path.parent / close[0]}?" if close else hint
        return (
            f"'{text}' is neither a known name nor an existing file{hint or '.'} Known names: "
            + ", ".join(names)
        )


def resolve(name_or_path: str | Path) -> Path:
    """Give the file of a known name or of a path; see WeightStore.resolve."""
    return WeightStore().resolve(name_or_path)


def fetch(name: str, *, sha256: str | None = None, force: bool = False) -> Path:
    """Bring a known name's file into the cache; see WeightStore.fetch."""
    return WeightStore().fetch(name, sha256=sha256, force=force)


def list_weights() -> list[WeightStatus]:
    """List every known name with its state; see WeightStore.status."""
    return WeightStore().status()
