"""Reading a PyTorch pickle without ever running what it asks for."""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from sam2s_model.weights.errors import CheckpointFormatError, UnsafePickleError

# Modules whose names a plain state dict mentions. This only words the refusal: what may be
# loaded is torch's own decision.
_PLAIN = {"torch", "torch._utils", "torch._tensor", "torch.storage", "torch.nn.parameter"}
_PLAIN |= {"collections", "torch.serialization"}
_SCAN_LIMIT = 1 << 24  # bytes; program and names of a pickle come before its tensors' data


def load_tensors(path: Path, expected: str) -> Any:
    """Load a .pt through torch.load(weights_only=True); refuse in one sentence what it refuses.

    Args:
        path: the file, known to start like a PyTorch zip or a pickle.
        expected: the end of the sentences: what would have been right.
    """
    try:
        # By its bytes, not its path: torch.load lets a suffix decide. The warning would only say
        # that somebody else's pickle is of an unusual protocol.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the unpickler stumble over anything
        failure = error
    asked = _foreign_names(path)
    if asked:
        raise UnsafePickleError(
            f"{path} is a pickle that asks for {', '.join(asked[:3])}, which could run code when "
            "loaded, so it was refused and nothing was run; expected plain tensors: save its "
            "state dict as .safetensors on a machine where you trust it"
        ) from failure
    raise CheckpointFormatError(
        f"{path} is a truncated or damaged PyTorch file; {expected}"
    ) from failure


def _foreign_names(path: Path) -> list[str]:
    """List the functions and classes beyond plain tensors that a pickle names, in order."""
    names: dict[str, None] = {}
    stream = io.BytesIO(_program(path))
    while True:
        strings: list[str] = []
        try:
            for code, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str):
                    strings.append(argument)
                if code.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                elif code.name == "STACK_GLOBAL" and len(strings) >= 2:
                    module, name = strings[-2:]
                else:
                    continue
                if module not in _PLAIN:
                    names[f"{module}.{name}"] = None
        except Exception:
            # The end of the file's pickles, or of what is whole of them.
            return list(names)


def _program(path: Path) -> bytes:
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                inner = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                return archive.read(inner) if inner else b""
        except Exception:  # damaged: nothing to word the refusal by
            return b""
    with path.open("rb") as file:
        return file.read(_SCAN_LIMIT)
