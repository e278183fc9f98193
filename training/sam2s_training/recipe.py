"""A recipe: everything that a training depends on, in one YAML file.

Sections at the top (`data`, `prompts`, `losses`, `unroll`, `optim`, `image_size`) are the defaults
of every phase; a phase changes what it names and says how many steps it takes:

    name: nano
    model: {preset: nano}
    image_size: 256
    optim: {lr: 0.001, batch: 4}
    phases:
      - {name: images, steps: 20000, image_size: 128, unroll: {frames: 1}}
      - {name: clips, steps: 20000, optim: {lr: 0.0003}}

`base: other.yaml` lays a recipe over another one. `docs/training.md` lists all keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from sam2s_model.config import ModelConfig
from sam2s_model.errors import Sam2sError
from sam2s_training.feed import DataSettings
from sam2s_training.losses import LossSettings
from sam2s_training.prompts import PromptSettings
from sam2s_training.schema import RecipeError, UnknownKeyError, build, convert, merged, plain
from sam2s_training.unroll import UnrollSettings


@dataclass(frozen=True)
class ModelSettings:
    """Which model is trained, and from what weights it starts."""

    preset: str = "nano"
    weights: str | None = None  # preset name or file to start from; None: from scratch
    text_bank: str = "bank-minilm"  # class embeddings, a shipped bank's name or a file

    def __post_init__(self) -> None:
        ModelConfig.preset(self.preset)


@dataclass(frozen=True)
class OptimSettings:
    """The optimiser, its schedule, and how a step is computed."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: matrices' steps are made orthogonal
    batch: int = 4  # clips per process and micro-step
    accumulate: int = 1  # micro-steps whose gradients are summed before a step
    lr: float = 1e-3  # peak, after the warm-up
    lr_end: float = 0.01  # share of `lr` that the cosine ends at
    warmup: int = 200  # steps of linear rise at the start of a phase
    weight_decay: float = 0.05  # of matrices and kernels; norms, biases, embeddings have none
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0  # largest norm of all gradients together; 0: no clipping
    ema: float = 0.999  # share of the past in the averaged weights, lower in the first steps
    trunk_lr: float = 1.0  # factor on the learning rate of the image encoder's trunk
    layer_decay: float = 1.0  # further factor per trunk block, counted from the last one
    new_lr: float = 1.0  # factor for the tensors that SAM 2.1 weights lack
    precision: Literal["float32", "bfloat16"] = "float32"  # of autocast

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "trunk_lr", "new_lr", "layer_decay"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.ema < 1:
            raise RecipeError(f"ema is {self.ema}; it must lie in [0, 1)")


@dataclass(frozen=True)
class LogSettings:
    """How often what is written down; steps count over all phases."""

    every: int = 10  # steps a row of log.csv averages over
    overlays: int = 500  # steps between two pictures of a batch; 0: none
    checkpoint_minutes: float = 10.0  # between two checkpoints
    keep: int = 2  # checkpoints kept
    export: int = 2000  # steps between two files of averaged weights; 0: none
    tensorboard: bool = True  # where the package is installed


@dataclass(frozen=True)
class PhaseSettings:
    """A stretch of training with settings of its own."""

    name: str
    steps: int
    image_size: int = 256  # side of the square clips and of the network's input, pixels
    data: DataSettings = field(default_factory=DataSettings)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    unroll: UnrollSettings = field(default_factory=UnrollSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RecipeError(f"steps is {self.steps}; it must be at least 1")


SECTIONS = ("image_size", "data", "prompts", "losses", "unroll", "optim")


@dataclass(frozen=True)
class Recipe:
    """A whole training."""

    name: str
    phases: tuple[PhaseSettings, ...]
    model: ModelSettings = field(default_factory=ModelSettings)
    log: LogSettings = field(default_factory=LogSettings)
    seed: int = 0  # of weights, data and prompts

    def __post_init__(self) -> None:
        if not self.phases:
            raise RecipeError("phases: at least one is needed")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise RecipeError(f"phases: no two may share a name, as in {', '.join(names)}")
        for phase in self.phases:
            ModelConfig.preset(self.model.preset, image_size=phase.image_size)

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def locate(self, step: int) -> tuple[int, int]:
        """Say which phase a step belongs to, and which of its steps it is; both from 0."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        return len(self.phases), step

    def phase(self, name: str) -> PhaseSettings:
        """Give the phase of a name."""
        found = {phase.name: phase for phase in self.phases}
        if name not in found:
            raise UnknownKeyError(f"{self.name}: phases", name, list(found))
        return found[name]

    def plain(self) -> dict[str, Any]:
        """Give the whole recipe, defaults included, as plain values."""
        return dict(plain(self))

    def digest(self) -> str:
        """Make a short hash that changes with any setting that a result depends on."""
        text = json.dumps(what_matters(self.plain()), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def what_matters(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a plain recipe what changes nothing that is learned: logs, and who loads."""
    kept = {key: value for key, value in recipe.items() if key != "log"}
    kept["phases"] = [
        {**phase, "data": {k: v for k, v in phase["data"].items() if k != "loader"}}
        for phase in recipe["phases"]
    ]
    return kept


def parse_recipe(content: object, where: str) -> Recipe:
    """Make a recipe of what YAML gave; `where` names the file in messages."""
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}: expected a mapping with 'name' and 'phases'")
    known = ["name", "seed", "model", "log", *SECTIONS, "phases"]
    for key in content:
        if key not in known:
            raise UnknownKeyError(where, key, known)
    phases = content.get("phases")
    if not isinstance(phases, Sequence) or isinstance(phases, str) or not phases:
        raise RecipeError(f"{where}: 'phases' must be a list of phases, each with name and steps")
    base = {key: content[key] for key in SECTIONS if key in content}
    # The defaults are checked on their own too: a phase may replace what is wrong in them.
    for key, value in base.items():
        convert(_HINTS[key], value, f"{where}: {key}")
    built = []
    for number, phase in enumerate(phases):
        label = f"{where}: phases[{number}]"
        if not isinstance(phase, Mapping):
            raise RecipeError(f"{label}: expected a mapping with 'name' and 'steps'")
        built.append(build(PhaseSettings, merged(base, phase), label))
    whole = {key: content[key] for key in ("name", "seed", "model", "log") if key in content}
    recipe = build(_Head, whole, where)
    try:
        return Recipe(recipe.name, tuple(built), recipe.model, recipe.log, recipe.seed)
    except Sam2sError as error:
        raise RecipeError(f"{where}: {error}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no YAML file: {error}") from error


def read_content(path: Path) -> Any:
    """Read a recipe file as plain values, laid over the one that its `base` names, if any."""
    content = read_yaml(path)
    if not isinstance(content, Mapping) or "base" not in content:
        return content
    beside = path.parent / str(content["base"])
    base = read_content(beside if beside.is_file() else find_recipe(str(content["base"])))
    return merged(base, {key: value for key, value in content.items() if key != "base"})


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `changes` such as `optim.lr=0.01` are laid over it first."""
    path = find_recipe(path)
    content = read_content(path)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not isinstance(content, Mapping):
            raise RecipeError(f"'{change}' changes nothing; expected such as optim.lr=0.001")
        value: Any = yaml.safe_load(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        content = merged(content, value)
    return parse_recipe(content, path.name)


def shipped_recipes() -> dict[str, Path]:
    """Name the recipes that come with the package."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def find_recipe(path: str | Path) -> Path:
    """Give the file of a path, or of a shipped recipe's name."""
    if Path(path).is_file():
        return Path(path)
    shipped = shipped_recipes()
    if str(path) in shipped:
        return shipped[str(path)]
    raise RecipeError(
        f"there is no recipe {path}; give a YAML file, or a shipped one: {', '.join(shipped)}"
    )


@dataclass(frozen=True)
class _Head:
    """The part of a recipe that no phase can change."""

    name: str
    seed: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    log: LogSettings = field(default_factory=LogSettings)


def _recipes_folder() -> Path:
    """In a source tree beside the package; installed, below a prefix's share."""
    here = Path(__file__).resolve()
    beside = here.parent.parent / "recipes"
    installed = (parent / "share" / "sam2s_training" / "recipes" for parent in here.parents)
    return next((folder for folder in (beside, *installed) if folder.is_dir()), beside)


RECIPES = _recipes_folder()
_HINTS: dict[str, Any] = {
    "image_size": int,
    "data": DataSettings,
    "prompts": PromptSettings,
    "losses": LossSettings,
    "unroll": UnrollSettings,
    "optim": OptimSettings,
}
