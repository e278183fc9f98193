"""From a name or a file to a model that is ready to track."""

from __future__ import annotations

from os import PathLike

from sam2s_model.config import PRESETS, ModelConfig
from sam2s_model.model import Sam2s
from sam2s_model.textbank import TextBank, find_bank
from sam2s_model.weights import detect_preset, read_metadata, read_state_dict, resolve
from sam2s_model.weights.presets import semantic_changes


def load_model(
    name_or_path: str | PathLike[str] = "nano", *, image_size: int | None = None
) -> Sam2s:
    """Load weights by preset name, or from a .safetensors or SAM 2.1 .pt file.

    Args:
        name_or_path: weights that are shipped or were fetched (`sam2s weights list` shows them),
            or a file's path.
        image_size: side of the network's input in pixels, if not the one that the weights were
            made for.

    Returns:
        The model in evaluation mode on the CPU, with the text bank that its weights name.
    """
    path = resolve(str(name_or_path))
    weights = read_state_dict(path)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    preset = metadata.get("preset") or detect_preset(weights)
    size = image_size or int(metadata.get("image_size", 0)) or PRESETS[preset].image_size
    model = Sam2s(ModelConfig.preset(preset, image_size=size, **semantic_changes(weights)))
    model.load_sam2(weights)
    if model.has_semantics and metadata.get("text_bank"):
        model.text_bank = TextBank.load(find_bank(metadata["text_bank"]))
    return model.eval()
