"""Weights for whoever needs a tracker node that runs, even where none are shipped."""

from __future__ import annotations

from pathlib import Path

PRESET = "nano"


def node_weights(folder: Path, preset: str = PRESET) -> tuple[str, bool]:
    """Name weights for the node's parameter `model`; also tells whether they are trained.

    Where the preset's are not on this machine, random ones are written to the folder: transport
    and timing are then real, but masks mean nothing. A path is given back as it is.
    """
    if Path(preset).exists():
        return preset, True
    from sam2s_model.weights import WeightState, list_weights

    for weights in list_weights():
        if weights.name == preset and weights.state is not WeightState.MISSING:
            return preset, True  # damaged weights are for the node to refuse
    from sam2s_model.config import ModelConfig
    from sam2s_model.random_weights import lively_weights
    from sam2s_model.weights import save_weights

    config = ModelConfig.preset(preset)
    path = folder / f"{preset}-random.safetensors"
    metadata = {"preset": preset, "image_size": config.image_size, "source": "random weights"}
    save_weights(path, lively_weights(config), metadata)
    return str(path), False


def node_graphs(folder: Path, model: str) -> str:
    """Name exported graphs for the node with runtime onnx: a folder of them, or one that is made.

    Making them of weights takes a minute or more, and shows how far it is.
    """
    if Path(model).is_dir():
        return model
    from sam2s_model.export.folder import write_export
    from sam2s_model.loading import load_model

    path = folder / "graphs"
    write_export(load_model(model), path)
    return str(path)
