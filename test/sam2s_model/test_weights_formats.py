"""What a file is, said in a sentence; and nothing of it is ever run."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sam2s_model.config import PRESETS, ModelConfig
from sam2s_model.model import Sam2s
from sam2s_model.weights import (
    CheckpointFormatError,
    FileKind,
    UnsafePickleError,
    WeightsError,
    detect_preset,
    identify,
    read_metadata,
    read_state_dict,
    save_weights,
)

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def saved(path: Path, content: Any = None, **options: Any) -> Path:
    torch.save({"model": TENSORS} if content is None else content, path, **options)
    return path


def test_a_pt_is_read_wrapped_or_bare_zipped_or_legacy(tmp_path: Path) -> None:
    for n, content in enumerate([{"model": TENSORS}, TENSORS, {"state_dict": TENSORS, "epoch": 3}]):
        for zipped in (True, False):
            path = saved(
                tmp_path / f"{n}{zipped}.pt", content, _use_new_zipfile_serialization=zipped
            )
            assert identify(path) is FileKind.TORCH
            read = read_state_dict(path)
            assert read.keys() == TENSORS.keys()
            assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
            assert read_metadata(path) == {}


def test_safetensors_keep_tensors_dtypes_and_metadata(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        **TENSORS,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "transposed": base.T,  # not contiguous
        "view": base[1:],  # a piece of a larger storage
        "tied": base,  # the storage of two others
        "tied too": base,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    path = tmp_path / "new" / "w.safetensors"
    save_weights(path, tensors, {"preset": "nano", "image_size": 256, "text_bank": "bank-minilm"})
    assert identify(path) is FileKind.SAFETENSORS
    read = read_state_dict(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert read_metadata(path) == {
        "format": "sam2s",
        "format_version": "1",
        "preset": "nano",
        "image_size": "256",
        "text_bank": "bank-minilm",
    }
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda s: s != "__metadata__"),
        st.lists(st.integers(0, 4), max_size=3),
        min_size=1,
        max_size=5,
    ),
    metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_any_state_dict_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, list[int]],
    metadata: dict[str, str],
) -> None:
    path = tmp_path_factory.mktemp("round") / "w.safetensors"
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_weights(path, tensors, metadata)
    read = read_state_dict(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert read_metadata(path).items() >= (metadata | {"format": "sam2s"}).items()


def test_saving_asks_for_the_safe_suffix(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must end so"):
        save_weights(tmp_path / "w.pt", TENSORS, {})


def test_a_format_of_the_future_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path, metadata={"format": "sam2s", "format_version": "7"})
    with pytest.raises(CheckpointFormatError, match=r"version 7, this program reads up to 1"):
        read_metadata(path)
    save_file(TENSORS, path, metadata={"format": "pt"})  # somebody else's safetensors
    assert read_metadata(path) == {"format": "pt"}


class Malice:
    """Unpickled, this would make a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "old bare pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, form: str
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    content = {"model": TENSORS, "extra": Malice(trace)}
    if form.endswith("pickle"):
        protocol = 2 if form.startswith("old") else 4
        path.write_bytes(pickle.dumps({"extra": Malice(trace)}, protocol=protocol))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UnsafePickleError, match="it was refused and nothing was run") as caught:
        read_state_dict(path)
    assert not trace.exists()
    assert f"asks for {os.mkdir.__module__}.mkdir," in str(caught.value)
    # The same file does make the folder when it is loaded without care: the test has teeth.
    if form.endswith("pickle"):
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists()


def zip_of(**members: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return write


def cut(write: Callable[[Path], Any], keep: float) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return build


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


def as_safetensors(path: Path) -> None:
    save_file(TENSORS, path)


def bytes_of(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


FOREIGN = {
    "nothing": (bytes_of(b""), r"is empty \(0 bytes\)"),
    "error page": (
        bytes_of(b"\n<!DOCTYPE html><html><title>403 Forbidden</title></html>"),
        "an HTML page titled '403 Forbidden', probably a server's error",
    ),
    "text": (bytes_of("Größe: see README\nand more".encode()), "text file that begins 'Größe: see"),
    "long text": (bytes_of("é".encode() * 5000), "a text file that begins 'éé"),
    "JSON": (bytes_of(b'{"model": "tiny"}'), "text file that begins"),
    "LFS pointer": (
        bytes_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        "a Git LFS pointer, not the file it stands for",
    ),
    "noise": (bytes_of(np.random.default_rng(1).bytes(9999)), r"unknown format \(9,999 bytes\)"),
    "gzip": (bytes_of(gzip.compress(b"x" * 99)), "a gzip archive"),
    "PNG": (bytes_of(b"\x89PNG\r\n\x1a\n" + bytes(99)), "a PNG picture"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), r"a NumPy \.npz archive"),
    "other zip": (zip_of(**{"notes.txt": b"hello"}), "zip archive of 1 files such as 'notes.txt'"),
    "TorchScript": (torchscript, "a TorchScript program, which is code"),
    "cut pt": (cut(saved, 0.7), "truncated or damaged archive: it starts like a PyTorch"),
    "cut safetensors": (cut(as_safetensors, 0.9), r"truncated safetensors file: \d+ bytes where"),
    "cut header": (cut(as_safetensors, 0.3), "end inside its header"),
    "bad header": (bytes_of(struct.pack("<Q", 9) + b'{"a": 1}!'), "its header cannot be read"),
    "cut pickle": (bytes_of(pickle.dumps({"a": 1})[:-3]), "damaged"),
    "no state dict": (lambda path: saved(path, [1, 2]), "holds a list, not a state dict"),
    "empty state dict": (lambda path: saved(path, {"model": {}}), "an empty dict, not a state"),
    "optimiser": (lambda path: saved(path, {"lr": 0.1}), "holds a float under 'lr'"),
    "torch zip of rubbish": (zip_of(**{"w/data.pkl": b"rubbish", "w/version": b"3"}), "damaged"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_or_truncated_file_is_named_in_one_sentence(tmp_path: Path, name: str) -> None:
    build, sentence = FOREIGN[name]
    path = tmp_path / "w.pt"
    build(path)
    with pytest.raises(CheckpointFormatError, match=sentence) as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert re.search("expected|fetch or copy it again", text)


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["zip", "legacy", "safetensors"]),
    keep=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
)
def test_no_damage_ends_in_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    keep: float,
    flips: list[tuple[float, int]],
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    if form == "safetensors":
        save_weights(path.with_suffix(".safetensors"), TENSORS, {})
        path.with_suffix(".safetensors").replace(path)
    else:
        saved(path, _use_new_zipfile_serialization=form == "zip")
    data = bytearray(path.read_bytes())
    if keep < 0.5:
        data = data[: int(len(data) * 2 * keep)]
    for where, value in flips:
        if data:
            # The first bytes, where names and sizes stand, are hit more often than the rest.
            data[int(where * where * (len(data) - 1))] = value
    path.write_bytes(data)
    sentence = ""
    try:
        tensors = read_state_dict(path)
        read_metadata(path)
    except CheckpointFormatError as error:
        sentence = str(error)
    if sentence:
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WeightsError, match=r"cannot be written .*choose a folder you may write to"):
        save_weights(tmp_path / "file" / "w.safetensors", TENSORS, {})


def test_the_name_does_not_decide_and_folders_and_absence_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    saved(path)
    assert read_state_dict(path).keys() == TENSORS.keys()
    with pytest.raises(CheckpointFormatError, match="is a folder"):
        identify(tmp_path)
    with pytest.raises(CheckpointFormatError, match="does not exist"):
        identify(tmp_path / "none.pt")


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_is_told_from_its_own_models_shapes(preset: str) -> None:
    with torch.device("meta"):
        model = Sam2s(ModelConfig.preset(preset))
    assert detect_preset(model.state_dict()) == preset


def trunk(width: int, depth: int) -> dict[str, torch.Tensor]:
    root = "image_encoder.trunk."
    blocks = {f"{root}blocks.{n}.norm1.weight": torch.ones(width) for n in range(depth)}
    return {root + "patch_embed.proj.weight": torch.zeros(width, 3, 7, 7)} | blocks


def test_a_model_of_no_preset_or_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointFormatError, match=r"width 96 with 13 blocks .*tiny 96 and 12"):
        detect_preset(trunk(96, 13))
    with pytest.raises(CheckpointFormatError, match=r"2 tensors such as 'a.weight' \[2, 3\]"):
        detect_preset(TENSORS)
    with pytest.raises(CheckpointFormatError, match="0 tensors, but no image encoder"):
        detect_preset({})
