"""Names, cache, conversion, verification, and the `sam2s weights` command over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from weights_server import Behaviour, WeightsServer

from sam2s_model import load_model
from sam2s_model.cli import main
from sam2s_model.config import PRESETS, ModelConfig
from sam2s_model.model import OWN_TENSORS, Sam2s
from sam2s_model.weights import (
    CheckpointFormatError,
    ChecksumError,
    Record,
    UnknownWeightsError,
    WeightsError,
    WeightSource,
    WeightState,
    WeightStore,
    WeightsUnavailableError,
    convert,
    read_metadata,
    read_state_dict,
    save_weights,
    verify,
)
from sam2s_model.weights.store import OFFICIAL


def state_dict(preset: str) -> dict[str, torch.Tensor]:
    """Make the few tensors that tell a preset, with numbers in them."""
    config, root = PRESETS[preset], "image_encoder.trunk."
    blocks = {
        f"{root}blocks.{n}.norm1.weight": torch.randn(config.embed_dim)
        for n in range(sum(config.stages))
    }
    return {root + "patch_embed.proj.weight": torch.randn(config.embed_dim, 3, 7, 7)} | blocks


def checkpoint(path: Path, preset: str = "tiny") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state_dict(preset)}, path)
    return path.read_bytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WeightsServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with WeightsServer() as server:
        server.behaviour = Behaviour(body=checkpoint(tmp_path / "origin.pt"))
        monkeypatch.setenv("SAM2S_WEIGHTS_URL", server.url + "/mirror/")
        monkeypatch.setenv("SAM2S_CACHE", str(tmp_path / "cache"))
        yield server


def store_of(server: WeightsServer, tmp_path: Path, sha256: str | None = None) -> WeightStore:
    return WeightStore(
        cache=tmp_path / "cache" / "weights",
        shipped=tmp_path / "shipped",
        sources=(WeightSource("tiny", "sam2.1_hiera_tiny.pt", 1234, sha256),),
        base_url=server.url,
    )


def test_the_official_names_are_presets_and_their_facts_are_whole() -> None:
    assert {source.name for source in OFFICIAL} == {"tiny", "small", "base_plus", "large"}
    assert len({source.sha256 for source in OFFICIAL}) == 4
    for source in OFFICIAL:
        assert source.name in PRESETS
        assert source.sha256 is not None
        assert len(bytes.fromhex(source.sha256)) == 32


def test_first_fetch_records_and_later_use_checks(server: WeightsServer, tmp_path: Path) -> None:
    store = store_of(server, tmp_path)
    path = store.fetch("tiny", quiet=True)
    assert path == tmp_path / "cache" / "weights" / "sam2.1_hiera_tiny.pt"
    for name in ("tiny", "sam2.1_hiera_tiny", "sam2.1_hiera_tiny.pt"):
        assert store.resolve(name) == path
    asked = len(server.requests)
    assert store.fetch("tiny", quiet=True) == path
    assert len(server.requests) == asked  # nothing is fetched twice

    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(ChecksumError, match=r"recorded is [0-9a-f]{64}.*fetch tiny --force"):
        store.resolve("tiny")
    with pytest.raises(ChecksumError):
        store.fetch("tiny", quiet=True)
    store.fetch("tiny", force=True, quiet=True)
    assert store.resolve("tiny") == path


def test_a_server_that_serves_other_bytes_later_is_refused(
    server: WeightsServer, tmp_path: Path
) -> None:
    store = store_of(server, tmp_path)
    path = store.fetch("tiny", quiet=True)
    good = path.read_bytes()
    server.behaviour.body = checkpoint(tmp_path / "origin.pt")  # new random numbers, same size
    server.behaviour.etag = '"v2"'
    assert len(server.behaviour.body) == len(good)
    with pytest.raises(ChecksumError, match="expected"):
        store.fetch("tiny", force=True, quiet=True)
    assert path.read_bytes() == good
    assert store.resolve("tiny") == path
    digest = hashlib.sha256(server.behaviour.body).hexdigest()
    store.fetch("tiny", force=True, sha256=digest, quiet=True)  # accepted knowingly
    assert Record.read(path) == Record(f"{server.url}/{path.name}", len(good), digest)


def test_an_error_page_with_status_200_does_not_become_weights(
    server: WeightsServer, tmp_path: Path
) -> None:
    server.behaviour = Behaviour(body=b"<html><title>Log in</title></html>")
    store = store_of(server, tmp_path)
    for demanded in (None, "0" * 64):
        with pytest.raises(CheckpointFormatError, match="an HTML page titled 'Log in'"):
            store.fetch("tiny", sha256=demanded, quiet=True)
    assert [*store.cache.iterdir()] == []


def test_a_file_copied_by_hand_is_held_against_the_published_hash(
    server: WeightsServer, tmp_path: Path
) -> None:
    file = tmp_path / "cache" / "weights" / "sam2.1_hiera_tiny.pt"
    digest = hashlib.sha256(checkpoint(file)).hexdigest()
    with pytest.raises(ChecksumError, match="published is"):
        store_of(server, tmp_path, "1" * 64).resolve("tiny")
    store = store_of(server, tmp_path, digest)
    assert store.status()[-1].note.startswith("no record yet")
    assert store.resolve("tiny") == file
    assert Record.read(file) == Record("file:sam2.1_hiera_tiny.pt", file.stat().st_size, digest)
    assert store.status()[-1].note == ""
    assert server.requests == []


def test_a_cache_that_can_only_be_read_serves_all_the_same(
    server: WeightsServer, tmp_path: Path
) -> None:
    store = store_of(server, tmp_path)
    file = store.cache / "sam2.1_hiera_tiny.pt"
    checkpoint(file)
    (store.cache / "sam2.1_hiera_tiny.pt.json.part").mkdir()  # no record can be written
    assert store.resolve("tiny") == file
    assert Record.read(file) is None


def test_a_demanded_hash_must_be_one(server: WeightsServer, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="'abc' is no SHA-256; expected 64 hexadecimal"):
        store_of(server, tmp_path).fetch("tiny", sha256="abc")
    with pytest.raises(ChecksumError, match="is no SHA-256"):
        verify(tmp_path / "origin.pt", demanded="sha256:" + "0" * 64)
    assert server.requests == []


def test_the_status_tells_every_state(server: WeightsServer, tmp_path: Path) -> None:
    store = store_of(server, tmp_path)

    def states() -> dict[str, WeightState]:
        return {status.name: status.state for status in store.status()}

    assert states() == {"nano": WeightState.MISSING, "tiny": WeightState.DOWNLOADABLE}
    save_weights(store.shipped / "nano.safetensors", state_dict("nano"), {"preset": "nano"})
    save_weights(store.shipped / "extra.safetensors", state_dict("tiny"), {"preset": "tiny"})
    (store.shipped / "broken.safetensors").write_text("not weights")
    path = store.fetch("tiny", quiet=True)
    assert states() == {
        "broken": WeightState.DAMAGED,
        "extra": WeightState.AVAILABLE,
        "nano": WeightState.AVAILABLE,
        "tiny": WeightState.AVAILABLE,
    }
    by_name = {status.name: status for status in store.status()}
    assert by_name["extra"].preset == "tiny"
    assert by_name["tiny"].path == path
    assert by_name["tiny"].size == path.stat().st_size
    path.write_bytes(path.read_bytes() + b"more")
    assert states()["tiny"] is WeightState.DAMAGED

    store = replace(store, cache=tmp_path / "second")
    store.cache.mkdir()
    (store.cache / "sam2.1_hiera_tiny.pt.part").write_bytes(bytes(617))
    assert store.status()[-1].note == "`sam2s weights fetch tiny` goes on at 50%"


def test_unknown_and_absent_names_say_what_to_do(server: WeightsServer, tmp_path: Path) -> None:
    store = store_of(server, tmp_path)
    with pytest.raises(WeightsUnavailableError, match=r"fetch tiny` \(0 MB\), or copy sam2\.1_"):
        store.resolve("tiny")
    with pytest.raises(WeightsUnavailableError, match="not shipped with this installation"):
        store.resolve("nano")
    with pytest.raises(UnknownWeightsError, match=r"did you mean 'tiny'\? Known names: nano, tiny"):
        store.resolve("tinny")
    with pytest.raises(UnknownWeightsError, match=r"existing file\. Known names"):
        store.resolve("zzz")
    checkpoint(tmp_path / "run" / "best.pt")
    with pytest.raises(UnknownWeightsError, match=r"did you mean .*run/best\.pt\?"):
        store.resolve(tmp_path / "run" / "bset.pt")
    with pytest.raises(UnknownWeightsError, match="is a folder"):
        store.resolve(tmp_path / "run")
    assert store.resolve(tmp_path / "run" / "best.pt") == tmp_path / "run" / "best.pt"
    with pytest.raises(UnknownWeightsError):
        store.fetch("tinny")


@pytest.mark.parametrize("preset", ["tiny", "small", "base_plus", "large"])
def test_conversion_drops_nothing_and_names_the_preset(tmp_path: Path, preset: str) -> None:
    source = tmp_path / "w.pt"
    checkpoint(source, preset)
    target = convert(source)
    assert target == tmp_path / "w.safetensors"
    before, after = read_state_dict(source), read_state_dict(target)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    metadata = read_metadata(target)
    assert metadata["preset"] == preset
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=r"exists already; give --out FILE, or --overwrite"):
        convert(source)
    assert convert(source, overwrite=True) == target


def test_the_converted_file_is_preferred_and_checked(server: WeightsServer, tmp_path: Path) -> None:
    store = store_of(server, tmp_path)
    fetched = store.fetch("tiny", quiet=True)
    target = convert(fetched)
    assert store.resolve("tiny") == target
    fetched.unlink()
    asked = len(server.requests)
    assert store.fetch("tiny", quiet=True) == target
    assert len(server.requests) == asked
    target.write_bytes(target.read_bytes()[:-4])
    with pytest.raises(CheckpointFormatError, match="truncated safetensors"):
        store.resolve("tiny")


def test_what_is_no_model_is_not_converted(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointFormatError, match=r"w\.pt holds .* 1 tensors such as 'a' \[2\]"):
        convert(tmp_path / "w.pt")
    assert not (tmp_path / "w.safetensors").exists()


@pytest.fixture(scope="module")
def nano() -> dict[str, torch.Tensor]:
    """All the tensors of a real model."""
    torch.manual_seed(0)
    return Sam2s(ModelConfig.preset("nano")).state_dict()


def without_own(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in tensors.items() if not name.startswith(OWN_TENSORS)}


def test_verify_reports_what_a_sound_file_holds(
    tmp_path: Path, nano: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": without_own(nano)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    report = verify(path)
    assert (report.preset, report.sha256, report.compared_with) == ("nano", digest, "nothing")
    assert set(report.absent) == nano.keys() - without_own(nano).keys() != set()
    assert report.tensors == len(without_own(nano))
    assert report.parameters == sum(t.numel() for t in without_own(nano).values())
    assert report.dtypes == {"float32": report.tensors}
    assert Record.read(path) is None

    assert verify(path, published=digest).compared_with == "published"
    verify(path, keep_record=True)
    assert verify(path, published="2" * 64).compared_with == "recorded"
    with pytest.raises(ChecksumError, match=f"has SHA-256 {digest}, demanded is {'3' * 64}"):
        verify(path, demanded="3" * 64)
    save_weights(tmp_path / "own.safetensors", nano, {"preset": "nano"})
    assert verify(tmp_path / "own.safetensors").absent == ()


def test_verify_finds_wrong_tensors(tmp_path: Path, nano: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.safetensors"

    def refused(tensors: dict[str, torch.Tensor], sentence: str) -> None:
        save_weights(path, tensors, {})
        with pytest.raises(CheckpointFormatError, match=sentence):
            verify(path)

    refused({"a": torch.ones(1)}, r"w\.safetensors holds .* 1 tensors .*no image encoder")
    broken = nano | {"no_mem_embed": torch.full_like(nano["no_mem_embed"], torch.inf)}
    refused(broken, "NaN or infinite numbers in 1 tensors such as 'no_mem_embed'")
    fewer = {name: t for name, t in nano.items() if name != "no_obj_ptr"}
    refused(fewer, r"w\.safetensors cannot be loaded: .*1 missing \(no_obj_ptr\)")
    refused(nano | {"lora.a": torch.ones(1)}, r"1 unexpected \(lora\.a\)")
    refused(
        nano | {"no_obj_ptr": torch.ones(1, 3)}, r"no_obj_ptr is \(1, 3\) instead of \(1, 128\)"
    )


def test_a_converted_checkpoint_loads_into_the_same_model(
    tmp_path: Path, nano: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": nano}, path)
    for file in (path, convert(path)):
        loaded = load_model(file).state_dict()
        assert loaded.keys() == nano.keys()
        assert all(torch.equal(loaded[name], nano[name]) for name in nano)


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    checkpoint(path)
    Record.path_for(path).write_text("{")
    with pytest.raises(ChecksumError, match=r"the record .*w\.pt\.json cannot be read"):
        verify(path)


def test_the_command_fetches_converts_and_lists(
    server: WeightsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(server.behaviour.body).hexdigest()
    # The mirror serves something else under the official name: size and hash are published.
    assert main(["weights", "fetch", "tiny"]) == 2
    assert "where 156,008,466 were expected" in capsys.readouterr().err
    assert main(["weights", "fetch", "tiny", "--sha256", digest]) == 0
    assert server.requests[-1]["path"] == "/mirror/sam2.1_hiera_tiny.pt"
    assert digest in capsys.readouterr().out
    assert main(["weights", "convert", "tiny"]) == 0
    assert "preset tiny, 13 tensors, all unchanged" in capsys.readouterr().out
    # Thirteen tensors are enough to tell the preset, not to be one.
    assert main(["weights", "verify", "tiny"]) == 2
    assert "cannot be loaded: the weights are not those of a 'tiny'" in capsys.readouterr().err
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("| tiny"))
    assert "available" in row
    assert str(tmp_path / "cache" / "weights" / "sam2.1_hiera_tiny.safetensors") in row


def test_the_command_reports_on_a_sound_file(
    tmp_path: Path, nano: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, without_own(nano), {"preset": "nano", "text_bank": "bank-minilm"})
    assert main(["weights", "verify", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"{path}: sound" in shown
    assert f"{hashlib.sha256(path.read_bytes()).hexdigest()} (compared with: nothing)" in shown
    assert "text_bank = bank-minilm" in shown
    assert "tensors that SAM2S adds" in shown


def test_the_command_says_a_fault_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pt").write_text("hello")
    assert main(["weights", "verify", str(tmp_path / "w.pt")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sam2s weights: ")
    assert "is a text file that begins 'hello'; expected a SAM 2.1 checkpoint" in error
    assert error.count("\n") == 1
