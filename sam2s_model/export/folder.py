"""Writing an export: four graphs, small tensors, a text bank and the manifest that names them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sam2s_model.config import MemorySettings
from sam2s_model.export import tracing
from sam2s_model.export.errors import ExportError
from sam2s_model.export.graphs import stages
from sam2s_model.export.layout import stage_ports
from sam2s_model.export.manifest import (
    BANK_FILE,
    ENGINES,
    FILE,
    HELPERS_FILE,
    STAGES,
    Capacities,
    GraphFile,
    Manifest,
    describe,
    sha256,
)
from sam2s_model.model import Sam2s
from sam2s_model.textbank import TextBank
from sam2s_model.versions import versions_of

PRECISIONS = ("fp32", "fp16", "int8")
PACKAGE = "sam2s_ros"  # what holds this library
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime")


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported."""

    opset: int = tracing.OPSET
    precision: str = "fp32"  # fp16: all graphs; int8: the image encoder, see quantisation.py
    # Its max_long is the capacity for long-term entries.
    memory: MemorySettings = field(default_factory=MemorySettings)
    text_bank: TextBank | None = None  # instead of the one that comes with the weights
    weights: str = ""  # the weights' name or path, to be noted in the manifest
    traced: Path | None = None  # fp32 export of the same model, taken instead of tracing it anew


def helper_tensors(model: Sam2s) -> dict[str, Tensor]:
    """The small tensors of what a runtime does outside the graphs."""
    return {
        "no_mem_embed": model.no_mem_embed.detach().flatten(),  # [C]
        "mask_downsample.weight": model.mask_downsample.weight.detach(),  # [1, 1, 4, 4]
        "mask_downsample.bias": _bias(model.mask_downsample),  # [1]
        "log_scale": model.semantic.log_scale.detach().reshape(1),  # of the class scores
    }


def write_export(model: Sam2s, folder: Path, options: ExportOptions | None = None) -> Manifest:
    """Export a model's stages into a folder, which must be new or an export itself."""
    options = options or ExportOptions()
    if options.precision not in PRECISIONS:
        raise ExportError(
            f"there is no precision '{options.precision}'; choose one of {', '.join(PRECISIONS)}"
        )
    tracing.check_opset(options.opset)
    prepare_folder(folder)
    model = model.cpu().float().eval()
    for name, proto in _protos(model, options):
        if options.precision == "fp16":
            from sam2s_model.export.half import halved

            proto = halved(proto)
        write_graph(proto, folder / f"{name}.onnx", model.fingerprint())
    _save_tensors(helper_tensors(model), folder / HELPERS_FILE)
    bank = options.text_bank or model.text_bank
    if bank is not None and model.has_semantics:
        bank.save(folder / BANK_FILE)
    manifest = make_manifest(model, folder, options)
    manifest.save(folder)
    return manifest


def _protos(model: Sam2s, options: ExportOptions) -> Iterator[tuple[str, Any]]:
    """Trace the stages one after the other, or take them from an earlier export."""
    capacities = Capacities.of(model.config, options.memory)
    if options.traced is not None:
        import onnx

        manifest = Manifest.load(options.traced)
        if (
            manifest.source.get("sha256") != weights_digest(model)
            or (manifest.config, manifest.capacities) != (model.config, capacities)
            or (manifest.precision, manifest.opset) != ("fp32", options.opset)
        ):
            raise ExportError(
                f"{options.traced} is no fp32 export of these weights, sizes, capacities and "
                f"opset {options.opset}, so it cannot be converted: leave it out to trace anew"
            )
        for name in STAGES:
            yield name, onnx.load(options.traced / manifest.graphs[name].file)
        return
    traced = stages(model, capacities, options.opset)
    for name in tqdm(STAGES, desc="exporting", leave=False):
        yield name, tracing.trace(traced[name], name, options.opset)


def prepare_folder(folder: Path) -> None:
    """Make the folder, or empty it of an earlier export; refuse one that holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; give a folder that can be made")
    known = {FILE, HELPERS_FILE, BANK_FILE, "parity.json", "int8.json", ENGINES}
    known |= {f"{name}.onnx" for name in STAGES}
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in held if name not in known]
    if strange:
        raise ExportError(
            f"{folder} holds {strange[0]}, which is no part of an export: give a new folder"
        )
    try:
        for name in held:
            if name == ENGINES:
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{folder} cannot be written ({error.strerror}); choose a folder you may write to"
        ) from error


def write_graph(proto: Any, path: Path, fingerprint: str) -> None:
    """Write a graph that says whose it is."""
    import onnx

    onnx.helper.set_model_props(proto, {"sam2s_stage": path.stem, "sam2s_fingerprint": fingerprint})
    proto.producer_name, proto.producer_version = "sam2s", versions().get(PACKAGE, "")
    onnx.save(proto, path)


def make_manifest(model: Sam2s, folder: Path, options: ExportOptions) -> Manifest:
    """Describe the files that lie in the folder."""
    bank = folder / BANK_FILE
    return Manifest(
        config=model.config,
        capacities=Capacities.of(model.config, options.memory),
        memory=options.memory,
        precision=options.precision,
        opset=options.opset,
        fingerprint=model.fingerprint(),
        semantics=model.has_semantics,
        graphs={
            name: describe_graph(folder / f"{name}.onnx", ports.inputs, ports.outputs)
            for name, ports in stage_ports(model.config, model.has_semantics).items()
        },
        helpers_sha256=sha256(folder / HELPERS_FILE),
        text_bank_sha256=sha256(bank) if bank.is_file() else None,
        source={"weights": options.weights, "sha256": weights_digest(model)},
        versions=versions(),
    )


def describe_graph(path: Path, inputs: list[Any], outputs: list[Any]) -> GraphFile:
    """Describe one graph's file."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    return GraphFile(
        file=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        operators=dict(tracing.operators(proto).most_common()),
        inputs=[describe(port) for port in inputs],
        outputs=[describe(port) for port in outputs],
    )


def weights_digest(model: Sam2s) -> str:
    """Digest all weights by name and content."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions that an export rests on."""
    return versions_of((PACKAGE, *LIBRARIES))


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _bias(layer: torch.nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach()
