"""Does each idea earn its place? The same training with one thing changed at a time, and a table.

An ablation file names a recipe and its variants; each variant lays its changes over the recipe,
trains as long as all others, and is judged with the memory that it was made for:

    name: nano-ablation
    recipe: ablation-nano.yaml        # beside this file, or a shipped recipe's name
    suites: [val-long, val-hard]
    variants:
      - {name: base, memory: sam2, changes: {data: {sampler: {policy: consecutive}}}}
      - {name: + hybrid sampling and DiveMem, memory: divemem}

Changes go into the recipe's top-level sections; what a phase sets itself stays as it is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam2s_model.config import MemoryPolicyName
from sam2s_model.evaluation.protocol import PromptKind
from sam2s_model.evaluation.report import ReportOptions, figure_text
from sam2s_model.table import markdown_table
from sam2s_model.whole_file import write_whole
from sam2s_training.checkpoint import newest
from sam2s_training.distributed import World
from sam2s_training.evaluate import EvaluationSettings, evaluate_checkpoint
from sam2s_training.recipe import Recipe, find_recipe, parse_recipe, read_content, read_yaml
from sam2s_training.schema import RecipeError, build, merged
from sam2s_training.trainer import SliceSettings, Trainer

TABLE_NAME, JSON_NAME = "ablation.md", "ablation.json"
SIZES = ("videos", "targets")  # what a suite's figures were counted over
# Of each suite, after J&F and its difference from the row above.
SHOWN = (
    ("absence_recall", "absence recall"),
    ("reidentified", "re-identified"),
    ("wrong_instance", "wrong instance"),
    ("top1", "class top-1"),
)


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    memory: MemoryPolicyName = "divemem"  # that it is judged with
    changes: dict[str, Any] = field(default_factory=dict)  # laid over the recipe
    after: str | None = None  # the variant that it is compared with; None: the one above


@dataclass(frozen=True)
class Ablation:
    """A set of trainings that differ in one thing each."""

    name: str
    recipe: str
    variants: tuple[Variant, ...]
    suites: tuple[str, ...] = ("val-long", "val-hard")
    prompt: PromptKind = "click1"
    shard: str = "1/1"  # of the suites' clips
    seed: int = 0  # of all variants: the same weights to start from, the same clips

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) != len(names):
            raise RecipeError("variants: at least one is needed, and no two may share a name")
        for variant in self.variants:
            if variant.after is not None and variant.after not in names:
                raise RecipeError(
                    f"variant '{variant.name}' comes after '{variant.after}', which is none of: "
                    f"{', '.join(names)}"
                )


def load_ablation(path: Path, weights: str | None = None) -> tuple[Ablation, dict[str, Recipe]]:
    """Read an ablation file and make the recipe of each variant.

    Args:
        path: the YAML file, or a shipped one's name.
        weights: what all variants start from, in place of what the recipe says.
    """
    path = find_recipe(path)
    ablation = build(Ablation, read_yaml(path), path.name)
    beside = path.parent / ablation.recipe
    base = read_content(beside if beside.is_file() else find_recipe(ablation.recipe))
    if not isinstance(base, dict):
        raise RecipeError(f"{ablation.recipe}: expected a recipe")
    base = merged(base, {"seed": ablation.seed})
    if weights is not None:
        base = merged(base, {"model": {"weights": weights}})
    return ablation, {
        variant.name: parse_recipe(
            merged(base, {"name": f"{ablation.name}-{folder_of(variant)}", **variant.changes}),
            f"{path.name}: variant '{variant.name}'",
        )
        for variant in ablation.variants
    }


def folder_of(variant: Variant) -> str:
    """Name a variant's run folder."""
    return re.sub(r"[^a-z0-9]+", "-", variant.name.lower()).strip("-")


class AblationRun:
    """Trains and judges the variants, one after the other, from where the last slice stopped."""

    def __init__(
        self,
        ablation: Ablation,
        recipes: dict[str, Recipe],
        out: Path,
        world: World,
        *,
        minutes: float | None = None,
        only: Sequence[str] = (),
        jobs: int = 1,
        quiet: bool = False,
        command: str = "",
    ) -> None:
        """`only` names the variants to work on; none: all. Other processes may do the rest."""
        names = [variant.name for variant in ablation.variants]
        for name in only:
            if name not in names:
                raise RecipeError(f"no variant is called '{name}'; there are: {', '.join(names)}")
        self.only = set(only or names)
        self.ablation, self.recipes, self.out, self.world = ablation, recipes, out, world
        self.jobs, self.quiet, self.command = jobs, quiet, command
        self.stopped = "time"  # why the last slice ended, where it did not finish
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def run(self) -> bool:
        """Work until all its variants are done (then True), time is up, or a signal comes."""
        for variant in self.ablation.variants:
            if variant.name not in self.only:
                continue
            if not self._train(variant):
                return False
            for suite in self.ablation.suites:
                if self._left() == 0:
                    return False
                self._judge(variant, suite)
            self.write()
        return True

    def write(self) -> str:
        """Write the table of what has been judged so far; gives it."""
        text = table(self.ablation, self._results())
        lines = [
            f"# {self.ablation.name}",
            "",
            text,
            "",
            f"J&F and shares in %, prompt `{self.ablation.prompt}`, clips {self.ablation.shard}"
            f"{self._sizes()}. "
            "In brackets: the difference from the row that the variant builds on. Every variant "
            f"was trained for the same {self._budget()}.",
            "",
            f"`{self.command}`",
            "",
        ]
        write_whole(self.out / TABLE_NAME, "\n".join(lines))
        write_whole(self.out / JSON_NAME, json.dumps(self._results(), indent=1))
        return text

    def _budget(self) -> str:
        recipe = next(iter(self.recipes.values()))
        phases = ", ".join(
            f"{p.steps:,} steps of {p.optim.batch * p.optim.accumulate} clips at {p.image_size} px"
            for p in recipe.phases
        )
        start = recipe.model.weights or "random weights"
        return f"{phases}, from {start}, seed {recipe.seed}"

    def _sizes(self) -> str:
        """Say what the figures were counted over, as far as it is known."""
        found = {
            suite: figures
            for by_suite in self._results().values()
            for suite, figures in by_suite.items()
        }
        return "".join(
            f"; {suite}: {figures['targets']} targets, clips: {figures['videos']}"
            for suite, figures in found.items()
        )

    def _left(self) -> float | None:
        """Minutes left in this slice; None without an end."""
        return None if self._end is None else max(0.0, (self._end - time.monotonic()) / 60)

    def _folder(self, variant: Variant) -> Path:
        return self.out / folder_of(variant)

    def _train(self, variant: Variant) -> bool:
        recipe, folder = self.recipes[variant.name], self._folder(variant)
        settings = SliceSettings(folder, minutes=self._left(), quiet=self.quiet)
        trainer = Trainer(recipe, settings, self.world)
        if trainer.state.step >= recipe.steps:
            return True
        outcome = trainer.run()
        self.stopped = outcome.reason
        return outcome.done

    def _judge(self, variant: Variant, suite: str) -> None:
        path = self._result_path(variant, suite)
        if path.exists():
            return
        found = newest(self._folder(variant) / "checkpoints")
        assert found is not None  # it has been trained
        results = evaluate_checkpoint(
            found[0],
            EvaluationSettings(
                (suite,),
                variant.memory,
                self.ablation.prompt,
                self.ablation.shard,
                str(self.world.device),
                self.jobs,
            ),
            self._folder(variant) / "eval" / Path(suite).name,
            ReportOptions(plots=False, worst=0, show_progress=not self.quiet),
            command=self.command,
        )
        counts = {key: sum(s[key] for s in results["scores"]["datasets"].values()) for key in SIZES}
        write_whole(path, json.dumps({**results["scores"]["macro"], **counts}, indent=1))

    def _result_path(self, variant: Variant, suite: str) -> Path:
        return self._folder(variant) / f"result-{Path(suite).name}.json"

    def _results(self) -> dict[str, dict[str, Any]]:
        """Give the figures by variant and suite, as far as they are there."""
        return {
            variant.name: {
                suite: json.loads(path.read_text())
                for suite in self.ablation.suites
                if (path := self._result_path(variant, suite)).exists()
            }
            for variant in self.ablation.variants
        }


def table(ablation: Ablation, results: dict[str, dict[str, Any]]) -> str:
    """Lay out the figures: a row a variant, for every suite J&F with its gain, and shares."""
    header = ["variant", "memory"]
    for suite in ablation.suites:
        header += [f"{suite} J&F", *(f"{suite} {title}" for _, title in SHOWN)]
    rows = []
    for number, variant in enumerate(ablation.variants):
        cells = [variant.name, variant.memory]
        before = variant.after or (ablation.variants[number - 1].name if number else None)
        for suite in ablation.suites:
            cells += _cells(results, variant.name, before, suite)
        rows.append(cells)
    return markdown_table(header, rows)


def _cells(
    results: dict[str, dict[str, Any]], name: str, before: str | None, suite: str
) -> Sequence[str]:
    found = results.get(name, {}).get(suite)
    if found is None:
        return ["…"] * (1 + len(SHOWN))
    base = results.get(before, {}).get(suite) if before else None
    gain = ""
    if base is not None and found["jf"] is not None and base["jf"] is not None:
        gain = f" ({100 * (found['jf'] - base['jf']):+.1f})"
    return [
        figure_text("jf", found["jf"]) + gain,
        *(figure_text(key, found[key]) for key, _ in SHOWN),
    ]
