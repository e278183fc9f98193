"""The training loop: phases, steps, checkpoints, stops; one process or many."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sam2s_model.errors import Sam2sError
from sam2s_model.model import Sam2s
from sam2s_training import optim, seeds
from sam2s_training.checkpoint import Checkpoint, newest
from sam2s_training.data.loader import Batch
from sam2s_training.distributed import World
from sam2s_training.export import recipe_of, write_ema
from sam2s_training.feed import make_source, open_loader
from sam2s_training.log import CSV_NAME, Board, CsvLog, ProgressLine, RowSums, duration
from sam2s_training.pictures import batch_picture, save_picture
from sam2s_training.recipe import PhaseSettings, Recipe, what_matters
from sam2s_training.schema import differences
from sam2s_training.start import config_of, fresh_model, load_bank
from sam2s_training.unroll import Unroll, UnrollOutput

MOST_SKIPPED = 20  # steps in a row without a finite gradient before the training gives up


class TrainingError(Sam2sError):
    """A training that cannot start or go on."""


class ForeignCheckpointError(TrainingError):
    """A checkpoint of another preset or of another recipe."""


class DivergedError(TrainingError):
    """Gradients that stay infinite or undefined."""


@dataclass(frozen=True)
class SliceSettings:
    """How a recipe is run now; nothing here changes what is learned."""

    out: Path  # run folder
    minutes: float | None = None  # stop after this time, with a checkpoint
    until_step: int | None = None  # stop after this step, counted over all phases
    accept_changes: bool = False  # go on although the recipe has changed since the checkpoint
    quiet: bool = False  # no progress line


@dataclass(frozen=True)
class Outcome:
    """How a slice ended."""

    step: int
    steps: int
    reason: str  # done, time, step or signal
    checkpoint: Path | None

    @property
    def done(self) -> bool:
        """Whether the recipe is finished."""
        return self.step >= self.steps


class _Stage:
    """A phase under way: model, optimiser and data as its settings want them."""

    def __init__(self, recipe: Recipe, phase: PhaseSettings, state: Checkpoint, world: World):
        self.phase, self.world = phase, world
        self.last: tuple[Batch, Tensor] | None = None  # the last batch and its logits
        whole = load_bank(recipe)
        bank = whole.instruments()
        names = phase.losses.semantic > 0 or phase.losses.naming > 0
        text = torch.from_numpy(bank.embeddings.copy()) if names else None
        self.model = Sam2s(config_of(recipe, phase, whole))
        self.model.load_state_dict(state.model)
        self.model.to(world.device).train()
        self.unroll = Unroll(self.model, phase.losses, phase.prompts, phase.unroll, text)
        self.unroll.to(world.device)
        self.parameters = optim.named_parameters(self.model)
        self.optimizer = optim.make_optimizer(self.model, phase.optim)
        optim.load_optimizer_state(self.optimizer, self.parameters, state.optimizer)
        self.ema = optim.Ema(self.model, phase.optim.ema)
        self.ema.load(state.ema, state.ema_updates)
        self.module: nn.Module = self.unroll
        if world.size > 1:
            # A batch without tissue, memory or instruments leaves parameters out.
            self.module = DistributedDataParallel(
                self.unroll,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
        self.loader = open_loader(
            phase.data,
            size=phase.image_size,
            seed=recipe.seed,
            instruments=bank.names,
            batch=phase.optim.batch,
            first=state.clips,
            world=world,
        )

    @property
    def clips_per_step(self) -> int:
        """Clips of one step, over all processes."""
        return self.phase.optim.batch * self.phase.optim.accumulate * self.world.size


class Trainer:
    """Follows a recipe in a run folder, from where the folder's newest checkpoint stands.

    Random numbers are functions of the recipe's seed and of step and clip numbers, so a training
    cut into slices is the one that was never stopped.
    """

    def __init__(self, recipe: Recipe, settings: SliceSettings, world: World) -> None:
        self.recipe, self.settings, self.world = recipe, settings, world
        self.checkpoints = settings.out / "checkpoints"
        self._check_data()
        self.state = self._begin()
        self._stop = ""  # why training ends with this step
        self._signal = ""  # the signal that has come
        self._start = self._saved_at = time.monotonic()
        self._seconds_before = self.state.seconds
        self._skipped_in_a_row = 0

    # --- start and stop ----------------------------------------------------------------------

    def run(self) -> Outcome:
        """Train until the recipe is done, the slice is over, or a signal comes."""
        path: Path | None = None
        if self.world.is_main:
            self._open_logs()
        with self._signals():
            while self.state.step < self.recipe.steps and not self._stop:
                self._run_phase()
            reason = self._stop or "done"
            if self.world.is_main:
                path = self._save()
                self._export()
                why = self._signal or reason
                self._progress.say(
                    f"stopped at step {self.state.step:,} of {self.recipe.steps:,} ({why}) "
                    f"after {duration(self.state.seconds)} of training; {path}"
                )
                self._progress.close()
                self._board.close()
        return Outcome(self.state.step, self.recipe.steps, reason, path)

    def _check_data(self) -> None:
        """Refuse before the first step what a later phase would stumble over."""
        recipe, checked = self.recipe, []
        for phase in recipe.phases:
            if phase.data not in checked:
                checked.append(phase.data)
                bank = load_bank(recipe).instruments()
                make_source(
                    phase.data,
                    size=phase.image_size,
                    seed=recipe.seed,
                    instruments=bank.names,
                    progress=self.world.is_main and not self.settings.quiet,
                )

    def _begin(self) -> Checkpoint:
        """Take the newest checkpoint up, or start anew."""
        recipe = self.recipe
        found = newest(self.checkpoints)
        if found is None:
            model = fresh_model(recipe)
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            return Checkpoint(
                preset=recipe.model.preset,
                recipe=recipe.plain(),
                step=0,
                clips=0,
                seconds=0.0,
                model=weights,
                ema={name: tensor.clone() for name, tensor in weights.items()},
                ema_updates=0,
                optimizer={},
            )
        path, state = found
        if state.preset != recipe.model.preset:
            raise ForeignCheckpointError(
                f"{path} is of a '{state.preset}' model, the recipe {recipe.name} trains "
                f"'{recipe.model.preset}'; choose another folder (--out), or the recipe of that run"
            )
        before = recipe_of(state).plain()
        changes = differences(what_matters(before), what_matters(recipe.plain()))
        if changes and not self.settings.accept_changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise ForeignCheckpointError(
                f"{path} was written with other settings: {'; '.join(changes[:3])}{more}; choose "
                "another folder (--out), or give --accept-changes to go on with the new ones"
            )
        state.recipe = recipe.plain()
        return state

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT ask for a stop; a second SIGINT interrupts at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = signal.Signals(number).name

        kinds = (signal.SIGTERM, signal.SIGINT)
        try:
            before = {kind: signal.signal(kind, ask) for kind in kinds}
        except ValueError:  # not the main thread: whoever started it takes care of signals
            yield
            return
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _wish(self) -> str:
        """Say why this process would stop now; empty if it would not."""
        minutes, until = self.settings.minutes, self.settings.until_step
        if self._signal:
            return "signal"
        if until is not None and self.state.step >= until:
            return "step"
        if minutes is not None and time.monotonic() - self._start >= 60 * minutes:
            return "time"
        return ""

    def _agree_to_stop(self) -> None:
        """Stop all processes after the same step, if one of them wishes to."""
        wish = self._wish()
        if self.world.size > 1:
            wishes = ("step", "time", "signal")
            counts = self.world.sum([float(wish == kind) for kind in wishes])
            wish = next((kind for kind, n in zip(wishes, counts, strict=True) if n), "")
        self._stop = wish

    # --- a phase -----------------------------------------------------------------------------

    def _run_phase(self) -> None:
        number, done = self.recipe.locate(self.state.step)
        phase = self.recipe.phases[number]
        stage = _Stage(self.recipe, phase, self.state, self.world)
        row = RowSums(self.state.row)
        self._agree_to_stop()
        with stage.loader:
            while done < phase.steps and not self._stop:
                begin, waited = time.monotonic(), stage.loader.waited
                values = self._step(stage, done)
                done += 1
                row.add(values, time.monotonic() - begin, stage.loader.waited - waited)
                if self.world.is_main:
                    if self.state.step % self.recipe.log.every == 0 or done == phase.steps:
                        self._write_row(stage, done, row)
                    self.state.row = row.state()
                    self._after_step(stage, done)
                self._agree_to_stop()
        self._capture(stage)

    def _step(self, stage: _Stage, done: int) -> dict[str, float]:
        """Take one step of the optimiser; gives what it measured."""
        state, world, settings = self.state, self.world, stage.phase.optim
        # Whatever draws from the global generators starts from the step's own seed.
        torch.manual_seed(seeds.seed_of(self.recipe.seed, seeds.GLOBAL, state.step, world.rank))
        rate = optim.learning_rate(settings, done, stage.phase.steps)
        optim.set_learning_rate(stage.optimizer, rate)
        stage.optimizer.zero_grad(set_to_none=True)
        outputs = []
        for turn in range(settings.accumulate):
            batch = next(stage.loader)
            dice = [seeds.seed_of(self.recipe.seed, seeds.PROMPTS, i) for i in batch.indices]
            with contextlib.ExitStack() as stack:
                # Gradients are exchanged once a step, with the last micro-step's.
                last = turn == settings.accumulate - 1
                if not last and isinstance(stage.module, DistributedDataParallel):
                    stack.enter_context(stage.module.no_sync())
                with torch.autocast(
                    world.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"
                ):
                    output: UnrollOutput = stage.module(batch.clips, dice)
                torch.autograd.backward(output.loss / settings.accumulate)
            outputs.append({"loss": output.loss.detach(), **output.parts})
            stage.last = (batch, output.logits)
        limit = settings.clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(stage.parameters.values(), limit))
        if math.isfinite(norm):
            stage.optimizer.step()
            stage.ema.update(stage.model)
            self._skipped_in_a_row = 0
        else:
            self._skip(norm)
        state.step += 1
        state.clips += stage.clips_per_step
        state.seconds = self._seconds_before + time.monotonic() - self._start
        return {**self._means(outputs), "grad_norm": norm}

    def _means(self, outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """Average over micro-steps and processes; what nothing was counted for is left out."""
        names = list(outputs[0])
        table = torch.stack([torch.stack([out[name].float() for name in names]) for out in outputs])
        known = table.isfinite()
        total = torch.stack((torch.where(known, table, 0.0).sum(0), known.float().sum(0)))
        total = self.world.sum_tensor(total.double()).cpu()
        return {
            name: float(value / count) if count else math.nan
            for name, value, count in zip(names, *total, strict=True)
        }

    def _skip(self, norm: float) -> None:
        """Leave a step out; after too many, something is wrong for good."""
        self.state.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise DivergedError(
                f"the gradient of {MOST_SKIPPED} steps in a row was {norm}, the last of them step "
                f"{self.state.step:,}; lower optim.lr or optim.clip and go on from "
                f"{self.checkpoints} with --accept-changes"
            )

    def _capture(self, stage: _Stage) -> None:
        """Bring the stage's tensors into the state."""
        state = self.state
        state.model = {k: v.detach().cpu().clone() for k, v in stage.model.state_dict().items()}
        state.ema = {k: v.cpu().clone() for k, v in stage.ema.weights.items()}
        state.ema_updates = stage.ema.updates
        state.optimizer = {
            name: {key: value.cpu() for key, value in entries.items()}
            for name, entries in optim.optimizer_state(stage.optimizer, stage.parameters).items()
        }

    # --- what is written ----------------------------------------------------------------------

    def _open_logs(self) -> None:
        out, log = self.settings.out, self.recipe.log
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True)
        (out / "recipe.yaml").write_text(text)
        self._csv = CsvLog(out / CSV_NAME, self.state.step)
        self._board = Board(out / "tensorboard", self.state.step, log.tensorboard)
        self._progress = ProgressLine(
            self.recipe.steps, self.state.step, silent=self.settings.quiet
        )

    def _write_row(self, stage: _Stage, done: int, sums: RowSums) -> None:
        state, phase = self.state, stage.phase
        row: dict[str, Any] = {
            "step": state.step,
            "phase": phase.name,
            "phase_step": done,
            "minutes": state.seconds / 60,
            "lr": optim.learning_rate(phase.optim, done - 1, phase.steps),
            "clips": state.clips,
            **sums.take(stage.clips_per_step),
        }
        self._csv.add(row)
        self._board.add(row, state.step)
        left = phase.steps - done
        loss = float(row.get("loss", math.nan))
        self._progress.update(state.step, phase.name, left, loss, float(row["clips_per_s"]))

    def _after_step(self, stage: _Stage, done: int) -> None:
        log, step = self.recipe.log, self.state.step
        if log.overlays and step % log.overlays == 0 and stage.last is not None:
            batch, logits = stage.last
            picture = batch_picture(batch.clips, logits)
            save_picture(self.settings.out / "overlays" / f"step-{step:08d}.jpg", picture)
            self._board.picture(picture, step)
        if time.monotonic() - self._saved_at >= 60 * log.checkpoint_minutes:
            self._capture(stage)
            self._save()
        # The end of a phase is where other trainings may want to begin.
        if log.export and (step % log.export == 0 or done == stage.phase.steps):
            self._capture(stage)
            self._export()

    def _save(self) -> Path:
        self._saved_at = time.monotonic()
        return self.state.save(self.checkpoints, self.recipe.log.keep)

    def _export(self) -> None:
        write_ema(
            self.state, self.settings.out / "weights" / f"step-{self.state.step:08d}.safetensors"
        )
