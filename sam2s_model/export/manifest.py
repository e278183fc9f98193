"""manifest.json: what a folder of exported graphs holds, and whether it is what it says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam2s_model.bank import Layout
from sam2s_model.config import ConfigError, MemorySettings, ModelConfig
from sam2s_model.export.errors import CapacityError, ManifestError, NewerExportError
from sam2s_model.export.layout import Port, stage_ports

FILE = "manifest.json"
FORMAT = "sam2s export"
FORMAT_VERSION = 2  # raised when older code could no longer run new folders rightly
READABLE = (1, 2)  # version 1 knew no `mask_stride`; its masks are at stride 4, the default
HELPERS_FILE = "helpers.safetensors"
BANK_FILE = "text_bank.npz"
ENGINES = "tensorrt"  # folder in which TensorRT keeps what it built of the graphs
STAGES = ("encode_image", "attend_memory", "decode", "encode_memory")


@dataclass(frozen=True)
class Capacities:
    """How many memories of a target the graphs were made for."""

    conditional: int
    long: int
    recent: int
    recent_pointers: int

    @property
    def slots(self) -> int:
        """Spatial memories that attention reads at most."""
        return self.conditional + self.long + self.recent

    @property
    def pointers(self) -> int:
        """Object pointers that attention reads at most."""
        return self.conditional + self.long + self.recent_pointers

    @staticmethod
    def of(config: ModelConfig, settings: MemorySettings) -> Capacities:
        """What a model's bank with these settings needs."""
        layout = Layout.of(config, settings)
        return Capacities(
            len(layout.conditional),
            len(layout.long),
            len(layout.recent),
            len(layout.recent_pointers),
        )

    def check(self, config: ModelConfig, settings: MemorySettings) -> None:
        """Refuse settings that need more slots than these."""
        needed = Capacities.of(config, settings)
        if needed.long > self.long:
            raise CapacityError(
                f"max_long is {needed.long}, but the graphs were exported for {self.long} "
                f"long-term entries: use max_long <= {self.long}, or export again with "
                f"--max-long {needed.long}"
            )


@dataclass(frozen=True)
class GraphFile:
    """One graph of the folder."""

    file: str
    sha256: str
    bytes: int
    operators: dict[str, int]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


@dataclass(frozen=True)
class Manifest:
    """Everything about an export that running it depends on."""

    config: ModelConfig
    capacities: Capacities
    memory: MemorySettings  # the bank settings that it was exported with
    precision: str
    opset: int
    fingerprint: str  # of the weights, as in snapshots
    semantics: bool  # whether attend_memory gives class vectors
    graphs: dict[str, GraphFile]
    helpers_sha256: str
    text_bank_sha256: str | None
    source: dict[str, Any] = field(default_factory=dict)  # the weights' name and digest
    versions: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write manifest.json."""
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "preset": self.config.name,
            **dataclasses.asdict(self),
        }
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")

    @staticmethod
    def load(folder: Path) -> Manifest:
        """Read a folder's manifest and check it against itself and the folder's files."""
        content = _read(folder)
        if content.get("version") not in READABLE:
            found = content.get("version")
            if isinstance(found, int) and found > FORMAT_VERSION:
                raise NewerExportError(
                    f"{folder} was exported by a newer version (format {found}; this one reads "
                    f"{FORMAT_VERSION}): update this package, or export again with it"
                )
            raise ManifestError(f"{folder / FILE} has the format version {found!r}; {AGAIN}")
        try:
            manifest = Manifest(
                config=_config(content["config"]),
                capacities=Capacities(**content["capacities"]),
                memory=MemorySettings(**content["memory"]),
                graphs={name: GraphFile(**entry) for name, entry in content["graphs"].items()},
                **{
                    key: content[key]
                    for key in (
                        "precision",
                        "opset",
                        "fingerprint",
                        "semantics",
                        "helpers_sha256",
                        "text_bank_sha256",
                        "source",
                        "versions",
                    )
                },
            )
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ManifestError(
                f"{folder / FILE} is incomplete or altered ({error}); {AGAIN}"
            ) from error
        manifest.check(folder)
        return manifest

    def check(self, folder: Path) -> None:
        """Refuse a folder that does not hold what the manifest says."""
        missing = [name for name in STAGES if name not in self.graphs]
        if missing:
            raise ManifestError(f"{folder / FILE} names no graph for {missing[0]}; {AGAIN}")
        expected = {f"{entry.file}": entry.sha256 for entry in self.graphs.values()}
        expected[HELPERS_FILE] = self.helpers_sha256
        if self.text_bank_sha256:
            expected[BANK_FILE] = self.text_bank_sha256
        for name, digest in expected.items():
            path = folder / name
            if Path(name).name != name or not path.is_file():
                raise ManifestError(f"{folder} lacks {name}, which its manifest names; {AGAIN}")
            if sha256(path) != digest:
                raise ManifestError(
                    f"{path} is not the file that the manifest describes: its content was "
                    f"changed, or it belongs to another export; {AGAIN}"
                )
        needed = Capacities.of(self.config, self.memory)
        if needed.long == 0:  # a policy without long-term memory leaves the slots unused
            needed = dataclasses.replace(needed, long=self.capacities.long)
        if needed != self.capacities:
            raise CapacityError(
                f"{folder / FILE} gives capacities {dataclasses.asdict(self.capacities)}, but its "
                f"model and bank settings need {dataclasses.asdict(needed)}; {AGAIN}"
            )
        for name, ports in stage_ports(self.config, self.semantics).items():
            entry = self.graphs[name]
            for kind, given, own in (
                ("inputs", entry.inputs, ports.inputs),
                ("outputs", entry.outputs, ports.outputs),
            ):
                if given != [describe(port) for port in own]:
                    raise ManifestError(
                        f"{folder / FILE} describes other {kind} of {name} than its model has; "
                        f"{AGAIN}"
                    )


AGAIN = "export again with `sam2s export`"


def describe(port: Port) -> dict[str, Any]:
    """Give a port as plain JSON values."""
    return {
        "name": port.name,
        "dtype": str(port.dtype).removeprefix("torch."),
        "shape": list(port.shape),
    }


def sha256(path: Path) -> str:
    """Digest a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not folder.is_dir():
        raise ManifestError(
            f"{folder} is no folder; give the folder that `sam2s export --out` wrote"
        )
    if not path.is_file():
        raise ManifestError(f"{folder} has no {FILE}: it is no finished export; {AGAIN}")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read ({error}); {AGAIN}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ManifestError(f"{path} is no manifest of exported graphs; {AGAIN}")
    return content


def _config(fields: dict[str, Any]) -> ModelConfig:
    plain: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()
    }
    return dataclasses.replace(ModelConfig(), **plain)
