"""The bank file, lists of names, and `sam2s bank`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sam2s_model.classes import INSTRUMENTS, TISSUES
from sam2s_model.cli import main
from sam2s_model.textbank import (
    KINDS,
    TextBank,
    TextBankError,
    build_bank,
    default_names,
    read_names,
    shipped_banks,
)


class LetterEncoder:
    """Counts letters: a real encoder of texts, small enough to reason about."""

    name = "letters"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        alphabet = "abcdefghijklmnopqrstuvwxyz"
        return np.array([[text.count(c) for c in alphabet] for text in texts], np.float32)


def unit(rows: object) -> NDArray[np.float32]:
    array = np.asarray(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def bank_of(names: Sequence[str] = ("hook", "liver"), **changes: object) -> TextBank:
    fields = {
        "names": tuple(names),
        "kinds": ("instrument", "tissue"),
        "embeddings": unit([[3, 4, 0], [0, 1, 1]]),
        "encoder": "letters",
        "templates": ("a {}",),
    } | changes
    return TextBank(**fields)  # type: ignore[arg-type]


def test_a_bank_survives_its_file_to_the_bit(tmp_path: Path) -> None:
    bank = bank_of(("Größe", "liver"))
    path = bank.save(tmp_path / "deep" / "bank.npz")
    loaded = TextBank.load(path)
    assert (loaded.names, loaded.kinds) == (("Größe", "liver"), ("instrument", "tissue"))
    assert (loaded.encoder, loaded.templates, loaded.dim, len(loaded)) == (
        "letters",
        ("a {}",),
        3,
        2,
    )
    assert loaded.embeddings.dtype == np.float32
    assert np.array_equal(loaded.embeddings, bank.embeddings)
    first = path.read_bytes()
    assert loaded.save(path).read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["bank.npz"]


@settings(max_examples=30, deadline=None)
@given(
    entries=st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9).map(str.casefold),
        st.sampled_from(KINDS),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 99),
)
def test_any_bank_survives_and_keeps_instruments_in_order(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, str], seed: int
) -> None:
    entries.pop("unknown", None)
    rows = np.random.default_rng(seed).normal(size=(len(entries), 7))
    if not entries:
        return
    bank = bank_of((*entries,), kinds=(*entries.values(),), embeddings=unit(rows))
    loaded = TextBank.load(bank.save(tmp_path_factory.mktemp("bank") / "b.npz"))
    assert dict(zip(loaded.names, loaded.kinds, strict=True)) == entries
    wanted = [name for name, kind in entries.items() if kind == "instrument"]
    if wanted:
        instruments = loaded.instruments()
        assert list(instruments.names) == wanted
        for n, name in enumerate(wanted):
            row = bank.embeddings[bank.names.index(name)]
            assert np.array_equal(instruments.embeddings[n], row)
    else:
        with pytest.raises(TextBankError, match="the bank has no instrument"):
            loaded.instruments()


def test_a_bank_cannot_be_changed() -> None:
    bank = bank_of()
    with pytest.raises(ValueError, match="read-only"):
        bank.embeddings[0, 0] = 5
    with pytest.raises(AttributeError):
        bank.encoder = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": ("hook", "Hook ")}, "starts or ends with a space"),
        ({"names": ("hook", "HOOK")}, r"'HOOK' stands there twice \(as 'hook'\)"),
        ({"names": ("hook", " ")}, "an empty name"),
        ({"names": ("hook", "unknown")}, "reserved for targets that no class fits"),
        ({"names": ()}, "a bank of no names"),
        ({"kinds": ("instrument", "tisue")}, r"kind 'tisue' \(did you mean 'tissue'\?\)"),
        ({"kinds": ("instrument",)}, "2 names with 1 kinds"),
        ({"embeddings": unit([[1, 2]])}, r"2 names .* shape \[1, 2\]; expected \[2, D\]"),
        ({"embeddings": np.ones(2, np.float32)}, r"shape \[2\]"),
        (
            {"embeddings": np.array([[1, 0], [2, 0]], np.float32)},
            "'liver' has length 2; expected 1",
        ),
        ({"embeddings": np.array([[1, 0], [np.nan, 0]], np.float32)}, "'liver' has length nan"),
        ({"encoder": ""}, "without its encoder's name"),
    ],
)
def test_what_is_no_bank_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(TextBankError, match=sentence):
        bank_of(**({"names": ("hook", "liver")} | changes))  # type: ignore[arg-type]


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "b.npz"
    bank_of().save(path)
    whole = path.read_bytes()
    for content, sentence in [
        (whole[: len(whole) // 2], "cannot be read as .npz .*truncated or foreign"),
        (b"", "cannot be read as .npz"),
        (b"names,kinds\n", "cannot be read as .npz"),
    ]:
        path.write_bytes(content)
        with pytest.raises(TextBankError, match=sentence):
            TextBank.load(path)
    np.savez(path.open("wb"), a=np.zeros(2))
    with pytest.raises(TextBankError, match=r"is an \.npz of other arrays \(a\); expected a text"):
        TextBank.load(path)
    np.save(path.open("wb"), np.zeros(2))
    with pytest.raises(TextBankError, match="is one NumPy array"):
        TextBank.load(path)
    np.savez(path.open("wb"), names=np.array([{"a": 1}], dtype=object))  # a pickle inside
    with pytest.raises(TextBankError, match="cannot be read"):
        TextBank.load(path)
    fields = dict(np.load(bank_of().save(tmp_path / "new.npz")))
    np.savez(path.open("wb"), **(fields | {"version": np.array(9)}))
    with pytest.raises(TextBankError, match="format version 9, this program reads up to 1"):
        TextBank.load(path)
    np.savez(path.open("wb"), **(fields | {"kind": np.array(["instrument", "tool"])}))
    with pytest.raises(TextBankError, match=r"b\.npz: 'liver' is of the unknown kind 'tool'"):
        TextBank.load(path)
    with pytest.raises(TextBankError, match=r"no text bank 'bank-minilmm' \(did you mean 'bank-mi"):
        TextBank.load("bank-minilmm")
    np.savez(path.open("wb"), **(fields | {"version": np.array("one")}))
    with pytest.raises(TextBankError, match="has no readable version"):
        TextBank.load(path)
    np.savez(path.open("wb"), **(fields | {"embeddings": np.array(["x"])}))
    with pytest.raises(TextBankError, match="has arrays of the wrong kind"):
        TextBank.load(path)
    with pytest.raises(TextBankError, match="must end so"):
        bank_of().save(tmp_path / "b.txt")
    with pytest.raises(TextBankError, match="cannot be written"):
        bank_of().save(path / "b.npz")


def test_the_shipped_bank_holds_the_standard_names() -> None:
    assert "bank-minilm" in shipped_banks()
    bank = TextBank.load("bank-minilm")
    assert bank.names == (*INSTRUMENTS, *TISSUES)
    assert bank.kinds == ("instrument",) * 21 + ("tissue",) * 16
    assert bank.instruments().names == INSTRUMENTS
    assert (bank.encoder, bank.dim) == ("minilm", 384)
    # Embeddings of language: what is called alike lies together.
    cosines, index = bank.similarities(), bank.names.index
    assert cosines[index("scissors"), index("monopolar scissors")] > 0.8
    assert cosines[index("scissors"), index("spleen")] < 0.6


def write(folder: Path, text: str) -> Path:
    path = folder / "names.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_are_read_with_kinds_comments_and_standard_names(tmp_path: Path) -> None:
    text = "\ufeff# ours\nhook\nliver\n\n gauze , instrument  # white\nduct, cystic,tissue\n"
    assert read_names(write(tmp_path, text)) == [
        ("hook", "instrument"),
        ("liver", "tissue"),
        ("gauze", "instrument"),
        ("duct, cystic", "tissue"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "hook\ngraspr\n",
            r"line 2: 'graspr' has no kind .*did you mean 'grasper'.*graspr,tissue'",
        ),
        ("hook\ngauze,instrumnt\n", r"line 2: .*kind 'instrumnt' \(did you mean 'instrument'\?\)"),
        ("gauze,\n", "line 1: 'gauze' is of the unknown kind ''"),
        (",tissue\n", "line 1: an empty name"),
        ("hook\nliver\nHook,instrument\n", r"line 3: 'Hook' stands there twice"),
        ("unknown,tissue\n", "line 1: the name 'unknown' is reserved"),
        ("# nothing\n\n", "holds no name; expected a line each"),
        ("", "holds no name"),
    ],
)
def test_wrong_lists_are_refused_with_line_and_remedy(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(TextBankError, match=sentence):
        read_names(write(tmp_path, text))


def test_lists_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    with pytest.raises(TextBankError, match="there is no file"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00hook")
    with pytest.raises(TextBankError, match="is no UTF-8 text file"):
        read_names(path)


def test_an_embedding_is_the_unit_mean_of_unit_sentences() -> None:
    templates = ("a {}", "{} zzz")
    bank = build_bank(default_names(), LetterEncoder(), templates)
    assert bank.names == (*INSTRUMENTS, *TISSUES)
    assert bank.templates == templates
    for name, row in zip(bank.names, bank.embeddings, strict=True):
        sentences = LetterEncoder().encode([f"a {name}", f"{name} zzz"])
        assert np.allclose(row, unit(unit(sentences).mean(axis=0)[None])[0], atol=1e-6)
    seen: list[str] = []

    def progress(entries: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        seen.extend(name for name, _ in entries)
        return entries

    build_bank(default_names()[:3], LetterEncoder(), progress=progress)  # type: ignore[arg-type]
    assert seen == [*INSTRUMENTS[:3]]


def test_building_refuses_bad_templates_and_broken_encoders() -> None:
    names = default_names()[:2]
    for template in ("a hook", "{} and {}"):
        with pytest.raises(TextBankError, match="exactly one"):
            build_bank(names, LetterEncoder(), (template,))
    with pytest.raises(TextBankError, match="no template"):
        build_bank(names, LetterEncoder(), ())
    with pytest.raises(TextBankError, match="a bank of no names"):
        build_bank([], LetterEncoder())

    class Broken(LetterEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().encode(texts) * np.float32(np.nan)

    with pytest.raises(TextBankError, match="zero, NaN or infinite embeddings"):
        build_bank(names, Broken())


def test_the_command_shows_names_kinds_and_neighbours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings = unit([[1, 0], [1, 0.1], [0, 1]])
    kinds = ("instrument", "instrument", "tissue")
    bank = bank_of(("hook", "snare", "liver"), kinds=kinds, embeddings=embeddings)
    path = bank.save(tmp_path / "b.npz")
    assert main(["bank", "show", str(path), "--neighbours", "1"]) == 0
    shown = capsys.readouterr().out
    assert "| hook  | instrument | snare 1.00" in shown
    assert "| liver | tissue     | snare 0.10" in shown
    assert "encoder: letters; 3 names, 2 dimensions" in shown
    assert main(["bank", "show", str(tmp_path / "none.npz")]) == 2
    assert "there is no text bank" in capsys.readouterr().err
