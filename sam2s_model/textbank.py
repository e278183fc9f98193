"""The text bank: class names and their embeddings, made once, compared with at run time."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sam2s_model.classes import INSTRUMENTS, TISSUES, UNKNOWN
from sam2s_model.errors import Sam2sError
from sam2s_model.whole_file import whole_file

if TYPE_CHECKING:
    from sam2s_model.textencoder import TextEncoder

FORMAT = "sam2s text bank"
FORMAT_VERSION = 1  # raised when older code could no longer read new files rightly
KINDS = ("instrument", "tissue")
Kind = Literal["instrument", "tissue"]
SHIPPED_FOLDER = Path(__file__).parent / "data"

# A name's embedding is the mean over these sentences, as CLIP's zero-shot classifiers do: one
# sentence alone says as much about its own wording as about the name.
TEMPLATES = (
    "a photo of a {} in surgery",
    "a photo of the {} during an operation",
    "an endoscopic image of a {}",
    "a close-up of a {} in laparoscopic video",
    "a surgical scene with a {}",
)

_UNIT_TOLERANCE = 1e-3  # how far a stored embedding's length may be from 1
_LABELS = {UNKNOWN}  # names that mean something else to the tracker


class TextBankError(Sam2sError):
    """A text bank, or a list of names, that is not what it should be."""


class NamedClass(NamedTuple):
    """One entry of a bank before it has an embedding."""

    name: str
    kind: Kind


@dataclass(frozen=True, eq=False)
class TextBank:
    """K names, what each is, and where each lies in the encoder's space. Checked when made."""

    names: tuple[str, ...]  # K, no two alike
    kinds: tuple[Kind, ...]  # K
    embeddings: NDArray[np.float32]  # [K, D], rows of length 1; not writable
    encoder: str  # what made the embeddings; banks of different encoders cannot be mixed
    templates: tuple[str, ...] = ()  # the sentences the embeddings are the means of

    def __post_init__(self) -> None:
        self.validate()
        embeddings = np.array(self.embeddings, np.float32)
        embeddings.setflags(write=False)
        object.__setattr__(self, "embeddings", embeddings)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dim(self) -> int:
        """D, the number of dimensions of an embedding."""
        return int(self.embeddings.shape[1])

    def validate(self) -> None:
        """Raise a sentence if names, kinds and embeddings do not make a bank."""
        check_names([NamedClass(*entry) for entry in zip(self.names, self.kinds, strict=False)])
        shape = self.embeddings.shape
        if len(shape) != 2 or shape[0] != len(self.names) or not shape[1]:
            raise TextBankError(
                f"{len(self.names)} names with embeddings of shape {list(shape)}; expected "
                f"[{len(self.names)}, D], one row a name"
            )
        if len(self.kinds) != len(self.names):
            raise TextBankError(
                f"{len(self.names)} names with {len(self.kinds)} kinds; expected one kind a name"
            )
        lengths = np.linalg.norm(self.embeddings.astype(np.float64), axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < _UNIT_TOLERANCE))  # ~ catches NaN too
        if wrong.size:
            raise TextBankError(
                f"the embedding of '{self.names[wrong[0]]}' has length {lengths[wrong[0]]:.3g}; "
                "expected 1: make the bank again with `sam2s bank build`"
            )
        if not self.encoder:
            raise TextBankError("a bank without its encoder's name; expected such as 'minilm'")

    def instruments(self) -> TextBank:
        """Give the bank's instruments alone, in their order: the classes a target can have."""
        chosen = [n for n, kind in enumerate(self.kinds) if kind == "instrument"]
        if not chosen:
            raise TextBankError(
                "the bank has no instrument, so no target could be named; add names of kind "
                "'instrument'"
            )
        return TextBank(
            tuple(self.names[n] for n in chosen),
            tuple(self.kinds[n] for n in chosen),
            self.embeddings[chosen],
            self.encoder,
            self.templates,
        )

    def similarities(self) -> NDArray[np.float32]:
        """Compare every name with every other: cosines, [K, K]."""
        return cast(NDArray[np.float32], self.embeddings @ self.embeddings.T)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the bank as .npz, atomically; the same bank gives the same bytes."""
        path = Path(path)
        if path.suffix != ".npz":
            raise TextBankError(f"a text bank is saved as .npz; {path.name} must end so")
        try:
            with whole_file(path) as part, part.open("wb") as file:
                np.savez(
                    file,
                    format=np.array(FORMAT),
                    version=np.array(FORMAT_VERSION),
                    names=np.array(self.names),
                    kind=np.array(self.kinds),
                    embeddings=self.embeddings,
                    encoder=np.array(self.encoder),
                    templates=np.array(self.templates, dtype=np.str_),
                )
        except OSError as error:
            raise TextBankError(
                f"{path} cannot be written ({error.strerror}); choose a folder you may write to"
            ) from error
        return path

    @staticmethod
    def load(path: str | PathLike[str]) -> TextBank:
        """Read a bank from a file, or a shipped one by its name, such as `bank-minilm`."""
        path = find_bank(path)
        try:
            archive = np.load(path, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise TextBankError(_foreign(path, "is one NumPy array"))
            with archive:
                fields = {name: archive[name] for name in archive.files}
        except TextBankError:
            raise
        except Exception as error:  # numpy and zipfile raise whatever they stumble over
            size = path.stat().st_size
            raise TextBankError(
                _foreign(path, f"cannot be read as .npz ({size:,} bytes, truncated or foreign)")
            ) from error
        return _from_fields(path, fields)


def shipped_banks() -> dict[str, Path]:
    """Name the banks that come with the library, by file name without suffix."""
    return {path.stem: path for path in sorted(SHIPPED_FOLDER.glob("bank-*.npz"))}


def find_bank(name_or_path: str | PathLike[str]) -> Path:
    """Give the file of a shipped bank's name or of a path."""
    shipped = shipped_banks()
    text = str(name_or_path)
    if text in shipped:
        return shipped[text]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    raise TextBankError(
        f"there is no text bank '{text}'{_suggest(text, shipped)}; give an .npz file made by "
        f"`sam2s bank build`, or a shipped one: {', '.join(shipped) or 'none is'}"
    )


def default_names() -> list[NamedClass]:
    """Give the 37 categories of SA-SV with their kinds."""
    return [
        *(NamedClass(name, "instrument") for name in INSTRUMENTS),
        *(NamedClass(name, "tissue") for name in TISSUES),
    ]


def read_names(path: str | PathLike[str]) -> list[NamedClass]:
    """Read a list of names: a line each, `name` or `name,kind`; `#` starts a comment.

    A name without a kind must be one of the 37 standard names, whose kinds are known.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise TextBankError(
            f"there is no file {path}; give a file with a name a line, or 'default'"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise TextBankError(
            f"{path} is no UTF-8 text file; expected a line each, `name` or `name,kind`"
        ) from error
    standard = dict(default_names())
    found: list[NamedClass] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, comma, kind = (part.strip() for part in text.rpartition(","))
        if not comma:
            name, kind = text, standard.get(text, "")
            if not kind:
                raise TextBankError(
                    f"{path}, line {number}: '{name}' has no kind and is no standard name"
                    f"{_suggest(name, standard)}; write '{name},instrument' or '{name},tissue'"
                )
        try:
            check_names([*found, NamedClass(name, cast(Kind, kind))])
        except TextBankError as error:
            raise TextBankError(f"{path}, line {number}: {error}") from None
        found.append(NamedClass(name, cast(Kind, kind)))
    if not found:
        raise TextBankError(f"{path} holds no name; expected a line each, `name` or `name,kind`")
    return found


def check_names(entries: Sequence[NamedClass]) -> None:
    """Raise a sentence on no names, an empty, reserved or repeated name, or an unknown kind."""
    if not entries:
        raise TextBankError("a bank of no names; expected at least one")
    seen: dict[str, str] = {}
    for name, kind in entries:
        if not name.strip():
            raise TextBankError("an empty name; write the class's name before its kind")
        if name != name.strip():
            raise TextBankError(f"the name '{name}' starts or ends with a space; remove it")
        if name.casefold() in _LABELS:
            raise TextBankError(
                f"the name '{name}' is reserved for targets that no class fits; leave it out"
            )
        if kind not in KINDS:
            raise TextBankError(
                f"'{name}' is of the unknown kind '{kind}'{_suggest(kind, KINDS)}; expected "
                f"{' or '.join(KINDS)}"
            )
        folded = " ".join(name.casefold().split())
        if folded in seen:
            raise TextBankError(f"'{name}' stands there twice (as '{seen[folded]}'); remove one")
        seen[folded] = name


def build_bank(
    entries: Sequence[NamedClass],
    encoder: TextEncoder,
    templates: Sequence[str] = TEMPLATES,
    progress: Callable[[Sequence[NamedClass]], Iterable[NamedClass]] = iter,
) -> TextBank:
    """Embed names: per name the mean of its sentences' unit embeddings, made unit length again.

    Args:
        entries: names and kinds, K of them.
        encoder: turns sentences into embeddings.
        templates: sentences with one {} for the name.
        progress: wraps the walk over the entries, for a progress bar.
    """
    check_names(entries)
    for template in templates:
        if template.count("{}") != 1:
            raise TextBankError(f"the template '{template}' must have exactly one {{}}")
    if not templates:
        raise TextBankError("no template; expected at least '{}', the bare name")
    rows = []
    for name, _ in progress(entries):
        sentences = [template.replace("{}", name) for template in templates]
        embeddings = np.asarray(encoder.encode(sentences), np.float64)  # [templates, D]
        rows.append(_unit(_unit(embeddings).mean(axis=0)))
    return TextBank(
        tuple(name for name, _ in entries),
        tuple(kind for _, kind in entries),
        np.stack(rows).astype(np.float32),
        encoder.name,
        tuple(templates),
    )


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 1e-6).all()):
        raise TextBankError(
            "the encoder gives zero, NaN or infinite embeddings; its weights are damaged"
        )
    return cast(NDArray[np.float64], vectors / lengths)


def _from_fields(path: Path, fields: Mapping[str, NDArray[np.generic]]) -> TextBank:
    wanted = ("format", "version", "names", "kind", "embeddings", "encoder", "templates")
    missing = [name for name in wanted if name not in fields]
    if missing or str(fields["format"]) != FORMAT:
        raise TextBankError(_foreign(path, f"is an .npz of other arrays ({', '.join(fields)})"))
    try:
        version = int(fields["version"])
    except (TypeError, ValueError) as error:
        raise TextBankError(_foreign(path, "has no readable version")) from error
    if version > FORMAT_VERSION:
        raise TextBankError(
            f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}; "
            "update sam2s_model, or make the bank again with `sam2s bank build`"
        )
    try:
        return TextBank(
            tuple(str(name) for name in fields["names"]),
            tuple(cast(Kind, str(kind)) for kind in fields["kind"]),
            np.asarray(fields["embeddings"], np.float32),
            str(fields["encoder"]),
            tuple(str(template) for template in fields["templates"]),
        )
    except TextBankError as error:
        raise TextBankError(f"{path}: {error}") from None
    except (TypeError, ValueError) as error:
        raise TextBankError(_foreign(path, f"has arrays of the wrong kind ({error})")) from error


def _foreign(path: Path, what: str) -> str:
    return f"{path} {what}; expected a text bank made by `sam2s bank build`"


def _suggest(text: str, known: Sequence[str] | Mapping[str, object]) -> str:
    near = difflib.get_close_matches(text, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
