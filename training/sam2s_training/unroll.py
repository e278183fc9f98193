"""The differentiable pass of a clip: prompts, memory and corrections as at run time.

All clips of a batch advance frame by frame together; their targets are rows of one batch. What the
tracker does with a bank of slots is done here with one entry per frame and masks of who has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sam2s_model.decoder import Masks
from sam2s_model.errors import Sam2sError
from sam2s_model.exclusion import apart, rival_of
from sam2s_model.model import Decoded, Features, MemoryBatch, PromptBatch, Sam2s
from sam2s_model.prompt import ABSENT, drawn_before
from sam2s_model.runtime.eager import DEVIATION, MEAN
from sam2s_training import losses, prompts
from sam2s_training.data.clip import Clip
from sam2s_training.losses import LossSettings
from sam2s_training.prompts import Dice, PromptSettings

CERTAIN = 10.0  # object score of a frame whose mask was given
NOBODY = -1e4  # logit of a rival that there is not; finite, to be interpolated


class UnrollError(Sam2sError):
    """Clips that cannot make a batch, or settings that cannot work."""


@dataclass(frozen=True)
class UnrollSettings:
    """How a clip is passed through the model."""

    # Who says that a target is in the frame when memory is written: the truth, while the object
    # score is still being learned, or the model itself, as at run time.
    presence: Literal["truth", "prediction"] = "prediction"
    checkpoint: bool = False  # compute encoder and attention again in the backward pass
    # Whether the targets of a clip share no pixel, as in the tracker's setting of that name: a
    # target remembers, and is compared by its outline with, what no other is more certain of.
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.presence not in ("truth", "prediction"):
            raise UnrollError(f"presence is '{self.presence}'; it must be 'truth' or 'prediction'")


class UnrollOutput(NamedTuple):
    """What a batch of clips gave."""

    loss: Tensor  # scalar with gradient: the mean over clips
    parts: dict[str, Tensor]  # scalars without gradient: each loss unweighted, and how well it went
    logits: Tensor  # [N, T, s, s] chosen masks of all targets, clip after clip, for pictures


@dataclass
class _Rows:
    """The targets of all clips as rows of one batch."""

    clip: Tensor  # [N] long: which clip each belongs to
    classes: Tensor  # [N] long
    truth: Tensor  # [N, T, S, S] bool
    visible: Tensor  # [N, T] bool
    begin: list[int]  # frame of the first prompt; T: never
    kind: list[str]  # what that prompt is
    dice: list[Dice]  # its clip's


@dataclass
class _Written:
    """What one frame left in the memories; rows that wrote nothing hold zeros."""

    spatial: Tensor  # [N, HWm, Cm]
    pointer: Tensor  # [N, C]
    there: Tensor  # [N] bool
    conditional: Tensor  # [N] bool


class _Ledger:
    """Adds up losses per clip and kind, so that every clip counts the same."""

    def __init__(self, clips: int, device: torch.device) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.clips, self.device = clips, device

    def add(self, name: str, values: Tensor, counted: Tensor, clip: Tensor) -> None:
        """Add values [n] of rows of the given clips [n], where `counted` [n] says so."""
        weight = counted.to(values)
        if name not in self.sums:
            self.sums[name] = torch.zeros(self.clips, device=self.device)
            self.counts[name] = torch.zeros(self.clips, device=self.device)
        # What is not counted may be infinite, and infinity times zero is no number.
        kept = torch.where(counted, values, torch.zeros_like(values)).float()
        self.sums[name] = self.sums[name].index_add(0, clip, kept)
        self.counts[name] = self.counts[name].index_add(0, clip, weight.float())

    def mean(self, name: str) -> Tensor:
        """The mean over clips of each clip's mean; a clip without any counts as zero."""
        if name not in self.sums:
            return torch.zeros((), device=self.device)
        return (self.sums[name] / self.counts[name].clamp_min(1)).mean()

    def average(self, name: str) -> Tensor:
        """The mean over all that was counted; no number if nothing was."""
        if name not in self.sums:
            return torch.full((), float("nan"), device=self.device)
        return (self.sums[name].sum() / self.counts[name].sum()).detach()


class Unroll(nn.Module):
    """Passes clips through a model and gives the losses.

    Args:
        model: the network, trained in place.
        loss: weights and kinds of losses.
        prompt: how targets are marked and corrected.
        unroll: how clips are passed through.
        text: [K, D] embeddings of the instruments, or None to leave TSL out.
    """

    text: Tensor | None

    def __init__(
        self,
        model: Sam2s,
        loss: LossSettings | None = None,
        prompt: PromptSettings | None = None,
        unroll: UnrollSettings | None = None,
        text: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss or LossSettings()
        self.prompt = prompt or PromptSettings()
        self.settings = unroll or UnrollSettings()
        self.register_buffer("text", text, persistent=False)

    def forward(self, clips: Sequence[Clip], seeds: Sequence[int]) -> UnrollOutput:
        """Pass a batch of clips; `seeds` are their sources of chance, one each."""
        frames, device = _checked(clips, self.model), clips[0].images.device
        rows = self._rows(clips, seeds)
        fixed = [
            prompts.frames_to_correct(self.prompt, frames, dice) for dice in _dice(rows, clips)
        ]
        features = self._encode(clips)
        ledger = _Ledger(len(clips), device)
        if self.loss.grouping > 0:
            self._learn_grouping(ledger, features, clips)
        if self.loss.naming > 0:
            self._learn_naming(ledger, features, rows)
        memory: list[_Written] = []
        drawn = torch.zeros(
            len(rows.kind), frames, *(self.model.config.mask_size,) * 2, device=device
        )
        for t in range(frames):
            tracked = [n for n, begin in enumerate(rows.begin) if begin < t]
            starting = [n for n, begin in enumerate(rows.begin) if begin == t]
            if not tracked and not starting:
                memory.append(self._nothing(rows, device))
                continue
            active = torch.tensor(tracked + starting, device=device)
            seen = Features(*(level[rows.clip[active], t] for level in features))
            conditioned, vectors = self._condition(seen, rows, memory, clips, t, tracked, starting)
            corrected = [n for n in tracked if t in fixed[int(rows.clip[n])]]
            decoded, prompted = self._decode(
                seen, conditioned, vectors, rows, t, tracked, starting, corrected, ledger
            )
            drawn[active, t] = decoded.logits[:, 0].detach()
            if t + 1 < frames:
                memory.append(self._remember(seen, rows, active, decoded, prompted, starting, t))
        return self._output(ledger, drawn)

    # --- before the first frame -----------------------------------------------------------

    def _rows(self, clips: Sequence[Clip], seeds: Sequence[int]) -> _Rows:
        device = clips[0].images.device
        truth = torch.cat([clip.masks for clip in clips])
        visible = truth.flatten(2).any(2)
        owner = [i for i, clip in enumerate(clips) for _ in range(len(clip.masks))]
        dice = [Dice(seed) for seed in seeds]
        begin, kind = [], []
        for n, there in enumerate(visible.tolist()):
            begin.append(prompts.first_frame(there, self.prompt, dice[owner[n]]))
            kind.append(prompts.kind_of_prompt(self.prompt, dice[owner[n]]))
        return _Rows(
            clip=torch.tensor(owner, device=device),
            classes=torch.cat([clip.classes for clip in clips]),
            truth=truth,
            visible=visible,
            begin=begin,
            kind=kind,
            dice=[dice[i] for i in owner],
        )

    def _encode(self, clips: Sequence[Clip]) -> Features:
        """Encode all frames of all clips in one pass: maps [B, T, ...]."""
        images = torch.stack([clip.images for clip in clips])
        mean = torch.tensor(MEAN, device=images.device)[:, None, None]
        deviation = torch.tensor(DEVIATION, device=images.device)[:, None, None]
        scaled = (images.flatten(0, 1).float() / 255.0 - mean) / deviation
        features: Features = self._maybe_again(self.model.encode_image, scaled)
        shape = images.shape[:2]
        return Features(*(level.reshape(*shape, *level.shape[1:]) for level in features))

    def _maybe_again(self, stage: Callable[..., Any], *args: Any) -> Any:
        if self.settings.checkpoint and torch.is_grad_enabled():
            return checkpoint(stage, *args, use_reentrant=False)
        return stage(*args)

    # --- memory -----------------------------------------------------------------------------

    def _nothing(self, rows: _Rows, device: torch.device) -> _Written:
        config, count = self.model.config, len(rows.kind)
        none = torch.zeros(count, dtype=torch.bool, device=device)
        return _Written(
            torch.zeros(count, config.memory_size**2, config.memory_dim, device=device),
            torch.zeros(count, config.hidden_dim, device=device),
            none,
            none,
        )

    def _condition(
        self,
        seen: Features,
        rows: _Rows,
        memory: Sequence[_Written],
        clips: Sequence[Clip],
        t: int,
        tracked: list[int],
        starting: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Features as each row's memory sees them, tracked rows first, and class vectors."""
        parts = []
        vectors = seen.coarse.new_zeros(0, 0)
        if tracked:
            batch = self._memory_batch(rows, memory, clips, t, tracked)
            own = Features(*(level[: len(tracked)] for level in seen))
            wanted = self.text is not None and self.loss.semantic > 0
            attended = self._maybe_again(self.model.attend_memory, own, batch, wanted)
            parts.append(attended.features)
            vectors = attended.semantics
        if starting:
            bare = seen.coarse[len(tracked) :]
            with_none = bare + self.model.no_mem_embed.flatten()[None, :, None, None]
            given = self._is_mask(rows, starting, bare.device)[:, None, None, None]
            parts.append(torch.where(given, bare, with_none))
        return torch.cat(parts), vectors

    def _memory_batch(
        self,
        rows: _Rows,
        memory: Sequence[_Written],
        clips: Sequence[Clip],
        t: int,
        tracked: list[int],
    ) -> MemoryBatch:
        """The memories that rows see on frame t, in roles as the bank gives them."""
        config, device = self.model.config, rows.clip.device
        index = torch.tensor(tracked, device=device)
        owners = [int(clip) for clip in rows.clip[index]]
        newer = torch.zeros(len(tracked), dtype=torch.long, device=device)
        role, shown = [], []
        for s in reversed(range(t)):
            there, conditional = memory[s].there[index], memory[s].conditional[index]
            long = torch.tensor([0 < s <= clips[o].long for o in owners], device=device)
            recent = there & ~conditional & ~long
            place = torch.where(long, config.num_recent + 1, newer)
            role.append(torch.where(conditional, config.num_recent, place))
            shown.append(there & (~recent | (newer < config.num_recent)))
            newer = newer + recent.long()
        ages = [[abs(clips[o].numbers[t] - clips[o].numbers[s]) for s in range(t)] for o in owners]
        there = torch.stack(shown[::-1], dim=1)
        return MemoryBatch(
            spatial=torch.stack([m.spatial[index] for m in memory[:t]], dim=1),
            role=torch.stack(role[::-1], dim=1).clamp_max(config.num_recent + 1),
            pointers=torch.stack([m.pointer[index] for m in memory[:t]], dim=1),
            distance=torch.tensor(ages, dtype=torch.float32, device=device),
            seen=torch.cat((there, there), dim=1),
        )

    def _remember(
        self,
        seen: Features,
        rows: _Rows,
        active: Tensor,
        decoded: Decoded,
        prompted: Tensor,
        starting: list[int],
        t: int,
    ) -> _Written:
        logits = decoded.logits
        rivals = self._rivals(rows, active, logits)
        if rivals is not None:
            logits = apart(logits, logits - rivals)
        spatial = self.model.encode_memory(seen, logits, decoded.object_score, prompted)
        written = self._nothing(rows, active.device)
        first = torch.zeros(len(active), dtype=torch.bool, device=active.device)
        first[len(active) - len(starting) :] = True
        there = first | (decoded.object_score.detach() > 0)
        return _Written(
            written.spatial.index_copy(0, active, spatial),
            written.pointer.index_copy(0, active, decoded.pointer.float()),
            written.there.index_copy(0, active, there),
            written.conditional.index_copy(0, active, there & prompted),
        )

    # --- masks ------------------------------------------------------------------------------

    def _is_mask(self, rows: _Rows, which: Sequence[int], device: torch.device) -> Tensor:
        return torch.tensor(
            [rows.kind[n] == prompts.MASK for n in which], dtype=torch.bool, device=device
        )

    def _decode(
        self,
        seen: Features,
        conditioned: Tensor,
        vectors: Tensor,
        rows: _Rows,
        t: int,
        tracked: list[int],
        starting: list[int],
        corrected: list[int],
        ledger: _Ledger,
    ) -> tuple[Decoded, Tensor]:
        """Draw all rows, learn from them, and draw those again that get clicks.

        Returns:
            What the frame ended with, and whether a prompt made it [n].
        """
        device, order = conditioned.device, tracked + starting
        active = torch.tensor(order, device=device)
        truth, visible = rows.truth[active, t], rows.visible[active, t]
        points, labels, given = self._first_prompts(rows, t, tracked, starting)
        tokens = self._prompt_batch(points, labels, None, None, device)
        output = None
        if bool(given.any()):
            output, logits = self.model.mask_to_logits(truth[:, None].float())
            tokens = self._prompt_batch(points, labels, logits, given, device)
        masks = self.model.draw(seen, conditioned, tokens)
        drawn = self._choose(masks, tokens.ambiguous & ~given, visible)
        rivals = self._rivals(rows, active, drawn.logits)
        self._learn(
            ledger, masks, drawn, tokens.ambiguous, truth, visible, ~given, rows.clip[active],
            rivals,
        )  # fmt: skip
        if len(vectors):
            self._learn_class(ledger, vectors, drawn, rows, active[: len(tracked)])
        if output is not None:
            sure = torch.ones_like(drawn.iou)
            drawn = drawn._replace(
                logits=torch.where(given[:, None, None, None], output, drawn.logits),
                iou=torch.where(given, sure, drawn.iou),
                object_score=torch.where(given, CERTAIN * sure, drawn.object_score),
            )
        prompted = torch.zeros(len(order), dtype=torch.bool, device=device)
        prompted[len(tracked) :] = True
        again = {i: 1 for i, n in enumerate(order[: len(tracked)]) if n in corrected}
        for i, n in enumerate(starting, start=len(tracked)):
            dice = rows.dice[n]
            if rows.kind[n] != prompts.MASK and dice.chance(self.prompt.more_clicks):
                again[i] = dice.python.randint(1, max(1, self.prompt.max_clicks))
        for turn in range(max(again.values(), default=0)):
            which = [i for i, times in again.items() if times > turn]
            drawn, prompted = self._draw_again(
                seen, conditioned, drawn, prompted, rows, t, active, which, points, labels, ledger,
                len(tracked),
            )  # fmt: skip
        return drawn, prompted

    def _first_prompts(
        self, rows: _Rows, t: int, tracked: list[int], starting: list[int]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Points and labels of each row, and who is given a mask; tracked rows have nothing."""
        device = rows.clip.device
        none, no_label = torch.zeros(0, 2, device=device), torch.zeros(0, device=device).long()
        points, labels = [none] * len(tracked), [no_label] * len(tracked)
        if starting:
            truth = rows.truth[torch.tensor(starting, device=device), t]
            dice = [rows.dice[n] for n in starting]
            clicked = prompts.clicks(truth, self.prompt, dice)
            boxed = prompts.boxes(truth, self.prompt, dice)
        for i, n in enumerate(starting):
            kind = rows.kind[n]
            if kind == prompts.CLICK:
                points.append(clicked[i : i + 1])
                labels.append(torch.ones(1, dtype=torch.long, device=device))
            elif kind == prompts.BOX:
                points.append(boxed[i])
                labels.append(prompts.box_labels(device))
            else:
                points.append(none)
                labels.append(no_label)
        given = self._is_mask(rows, starting, device)
        return points, labels, torch.cat((given.new_zeros(len(tracked)), given))

    def _prompt_batch(
        self,
        points: Sequence[Tensor],
        labels: Sequence[Tensor],
        logits: Tensor | None,
        given: Tensor | None,
        device: torch.device,
    ) -> PromptBatch:
        xy, kinds = prompts.point_tokens(points, labels, ABSENT, device)
        few = torch.tensor([len(kind) <= 1 for kind in labels], device=device)
        if given is None:
            given = torch.zeros_like(few)
        return PromptBatch(xy, kinds, logits, given, few)

    def _choose(self, masks: Masks, ambiguous: Tensor, visible: Tensor) -> Decoded:
        """Keep one mask of each, told by the truth or by the model whether it is there."""
        if self.settings.presence == "truth":
            told = torch.where(visible, CERTAIN, -CERTAIN).to(masks.object_score)
            masks = masks._replace(object_score=told)
        return self.model.choose(masks, ambiguous)

    def _rivals(self, rows: _Rows, active: Tensor, logits: Tensor) -> Tensor | None:
        """The most certain other target of each row's clip; lower than all where there is none."""
        if not self.settings.exclusive:
            return None
        rivals = torch.full_like(logits, NOBODY)
        clip = rows.clip[active]
        for owner in set(clip.tolist()):
            (which,) = torch.nonzero(clip == owner, as_tuple=True)
            if len(which) > 1:
                rivals = rivals.index_copy(0, which, rival_of(logits[which]))
        return rivals

    def _draw_again(
        self,
        seen: Features,
        conditioned: Tensor,
        drawn: Decoded,
        prompted: Tensor,
        rows: _Rows,
        t: int,
        active: Tensor,
        which: list[int],
        points: list[Tensor],
        labels: list[Tensor],
        ledger: _Ledger,
        tracked: int,
    ) -> tuple[Decoded, Tensor]:
        """Click where rows are wrong and draw them again.

        A tracked row is drawn over its first mask by the new click alone. A starting row is drawn
        from all its clicks, over the mask before in half of the cases.
        """
        device = conditioned.device
        index = torch.tensor(which, device=device)
        dice = [rows.dice[int(active[i])] for i in which]
        truth = rows.truth[active[index], t]
        logits = drawn.logits[index].detach()
        shown = _enlarged(logits, truth.shape[-1])
        xy, kind, wrong = prompts.corrections(truth, shown[:, 0] > 0, self.prompt, dice)
        keep = [j for j, there in enumerate(wrong.tolist()) if there]
        if not keep:
            return drawn, prompted
        which, index = [which[j] for j in keep], index[keep]
        for j, i in zip(keep, which, strict=True):
            points[i] = torch.cat((points[i], xy[j : j + 1]))
            labels[i] = torch.cat((labels[i], kind[j : j + 1]))
        over = [i < tracked or dice[j].chance(0.5) for j, i in zip(keep, which, strict=True)]
        tokens = self._prompt_batch(
            [points[i] for i in which],
            [labels[i] for i in which],
            drawn_before(logits[keep], self.model.config.prompt_mask_size),
            torch.tensor(over, device=device),
            device,
        )
        own = Features(*(level[index] for level in seen))
        masks = self.model.draw(own, conditioned[index], tokens)
        visible = rows.visible[active[index], t]
        redrawn = self._choose(masks, tokens.ambiguous, visible)
        all_count = torch.ones_like(visible)
        clip = rows.clip[active[index]]
        rivals = self._rivals(rows, active, drawn.logits.detach())
        self._learn(
            ledger, masks, redrawn, tokens.ambiguous, truth[keep], visible, all_count, clip,
            None if rivals is None else rivals[index],
        )  # fmt: skip
        merged = [
            part.index_copy(0, index, renewed.to(part))
            for part, renewed in zip(drawn, redrawn, strict=True)
        ]
        return Decoded(*merged), prompted.index_fill(0, index, True)

    # --- losses -----------------------------------------------------------------------------

    def _learn(
        self,
        ledger: _Ledger,
        masks: Masks,
        chosen: Decoded,
        ambiguous: Tensor,
        truth: Tensor,
        visible: Tensor,
        counted: Tensor,
        clip: Tensor,
        rivals: Tensor | None,
    ) -> None:
        """Compare drawn masks with the truth [n, S, S].

        Of an ambiguous row's three masks the best one learns the shape, and all three learn to
        rate themselves; of any other row, the single mask does both. With rivals, pixel by pixel
        each mask learns for itself, and as a whole by what the rivals leave of it.
        """
        target = truth.float()
        size = max(masks.logits.shape[-1], truth.shape[-1] * self.loss.scale // 4)
        if size != target.shape[-1]:
            target = F.adaptive_avg_pool2d(target[:, None], size)[:, 0]
        logits = masks.logits
        if size != logits.shape[-1]:
            logits = _enlarged(logits, size)
            rivals = None if rivals is None else _enlarged(rivals, size)
        kept_logits = logits if rivals is None else apart(logits, logits - rivals)
        weight, wanted = None, target
        if self.loss.ambiguity == "entropy":
            weight = losses.entropy_weight(logits, losses.border(target, self.loss.border_radius))
        elif self.loss.ambiguity == "gaussian":
            wanted = losses.soft_target(target, self.loss.border_sigma)
        every = wanted[:, None].expand_as(logits)
        focal = losses.focal_loss(logits, every, weight)
        dice = losses.dice_loss(kept_logits, every, weight)
        shape = self.loss.focal * focal + self.loss.dice * dice
        with torch.no_grad():
            best = shape[:, 1:].argmin(1) + 1
            learner = torch.where(ambiguous, best, torch.zeros_like(best))[:, None]
            true = losses.true_iou(kept_logits, target[:, None].expand_as(logits))
            rated = torch.zeros_like(true)
            rated[:, 0] = (~ambiguous).to(rated)
            rated[:, 1:] = ambiguous.to(rated)[:, None]
        rating = ((masks.iou - true).abs() * rated).sum(1) / rated.sum(1)
        drawn = counted & visible
        ledger.add("focal", focal.gather(1, learner)[:, 0], drawn, clip)
        ledger.add("dice", dice.gather(1, learner)[:, 0], drawn, clip)
        ledger.add("iou", rating, drawn, clip)
        presence = losses.presence_loss(masks.object_score, visible, self.loss.absent)
        ledger.add("presence", presence, counted, clip)
        with torch.no_grad():
            kept = torch.where(ambiguous, masks.iou[:, 1:].argmax(1) + 1, 0)[:, None]
            ledger.add("drawn_iou", true.gather(1, kept)[:, 0], drawn, clip)
            right = (masks.object_score > 0) == visible
            ledger.add("presence_right", right.float(), counted, clip)

    def _learn_class(
        self, ledger: _Ledger, vectors: Tensor, drawn: Decoded, rows: _Rows, tracked: Tensor
    ) -> None:
        """Compare class vectors with the names of instruments, where tracking is confident."""
        if self.text is None or not vectors.shape[1]:
            return
        classes, count = rows.classes[tracked], len(tracked)
        scale = self.model.semantic.log_scale
        loss = losses.semantic_loss(vectors, self.text, scale, classes)
        sure = losses.confident(drawn.iou[:count], drawn.object_score[:count], self.loss)
        if self.loss.unnamed > 0:
            even = losses.unnamed_loss(vectors, self.text, scale)
            ledger.add("unnamed", even, sure & (classes < 0), rows.clip[tracked])
        sure = sure & (classes >= 0)
        ledger.add("semantic", loss, sure, rows.clip[tracked])
        with torch.no_grad():
            right = (vectors.float() @ self.text.T).argmax(1) == classes
            ledger.add("class_right", right.float(), sure, rows.clip[tracked])

    def _learn_grouping(self, ledger: _Ledger, features: Features, clips: Sequence[Clip]) -> None:
        """Tell the targets of each clip apart by features alone, prompts and memory aside.

        A target's features must be alike over all its frames: memory finds it again by them.
        """
        side = features.fine_4.shape[-1]
        counted = torch.ones(1, dtype=torch.bool, device=features.coarse.device)
        for i, clip in enumerate(clips):
            levels = [
                F.normalize(F.interpolate(level[i], size=(side, side), mode="bilinear"), dim=1)
                for level in features
            ]
            # The frames one below the other, as one tall picture.
            places = torch.cat(levels, dim=1).transpose(0, 1).flatten(1, 2)
            shares = F.adaptive_avg_pool2d(clip.masks.float(), side).flatten(1, 2)
            loss = losses.grouping_loss(places, shares)
            owner = torch.full((1,), i, device=counted.device)
            ledger.add("grouping", loss[None], counted, owner)

    def _learn_naming(self, ledger: _Ledger, features: Features, rows: _Rows) -> None:
        """Name instruments by the features of the places that they fill, memory aside.

        Where `unnamed` counts, what else is there shall have no name.
        """
        if self.text is None:
            return
        side = self.model.config.feature_size
        shares = F.adaptive_avg_pool2d(rows.truth.float(), side).flatten(2)  # [N, T, HW]
        most = shares.amax(2, keepdim=True)
        taught = (rows.classes >= 0) | torch.tensor(self.loss.unnamed > 0, device=most.device)
        n, t = torch.nonzero((most[:, :, 0] > 0) & taught[:, None], as_tuple=True)
        if not len(n):
            return
        # A thin target fills no place wholly; the places that it fills most are its own.
        places = (shares >= 0.5 * most)[n, t]
        bare = features.coarse[rows.clip[n], t]
        frames = bare + self.model.no_mem_embed.flatten()[None, :, None, None]
        vectors, classes = self.model.semantic.at_places(frames, places), rows.classes[n]
        scale = self.model.semantic.log_scale
        counted = classes >= 0
        loss = losses.semantic_loss(vectors, self.text, scale, classes)
        ledger.add("naming", loss, counted, rows.clip[n])
        if self.loss.unnamed > 0:
            even = losses.unnamed_loss(vectors, self.text, scale)
            ledger.add("unnamed", even, ~counted, rows.clip[n])
        with torch.no_grad():
            right = (vectors.float() @ self.text.T).argmax(1) == classes
            ledger.add("name_right", right.float(), counted, rows.clip[n])

    def _output(self, ledger: _Ledger, drawn: Tensor) -> UnrollOutput:
        means = {name: ledger.mean(name) for name in losses.WEIGHTED}
        loss = sum(
            (getattr(self.loss, name) * mean for name, mean in means.items()),
            torch.zeros(()).to(drawn),
        )
        parts = {name: value.detach() for name, value in means.items()}
        for name in ("drawn_iou", "presence_right", "class_right", "name_right"):
            parts[name] = ledger.average(name)
        return UnrollOutput(loss, parts, drawn)


def _dice(rows: _Rows, clips: Sequence[Clip]) -> list[Dice]:
    """One source of chance per clip; a clip without targets has nothing to draw."""
    by_clip = dict(zip(rows.clip.tolist(), rows.dice, strict=True))
    return [by_clip.get(i) or Dice(0) for i in range(len(clips))]


def _enlarged(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


def _checked(clips: Sequence[Clip], model: Sam2s) -> int:
    """Refuse what cannot be one batch; give the number of frames."""
    if not clips:
        raise UnrollError("a batch needs at least one clip")
    size = model.config.image_size
    for clip in clips:
        if clip.images.shape != clips[0].images.shape:
            raise UnrollError(
                f"clips of one batch must be alike: {clip.name} is {tuple(clip.images.shape)}, "
                f"{clips[0].name} is {tuple(clips[0].images.shape)}"
            )
        if clip.images.shape[-1] != size:
            raise UnrollError(
                f"{clip.name} has frames of {clip.images.shape[-1]} pixels, but the model takes "
                f"{size}; set the data's size to the model's"
            )
        if len(clip.numbers) != len(clip.images):
            raise UnrollError(
                f"{clip.name} has {len(clip.images)} frames but {len(clip.numbers)} frame numbers"
            )
    if not any(len(clip.masks) for clip in clips):
        raise UnrollError("no clip of the batch has a target")
    return len(clips[0].images)
