"""StreamTracker: frames in, masks of many targets out. The only part that keeps state."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.bank import Entry, MemoryBank
from sam2s_model.batch import MaskPrompts, mask_prompts, memory_batch, prompt_batch
from sam2s_model.config import MemorySettings, TrackSettings
from sam2s_model.errors import Sam2sError
from sam2s_model.exclusion import apart, contested, lead_of
from sam2s_model.model import Decoded, Features, Sam2s
from sam2s_model.prepared import PreparedFrame
from sam2s_model.prompt import Prompt, PromptError, drawn_before
from sam2s_model.result import FrameResult, TargetResult, TrackState
from sam2s_model.runtime.base import Runtime, RuntimeUnavailableError
from sam2s_model.runtime.eager import shrink
from sam2s_model.runtime.onnx_graph import OnnxOptions
from sam2s_model.runtime.selection import make_runtime
from sam2s_model.target import Target
from sam2s_model.textbank import TextBank
from sam2s_model.threads import torch_threads

SNAPSHOT_FORMAT = "sam2s tracker"
SNAPSHOT_VERSION = 1
SNAPSHOT_PARTS = (
    "version",
    "preset",
    "weights",
    "config",
    "memory",
    "labels",
    "frame",
    "source_size",
    "targets",
    "pending",
)


class FrameError(Sam2sError):
    """A frame that is not uint8 HxWx3."""


class EmptyFrameError(FrameError):
    """A frame without pixels."""


class UnknownTargetError(Sam2sError):
    """A target name that the tracker does not know."""


class TargetNameError(Sam2sError):
    """A name that is not a non-empty text."""


class TooManyTargetsError(Sam2sError):
    """More targets than the tracker was made for."""


class BranchError(Sam2sError):
    """A target of a branch that has not been brought up to the tracker's own frame."""


class SnapshotError(Sam2sError):
    """A snapshot of another preset, version or setting, or no snapshot at all."""


class StreamTracker:
    """Tracks targets through a stream of frames.

    Args:
        model: the network, or the folder of its exported graphs with runtime "onnx".
        memory: a memory policy's name for its defaults, or settings of one's own.
        runtime: who executes the network: "torch", "onnx", or a runtime that is ready, which
            trackers may share.
        device: where torch runs it, for example "cpu" or "cuda".
        precision: of torch: "fp32", or "bf16" for autocast where the device is fast in it.
        provider: where ONNX Runtime runs it: "cpu", "cuda" or "tensorrt".
        allow_fallback: whether ONNX Runtime may run on the CPU where the provider is missing.
        onnx: how ONNX Runtime works, if not by its defaults.
        text_bank: names and embeddings for classes, or a file of them, if not the bank that came
            with the weights. Without any, or with weights that lack TSL's tensors, every class is
            `unknown`.
        track: thresholds of the track states and of class smoothing, and whether targets may
            share pixels.
        max_targets: how many targets may be tracked at once.
    """

    def __init__(
        self,
        model: Sam2s | str | PathLike[str],
        memory: str | MemorySettings = "divemem",
        *,
        runtime: str | Runtime = "torch",
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        provider: str = "cpu",
        allow_fallback: bool = False,
        onnx: OnnxOptions | None = None,
        text_bank: TextBank | str | PathLike[str] | None = None,
        track: TrackSettings | None = None,
        max_targets: int = 16,
    ) -> None:
        if max_targets < 1:
            raise TooManyTargetsError(f"max_targets is {max_targets}; it must be at least 1")
        self.memory = (
            memory if isinstance(memory, MemorySettings) else MemorySettings.for_policy(memory)
        )
        self.track = track or TrackSettings()
        self.max_targets = max_targets
        self.runtime: Runtime = make_runtime(
            model,
            runtime,
            device=device,
            precision=precision,
            provider=provider,
            allow_fallback=allow_fallback,
            onnx=onnx,
            max_targets=max_targets,
        )
        self.runtime.check_memory(self.memory)
        self.config = self.runtime.config
        self._labels, self._text = self._class_embeddings(text_bank or self.runtime.text_bank)
        self.runtime.semantics = bool(self._labels)
        self._weights = self.runtime.fingerprint
        self.reset()

    # --- targets --------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, those included that begin with the next frame."""
        return (*self._targets, *(name for name in self._pending if name not in self._targets))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that targets are told apart by; empty without a text bank."""
        return self._labels

    @property
    def frame(self) -> int:
        """The number of the next frame."""
        return self._frame

    def memory_entries(self, name: str) -> int:
        """How many frames a target's memory holds; 0 for one that begins with the next frame."""
        if name not in self.targets:
            raise UnknownTargetError(_unknown_target(name, self.targets))
        target = self._targets.get(name)
        return 0 if target is None else len(target.bank.filled(target.bank.shown))

    def add_target(self, name: str, prompt: Prompt, size: tuple[int, int] | None = None) -> None:
        """Mark a target on the next frame; a known name is corrected there.

        A prompt that does not fit the last frame's size is refused here, and one that turns out
        not to fit the next frame is refused by `step`; both leave the tracker as it was.

        Args:
            name: the target's name.
            prompt: what marks it.
            size: width and height of the next frame, if they differ from the last one's.
        """
        if not isinstance(name, str) or not name:
            raise TargetNameError(f"a target's name must be a non-empty text, not {name!r}")
        if not isinstance(prompt, Prompt):
            raise PromptError(
                f"a target is marked by a Prompt(…), not by a {type(prompt).__name__}"
            )
        if name not in self.targets and len(self.targets) >= self.max_targets:
            raise TooManyTargetsError(
                f"'{name}' would be target {len(self.targets) + 1} of at most {self.max_targets}: "
                "remove a target first, or make the tracker with a larger max_targets"
            )
        if size is None and self._source_size is not None:
            size = (self._source_size[1], self._source_size[0])
        if size is not None:
            prompt.check(*size, first=name not in self._targets)
        self._pending[name] = prompt

    def withdraw_prompt(self, name: str) -> None:
        """Take back a prompt that waits for the next frame, if there is one."""
        self._pending.pop(name, None)

    def remove_target(self, name: str) -> None:
        """Forget a target and its memory."""
        if name not in self.targets:
            raise UnknownTargetError(_unknown_target(name, self.targets))
        self._targets.pop(name, None)
        self._pending.pop(name, None)

    def reset(self) -> None:
        """Forget all targets and begin counting frames anew."""
        self._targets: dict[str, Target] = {}
        self._pending: dict[str, Prompt] = {}
        self._frame = 0
        self._source_size: tuple[int, int] | None = None  # height, width of the last frame

    # --- tracking -------------------------------------------------------------------------

    def prepare(self, frame: NDArray[np.uint8], *, encode: bool = True) -> PreparedFrame:
        """Do for `step` what needs no target: shrink the frame and, if any is known, encode it.

        Another thread may do this for the next frame while `step` is at work on this one. Runtime
        "onnx" on a CPU gains by that with `OnnxOptions(overlap=True)`.

        Args:
            frame: uint8 HxWx3 RGB of any size.
            encode: whether to encode it; else `step` does.
        """
        height, width = _checked_frame(frame)
        clock = _Clock()
        features = None
        with torch_threads(self.runtime.torch_threads), self.runtime.lane():
            with clock.stage("shrink"):
                small = shrink(frame, self.config.image_size)
            if encode and (self._targets or self._pending):
                with clock.stage("encode_image"):
                    features = self.runtime.encode_image(small)
        return PreparedFrame(
            small, height, width, features, self.runtime, clock.start, clock.stages
        )

    def step(
        self,
        frame: NDArray[np.uint8] | PreparedFrame,
        source_size: tuple[int, int] | None = None,
    ) -> FrameResult:
        """Track all targets on the next frame: uint8 HxWx3 RGB of any size, or a prepared one.

        Of a picture that `prepare` has made small, `source_size` is the height and width of the
        original: prompts are understood in its pixels, and masks have its size.
        """
        prepared = frame if isinstance(frame, PreparedFrame) else None
        picture = frame.small if isinstance(frame, PreparedFrame) else frame
        if prepared is None:
            given = _checked_frame(picture)
            height, width = source_size or given
        elif prepared.runtime is self.runtime:
            height, width = prepared.height, prepared.width
        else:
            raise FrameError("the frame was prepared by a tracker with another network")
        self._check_pending(width, height)
        clock = _Clock(prepared)
        self._source_size = (height, width)
        targets = {name: self._targets.get(name) or self._new(name) for name in self.targets}
        rows = list(targets.values())
        leads: list[Tensor | None] = []
        if rows:
            with torch_threads(self.runtime.torch_threads), self.runtime.lane():
                features = prepared.features if prepared else None
                if features is None:
                    with clock.stage("encode_image"):
                        features = self.runtime.encode_image(picture)
                decoded, leads = self._advance(features, rows, self._pending, clock)
        self._targets, self._pending = targets, {}
        results = {
            target.name: TargetResult(
                name=target.name,
                low_res_logits=decoded.logits[i, 0],
                source_size=(height, width),
                iou=float(decoded.iou[i]),
                object_score=float(decoded.object_score[i]),
                state=target.state,
                label=target.label(self._labels, self.track),
                label_scores=self._scores(target),
                lead_logits=leads[i],
                torch_threads=self.runtime.torch_threads,
            )
            for i, target in enumerate(rows)
        }
        number = self._frame
        self._frame += 1
        return FrameResult(number, results, clock.read())

    def _advance(
        self,
        features: Features,
        rows: list[Target],
        pending: Mapping[str, Prompt],
        clock: _Clock,
    ) -> tuple[Decoded, list[Tensor | None]]:
        """Run the stages after the encoder for all targets and renew what is kept of them.

        Returns:
            what was decoded, and TargetResult.lead_logits of each target.
        """
        prompts = [pending.get(target.name) for target in rows]
        begun = [target.begun for target in rows]
        with_memory = [
            i for i, (p, b) in enumerate(zip(prompts, begun, strict=True))
            if b and (p is None or p.mask is None)
        ]  # fmt: skip
        with clock.stage("attend_memory"):
            conditioned, classes = self._condition(features, rows, prompts, with_memory)
        with clock.stage("decode"):
            decoded = self._decode(features, conditioned, prompts, begun)
            kept, leads = self._tell_apart(decoded)
        with clock.stage("encode_memory"):
            self._remember(features, rows, prompts, kept)
        for i, probabilities in classes.items():
            if rows[i].state is TrackState.TRACKING:
                rows[i].update_label(probabilities, self.track)
        return decoded, leads

    def _tell_apart(self, decoded: Decoded) -> tuple[Decoded, list[Tensor | None]]:
        """Take from each target, where settings say so, what another is more certain of.

        Returns:
            what is to be remembered, and TargetResult.lead_logits of each target.
        """
        count = len(decoded.logits)
        if not self.track.exclusive or count < 2:
            return decoded, [None] * count
        lead = lead_of(decoded.logits)
        kept = decoded._replace(logits=apart(decoded.logits, lead))
        meets = contested(decoded.logits, lead)
        return kept, [lead[i, 0] if meets[i] else None for i in range(count)]

    def _condition(
        self,
        features: Features,
        rows: list[Target],
        prompts: list[Prompt | None],
        with_memory: list[int],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Condition the features on each target's memory, and read classes where there is one.

        A target that begins with points gets SAM 2's no-memory features, a mask prompt the bare
        ones.

        Returns:
            [N, C, h, w], and class probabilities [K] by row.
        """
        classes: dict[int, Tensor] = {}
        if with_memory:
            banks = [rows[i].bank for i in with_memory]
            memory = memory_batch(banks, self._frame, self.runtime.device)
            attended = self.runtime.attend_memory(features, memory)
            if self._labels:
                probabilities = self.runtime.class_probabilities(attended.semantics, self._text)
                classes = dict(zip(with_memory, probabilities, strict=True))
            if len(with_memory) == len(rows):
                return attended.features, classes
        parts = []
        for i, prompt in enumerate(prompts):
            if i in with_memory:
                row = with_memory.index(i)
                parts.append(attended.features[row : row + 1])
            elif prompt is not None and prompt.mask is not None:
                parts.append(features.coarse)
            else:
                parts.append(self.runtime.unconditioned(features))
        return torch.cat(parts), classes

    def _decode(
        self,
        features: Features,
        conditioned: Tensor,
        prompts: list[Prompt | None],
        begun: list[bool],
    ) -> Decoded:
        """Draw all masks in one pass, then some targets again over their mask.

        A corrected target is first drawn from memory alone. A new one's clicks come one by one,
        where the model's configuration says so.
        """
        turns = [
            [None, prompt]
            if prompt is not None and prompt.mask is None and begun[i]
            else self._in_turn(prompt)
            for i, prompt in enumerate(prompts)
        ]
        first = [turn[0] for turn in turns]
        assert self._source_size is not None
        height, width = self._source_size
        masks = mask_prompts(first, self.runtime)
        batch = prompt_batch(first, masks, width, height, self.runtime)
        drawn = self.runtime.decode(features, conditioned, batch)
        if masks is not None:
            certain = torch.ones_like(drawn.iou)
            drawn = drawn._replace(
                logits=torch.where(masks.given[:, None, None, None], masks.output, drawn.logits),
                iou=torch.where(masks.given, certain, drawn.iou),
                object_score=torch.where(masks.given, 10.0 * certain, drawn.object_score),
            )
        for turn in range(1, max(len(mine) for mine in turns)):
            which = [i for i, mine in enumerate(turns) if len(mine) > turn]
            before = drawn_before(drawn.logits[which], self.runtime.config.prompt_mask_size)
            given = torch.ones(len(which), dtype=torch.bool, device=before.device)
            over = MaskPrompts(before, before, given)
            again = [turns[i][turn] for i in which]
            batch = prompt_batch(again, over, width, height, self.runtime)
            redrawn = self.runtime.decode(features, conditioned[which], batch)
            merged = [part.clone() for part in drawn]
            for part, renewed in zip(merged, redrawn, strict=True):
                part[which] = renewed
            drawn = Decoded(*merged)
        return drawn

    def _in_turn(self, prompt: Prompt | None) -> Sequence[Prompt | None]:
        if prompt is None or not self.runtime.config.clicks_in_turn:
            return [prompt]
        return prompt.in_turn()

    def _remember(
        self,
        features: Features,
        rows: list[Target],
        prompts: list[Prompt | None],
        decoded: Decoded,
    ) -> None:
        """Renew states, and write the frame to the memory of each target that is in it."""
        scores, ious = decoded.object_score.tolist(), decoded.iou.tolist()
        presence = decoded.object_score.sigmoid().tolist()
        present = [
            s > 0 and p >= self.track.presence_low for s, p in zip(scores, presence, strict=True)
        ]
        first = [
            prompt is not None and not target.begun
            for prompt, target in zip(prompts, rows, strict=True)
        ]
        for i, target in enumerate(rows):
            if prompts[i] is not None:
                target.state = TrackState.TRACKING
            target.update_state(presence[i], ious[i], self.track)
        written = [
            i for i in range(len(rows))
            if present[i] or first[i] or self.memory.write_absent
        ]  # fmt: skip
        if not written:
            return
        binary = torch.tensor([prompts[i] is not None for i in written], device=self.runtime.device)
        everyone = len(written) == len(rows)
        spatial = self.runtime.encode_memory(
            features,
            decoded.logits if everyone else decoded.logits[written],
            decoded.object_score if everyone else decoded.object_score[written],
            binary,
        )
        for row, i in enumerate(written):
            bank = rows[i].bank
            rated = ious[i] if present[i] else 0.0  # an empty mask is no long-term candidate
            entry = Entry(self._frame, spatial[row], decoded.pointer[i], rated)
            corrected = prompts[i] is not None and self.memory.corrections_are_conditional
            if first[i] or corrected:
                bank.write_conditional(entry)
            else:
                bank.write(entry)

    # --- the past -------------------------------------------------------------------------

    def branch(self, frame: int, name: str | None = None) -> StreamTracker:
        """Make a tracker with the same network and settings that goes on from an earlier frame.

        Args:
            frame: number of the frame that the branch steps first.
            name: a target to begin with, as far as it was remembered before that frame. What was
                remembered of it since is forgotten, for there it will be tracked anew.
        """
        other = copy.copy(self)
        other.reset()
        other._frame = frame
        if name is not None and name in self._targets:
            target = self._new(name)
            target.load_state_dict(self._targets[name].state_dict())
            target.bank.forget_from(frame)
            other._targets[name] = target
        return other

    def skip_to(self, frame: int) -> None:
        """Leave frames out that this tracker will not see; `frame` is the number of the next."""
        if frame < self._frame:
            raise BranchError(f"this tracker is at frame {self._frame} and cannot go to {frame}")
        self._frame = frame

    def adopt(self, branch: StreamTracker, name: str) -> None:
        """Take a target over from a branch that has been brought up to this tracker's frame."""
        if name not in branch._targets:
            raise UnknownTargetError(_unknown_target(name, branch.targets))
        if branch._frame != self._frame:
            raise BranchError(
                f"the branch is at frame {branch._frame} and this tracker at {self._frame}: step "
                "the branch over the frames between them first"
            )
        if name not in self.targets and len(self.targets) >= self.max_targets:
            raise TooManyTargetsError(
                f"'{name}' would be target {len(self.targets) + 1} of at most {self.max_targets}: "
                "remove a target first"
            )
        self._targets[name] = branch._targets.pop(name)

    # --- classes --------------------------------------------------------------------------

    def _class_embeddings(
        self, bank: TextBank | str | PathLike[str] | None
    ) -> tuple[tuple[str, ...], Tensor]:
        """The instruments of a text bank and their embeddings [K, D]; none without semantics."""
        if bank is None or not self.runtime.semantics:
            return (), torch.zeros(0, self.config.semantic_dim)
        if not isinstance(bank, TextBank):
            bank = TextBank.load(bank)
        instruments = bank.instruments()
        if instruments.dim != self.config.semantic_dim:
            raise RuntimeUnavailableError(
                f"the text bank of encoder '{bank.encoder}' has {instruments.dim} dimensions, but "
                f"the weights name classes in {self.config.semantic_dim}: use the bank that the "
                "weights were trained with"
            )
        text = torch.from_numpy(np.array(instruments.embeddings, np.float32))
        return instruments.names, text.to(self.runtime.device)

    def _scores(self, target: Target) -> dict[str, float]:
        if not target.label_scores.any():
            return {}
        return dict(zip(self._labels, target.label_scores.tolist(), strict=True))

    # --- snapshots ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """A snapshot of all targets from which tracking goes on exactly.

        It holds tensors and plain values only, so `torch.save` writes it and
        `torch.load(…, weights_only=True)` reads it.
        """
        return {
            "format": SNAPSHOT_FORMAT,
            "version": SNAPSHOT_VERSION,
            "preset": self.config.name,
            "weights": self._weights,
            "config": _plain(dataclasses.asdict(self.config)),
            "memory": dataclasses.asdict(self.memory),
            "labels": list(self._labels),
            "frame": self._frame,
            "source_size": None if self._source_size is None else list(self._source_size),
            "targets": {name: target.state_dict() for name, target in self._targets.items()},
            "pending": {name: _prompt_state(prompt) for name, prompt in self._pending.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a snapshot; one that does not fit is refused and changes nothing."""
        self._check_snapshot(state)
        targets = {}
        for name, kept in state["targets"].items():
            target = self._new(name)
            target.load_state_dict(kept)
            targets[name] = target
        pending = {name: _prompt_of(kept) for name, kept in state["pending"].items()}
        self._targets = targets
        self._pending = pending
        self._frame = state["frame"]
        size = state["source_size"]
        self._source_size = None if size is None else (size[0], size[1])

    def _check_snapshot(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or state.get("format") != SNAPSHOT_FORMAT:
            raise SnapshotError(
                "this is no tracker snapshot; give what StreamTracker.state_dict() returned"
            )
        missing = [part for part in SNAPSHOT_PARTS if part not in state]
        if missing and state.get("version") in (None, SNAPSHOT_VERSION):
            raise SnapshotError(
                f"the snapshot is incomplete: it lacks {', '.join(missing)}; give all that "
                "StreamTracker.state_dict() returned"
            )
        pairs = [
            ("format version", state["version"], SNAPSHOT_VERSION),
            ("preset", state["preset"], self.config.name),
        ]
        ours = _plain(dataclasses.asdict(self.config))
        pairs += [(key, state["config"].get(key), value) for key, value in ours.items()]
        settings = dataclasses.asdict(self.memory)
        pairs += [
            (f"memory setting {key}", state["memory"].get(key), value)
            for key, value in settings.items()
        ]
        pairs.append(("class names", state["labels"], list(self._labels)))
        pairs.append(("weights", state["weights"], self._weights))
        for what, theirs, own in pairs:
            if theirs != own:
                raise SnapshotError(
                    f"the snapshot was made with {what} {theirs!r}, but this tracker has "
                    f"{own!r}: load it in a tracker made with {theirs!r}"
                )
        count = len({*state["targets"], *state["pending"]})
        if count > self.max_targets:
            raise TooManyTargetsError(
                f"the snapshot holds {count} targets, but this tracker takes at most "
                f"{self.max_targets}: make it with a larger max_targets"
            )

    # --- helpers --------------------------------------------------------------------------

    def _new(self, name: str) -> Target:
        bank = MemoryBank(self.config, self.memory, self.runtime.device)
        return Target(name, bank, len(self._labels))

    def _check_pending(self, width: int, height: int) -> None:
        """Refuse waiting prompts that do not fit this frame; the frame can be stepped again."""
        for name, prompt in list(self._pending.items()):
            try:
                prompt.check(width, height, first=name not in self._targets)
            except PromptError as error:
                del self._pending[name]
                raise type(error)(f"the prompt for '{name}' was dropped: {error}") from error


class _Clock:
    """Milliseconds per stage of one step, those of the frame's preparation included."""

    def __init__(self, prepared: PreparedFrame | None = None) -> None:
        self.start = time.perf_counter()
        self.before = prepared.elapsed if prepared else 0.0
        self.stages: dict[str, float] = dict(prepared.timings) if prepared else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.stages[name] = (time.perf_counter() - begin) * 1e3

    def read(self) -> dict[str, float]:
        own = (time.perf_counter() - self.start) * 1e3
        return {**self.stages, "total": self.before + own}


def _checked_frame(frame: object) -> tuple[int, int]:
    if not isinstance(frame, np.ndarray):
        raise FrameError(
            f"a frame must be a numpy array uint8 HxWx3 RGB, not {type(frame).__name__}"
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise FrameError(
            f"a frame must be uint8 HxWx3 RGB, not {frame.dtype} of shape {frame.shape}; convert "
            "it, for example (255 * frame).astype(np.uint8) from floats in 0..1"
        )
    if frame.size == 0:
        raise EmptyFrameError(f"the frame of shape {frame.shape} has no pixels")
    return frame.shape[0], frame.shape[1]


def _unknown_target(name: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"there is no target '{name}', nor any other; add_target makes one"
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"there is no target '{name}'.{hint} Targets: {', '.join(known)}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, so that a value reads back from any file format as it was."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _prompt_of(state: dict[str, Any]) -> Prompt:
    return Prompt(
        **{key: None if value is None else value.cpu().numpy() for key, value in state.items()}
    )


def _prompt_state(prompt: Prompt) -> dict[str, Any]:
    fields = {"points": prompt.points, "labels": prompt.labels}
    fields |= {"box": prompt.box, "mask": prompt.mask}
    return {
        key: None if value is None else torch.from_numpy(np.array(value))
        for key, value in fields.items()
    }
