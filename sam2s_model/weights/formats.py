"""Reading and writing checkpoint files: what a file is decides, not what it is called."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam2s_model.weights.errors import CheckpointFormatError, WeightsError
from sam2s_model.weights.pickles import load_tensors
from sam2s_model.whole_file import whole_file

FORMAT_NAME = "sam2s"
FORMAT_VERSION = 1  # raised when older code could no longer read new files rightly

_EXPECTED = (
    "expected a SAM 2.1 checkpoint, either .safetensors or a PyTorch .pt that holds "
    "{'model': state_dict}"
)
_MAX_HEADER = 100_000_000  # bytes; safetensors itself refuses longer headers
_LEGACY_PICKLE = b"\x80"
_SIGNATURES = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
)


class FileKind(Enum):
    """The formats that can hold a checkpoint."""

    SAFETENSORS = "safetensors"
    TORCH = "PyTorch .pt"


def identify(path: Path) -> FileKind:
    """Tell a checkpoint's format from its bytes, or raise one sentence that says what the file is.

    Only the start and the index are read, so a truncated file of any size is found at once.
    """
    if path.is_dir():
        raise CheckpointFormatError(f"{path} is a folder; {_EXPECTED}")
    if not path.exists():
        raise CheckpointFormatError(f"{path} does not exist; {_EXPECTED}")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise CheckpointFormatError(
            f"{path} cannot be read ({error.strerror}); check its permissions and its disk"
        ) from error
    size = path.stat().st_size
    if not head:
        raise CheckpointFormatError(f"{path} is empty (0 bytes); {_EXPECTED}")
    if head.startswith(b"PK"):
        _check_torch_zip(path, size)
        return FileKind.TORCH
    if _looks_like_safetensors(head):
        _check_safetensors(path, size)
        return FileKind.SAFETENSORS
    if head.startswith(_LEGACY_PICKLE):
        return FileKind.TORCH
    raise CheckpointFormatError(f"{path} is {_describe_foreign(head, size)}; {_EXPECTED}")


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint to the CPU, names and dtypes as stored.

    A .pt file goes through torch.load(weights_only=True) only, which never runs pickled code.
    """
    path = Path(path)
    if identify(path) is FileKind.SAFETENSORS:
        try:
            return dict(load_file(path))
        except Exception as error:  # SafetensorError, and what torch says of impossible dtypes
            raise CheckpointFormatError(_damaged(path, error)) from error
    return _state_dict_of(path, load_tensors(path, _EXPECTED))


def read_metadata(path: Path | str) -> dict[str, str]:
    """Read what `save_weights` wrote beside the tensors; {} for a .pt or a foreign safetensors."""
    path = Path(path)
    if identify(path) is not FileKind.SAFETENSORS:
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointFormatError(_damaged(path, error)) from error
    version = metadata.get("format_version", "0") if metadata.get("format") == FORMAT_NAME else "0"
    if not version.isdigit() or int(version) > FORMAT_VERSION:
        raise CheckpointFormatError(
            f"{path} has format version {version}, this program reads up to {FORMAT_VERSION}; "
            "update sam2s_model, or save the weights again with this version"
        )
    return metadata


def save_weights(
    path: Path | str, state_dict: Mapping[str, Tensor], metadata: Mapping[str, object]
) -> None:
    """Write tensors and metadata (all values as text) as safetensors, atomically.

    Args:
        path: where to; must end in .safetensors.
        state_dict: any tensors; they are stored contiguous, on the CPU, in their own dtype.
        metadata: such as preset, image_size, text_bank, source; `format` and `format_version`
            are added.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"weights are saved as .safetensors; {path.name} must end so")
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in state_dict.items():
        stored = tensor.detach().cpu().contiguous()
        # safetensors refuses two names on one storage: the second gets a copy of its own.
        storage = stored.untyped_storage().data_ptr()
        shared = storage in storages or stored.untyped_storage().nbytes() != (
            stored.numel() * stored.element_size()
        )
        tensors[name] = stored.clone() if shared else stored
        storages.add(tensors[name].untyped_storage().data_ptr())
    texts = {key: str(value) for key, value in metadata.items()}
    texts |= {"format": FORMAT_NAME, "format_version": str(FORMAT_VERSION)}
    try:
        with whole_file(path) as part:
            save_file(tensors, part, metadata=texts)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} cannot be written ({error}); choose a folder you may write to, with "
            f"{sum(t.nbytes for t in tensors.values()):,} bytes free"
        ) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{path} is a damaged safetensors file ({reason}); {_EXPECTED}"


def _looks_like_safetensors(head: bytes) -> bool:
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return 2 <= length <= _MAX_HEADER and head[8:9] == b"{"


def _check_safetensors(path: Path, size: int) -> None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length)
    if len(header) < length:
        raise CheckpointFormatError(
            f"{path} is a truncated safetensors file: {size:,} bytes end inside its header of "
            f"{length:,}; fetch or copy it again"
        )
    try:
        entries = json.loads(header)
        ends = [
            int(entry["data_offsets"][1])
            for name, entry in entries.items()
            if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointFormatError(
            f"{path} starts like a safetensors file but its header cannot be read; {_EXPECTED}"
        ) from error
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        word = "truncated" if size < wanted else "overlong"
        raise CheckpointFormatError(
            f"{path} is a {word} safetensors file: {size:,} bytes where its header tells of "
            f"{wanted:,}; fetch or copy it again"
        )


def _check_torch_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except Exception as error:  # zipfile raises whatever a damaged index makes it stumble over
        raise CheckpointFormatError(
            f"{path} is a truncated or damaged archive: it starts like a PyTorch .pt, but the "
            f"index at its end is missing after {size:,} bytes; fetch or copy it again"
        ) from error
    files = {name.partition("/")[2] for name in members}
    if "constants.pkl" in files:
        raise CheckpointFormatError(f"{path} is a TorchScript program, which is code; {_EXPECTED}")
    if "data.pkl" in files:
        return
    if members and all(name.endswith(".npy") for name in members):
        raise CheckpointFormatError(f"{path} is a NumPy .npz archive; {_EXPECTED}")
    sample = f" such as {members[0]!r}" if members else ""
    raise CheckpointFormatError(
        f"{path} is a zip archive of {len(members)} files{sample}, not a checkpoint; {_EXPECTED}"
    )


def _describe_foreign(head: bytes, size: int) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    lowered = start[:200].lower()
    if lowered.startswith((b"<!doctype html", b"<html")) or b"<html" in lowered:
        title = re.search(rb"<title>(.*?)</title>", start, re.IGNORECASE | re.DOTALL)
        words = f" titled {title.group(1).decode(errors='replace').strip()!r}" if title else ""
        return f"an HTML page{words}, probably a server's error or login page"
    if lowered.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for (run `git lfs pull`)"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive"
    try:
        # The cut at 4096 bytes may fall inside a character: decode all but a character's length.
        text = (head if size <= len(head) else head[:-4]).decode("utf-8")
    except UnicodeDecodeError as error:
        # Only a character that the cut split may fail to decode.
        if size <= len(head) or error.start < len(head) - 8:
            return f"a binary file of an unknown format ({size:,} bytes)"
        text = head[: error.start].decode("utf-8")
    if text.isprintable() or all(c.isprintable() or c in "\r\n\t" for c in text):
        line = text.strip().splitlines()[0][:60] if text.strip() else ""
        return f"a text file that begins {line!r}"
    return f"a binary file of an unknown format ({size:,} bytes)"


def _state_dict_of(path: Path, content: Any) -> dict[str, Tensor]:
    """Take the tensors out of {'model': …}, {'state_dict': …} or a bare state dict."""
    if isinstance(content, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointFormatError(
            f"{path} holds {_name_of(content)}, not a state dict; {_EXPECTED}"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointFormatError(
                f"{path} holds {_name_of(value)} under {name!r} where a state dict has tensors "
                f"only; {_EXPECTED}"
            )
    return dict(content)


def _name_of(value: object) -> str:
    kind = type(value).__name__
    return f"an empty {kind}" if isinstance(value, Mapping) and not value else f"a {kind}"
