"""The memory bank of one target and the policies that decide what it keeps and shows.

A bank is a fixed set of slots: tensors that are allocated once and written in place, and the
frame number that each slot holds. Policies are arithmetic on a bank; they keep no state of their
own. No function here runs a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2s_model.config import MemorySettings, ModelConfig

EMPTY = -1  # the frame number of a slot that holds nothing


class Entry(NamedTuple):
    """What is kept of one frame of one target."""

    frame: int  # number of the frame, counted by the tracker
    spatial: Tensor  # [HWm, Cm] spatial memory, of config.memory_size² cells
    pointer: Tensor  # [C] object pointer
    iou: float  # predicted IoU of the mask it was made from


class Reading(NamedTuple):
    """Which slots take part in memory attention, and as what."""

    slots: list[int]  # of MemoryBank.spatial
    roles: list[int]  # row of the model's temporal embedding, one per slot
    pointers: list[int]  # of MemoryBank.pointers
    distances: list[int]  # how many frames ago each pointer was made


@dataclass(frozen=True)
class Layout:
    """Where each group of entries lies in a bank's tensors."""

    conditional: range
    long: range
    recent: range  # a ring: the entry written last is at MemoryBank.newest
    candidate: int  # the best candidate for the long-term memory so far
    recent_pointers: range  # a ring too; reaches further back than the spatial memories

    @staticmethod
    def of(config: ModelConfig, settings: MemorySettings) -> Layout:
        """Lay out the slots that these settings need."""
        long = settings.max_long if settings.policy == "divemem" else 0
        first_recent = config.max_conditional + long
        candidate = first_recent + config.num_recent
        return Layout(
            conditional=range(config.max_conditional),
            long=range(config.max_conditional, first_recent),
            recent=range(first_recent, candidate),
            candidate=candidate,
            recent_pointers=range(candidate + 1, candidate + config.num_pointers),
        )


class MemoryBank:
    """One target's memory: conditional entries, long-term entries and the short-term window.

    Attributes:
        spatial: [slots, HWm, Cm] spatial memories, in the settings' storage type.
        pointers: [slots + num_pointers - 1, C] object pointers.
        frames: frame number of each slot of `pointers`; the first ones are those of `spatial`.
        newest: index into the ring of recent entries of the one written last; -1 before any.
        newest_pointer: the same for the ring of recent pointers.
        candidates: how many candidates the long-term filter has gathered since it last kept one.
        candidate_similarity: of the best candidate so far to the newest long-term entry.
    """

    def __init__(
        self,
        config: ModelConfig,
        settings: MemorySettings,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.settings = settings
        self.layout = Layout.of(config, settings)
        cells = config.memory_size**2
        slots = self.layout.candidate + 1
        pointers = self.layout.recent_pointers.stop
        dtype = torch.bfloat16 if settings.storage == "bfloat16" else torch.float32
        self.spatial = torch.zeros(slots, cells, config.memory_dim, dtype=dtype, device=device)
        self.pointers = torch.zeros(pointers, config.hidden_dim, device=device)
        self.frames = [EMPTY] * pointers
        self.newest = -1
        self.newest_pointer = -1
        self.candidates = 0
        self.candidate_similarity = 0.0
        self.policy = POLICIES[settings.policy]()

    # --- writing --------------------------------------------------------------------------

    def write_conditional(self, entry: Entry) -> None:
        """Keep a prompted frame. The first one stays for ever, then the newest ones."""
        slots = self.layout.conditional
        free = [slot for slot in slots if self.frames[slot] == EMPTY]
        oldest = min(slots[1:], key=lambda s: self.frames[s])
        self._put(free[0] if free else oldest, entry)

    def write(self, entry: Entry) -> None:
        """Keep a tracked frame in the short-term window and offer it to the policy."""
        self.newest = (self.newest + 1) % len(self.layout.recent)
        self._put(self.layout.recent[self.newest], entry)
        self.newest_pointer = (self.newest_pointer + 1) % len(self.layout.recent_pointers)
        slot = self.layout.recent_pointers[self.newest_pointer]
        self.pointers[slot] = entry.pointer
        self.frames[slot] = entry.frame
        self.policy.consider(self, entry)

    def _put(self, slot: int, entry: Entry) -> None:
        self.spatial[slot] = entry.spatial
        self.pointers[slot] = entry.pointer
        self.frames[slot] = entry.frame

    def copy_slot(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        self.spatial[target] = self.spatial[source]
        self.pointers[target] = self.pointers[source]
        self.frames[target] = self.frames[source]

    def forget_from(self, frame: int) -> None:
        """Forget the entries of this frame and of all later ones."""
        for slot, number in enumerate(self.frames):
            if number >= frame:
                self.frames[slot] = EMPTY
        self.newest = self._newest(self.layout.recent)
        self.newest_pointer = self._newest(self.layout.recent_pointers)
        if self.frames[self.layout.candidate] == EMPTY:
            self.candidates = 0
            self.candidate_similarity = 0.0

    def _newest(self, group: range) -> int:
        held = self.filled(group)
        return group.index(held[-1]) if held else -1

    # --- reading --------------------------------------------------------------------------

    def filled(self, group: range) -> list[int]:
        """The slots of a group that hold an entry, oldest entry first."""
        held = [slot for slot in group if self.frames[slot] != EMPTY]
        return sorted(held, key=lambda slot: self.frames[slot])

    @property
    def shown(self) -> range:
        """The slots of spatial memories that may be attended to."""
        return range(self.layout.candidate)

    def recent(self) -> list[int]:
        """The slots of the short-term window, newest entry first."""
        return self._ring(self.layout.recent, self.newest)

    def read(self, frame: int) -> Reading:
        """Choose what the targets' features on this frame attend to."""
        conditional = self.filled(self.layout.conditional)
        long = self.filled(self.layout.long)
        window = self.recent()
        age = {slot: rank for rank, slot in enumerate(window)}  # newest first: rank is the role
        shown = self.policy.select(self, window)
        role_conditional = self.config.num_recent
        role_long = role_conditional + 1
        pointers = [
            *conditional,
            *long,
            *self._ring(self.layout.recent_pointers, self.newest_pointer),
        ]
        return Reading(
            slots=[*conditional, *long, *shown],
            roles=[role_conditional] * len(conditional)
            + [role_long] * len(long)
            + [age[slot] for slot in shown],
            pointers=pointers,
            distances=[frame - self.frames[slot] for slot in pointers],
        )

    def _ring(self, group: range, newest: int) -> list[int]:
        order = (group[(newest - back) % len(group)] for back in range(len(group)))
        return [slot for slot in order if self.frames[slot] != EMPTY]

    # --- snapshots ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything the bank holds; its size never changes."""
        return {
            "spatial": self.spatial.clone(),
            "pointers": self.pointers.clone(),
            "frames": list(self.frames),
            "newest": self.newest,
            "newest_pointer": self.newest_pointer,
            "candidates": self.candidates,
            "candidate_similarity": self.candidate_similarity,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by `state_dict` with the same settings."""
        self.spatial.copy_(state["spatial"])
        self.pointers.copy_(state["pointers"])
        self.frames = list(state["frames"])
        self.newest = state["newest"]
        self.newest_pointer = state["newest_pointer"]
        self.candidates = state["candidates"]
        self.candidate_similarity = state["candidate_similarity"]


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of memories [..., HWm, Cm], averaged over positions: [...]."""
    return F.cosine_similarity(a.float(), b.float(), dim=-1).mean(-1)


class Policy(Protocol):
    """What distinguishes one way of remembering from another."""

    def consider(self, bank: MemoryBank, entry: Entry) -> None:
        """React to an entry that was just written to the short-term window."""

    def select(self, bank: MemoryBank, window: list[int]) -> list[int]:
        """Choose the slots of the short-term window (newest first) that are attended to."""


class Sam2Policy:
    """SAM 2.1's memory: the conditional entries and the whole short-term window."""

    def consider(self, bank: MemoryBank, entry: Entry) -> None:
        """Keep nothing beyond the window."""

    def select(self, bank: MemoryBank, window: list[int]) -> list[int]:
        """Show the whole window."""
        return window


class EfpPolicy(Sam2Policy):
    """Surgical SAM 2's efficient frame pruning.

    Once the window is full, the entries most similar to the newest one are left out of
    attention. They stay in the bank, for the next frame prunes against another newest entry.
    """

    def select(self, bank: MemoryBank, window: list[int]) -> list[int]:
        """Show the newest entry and those that differ most from it, newest first."""
        drop = min(bank.settings.efp_drop, len(window) - 1)
        if len(window) < len(bank.layout.recent) or drop < 1:
            return window
        newest, *older = window
        alike = similarity(bank.spatial[older], bank.spatial[newest])
        dropped = {older[i] for i in alike.topk(drop).indices.tolist()}
        return [slot for slot in window if slot not in dropped]


class DiveMemPolicy(Sam2Policy):
    """Diverse long-term memory beside the complete short-term window.

    Confident frames are candidates. When `buffer_size` of them have come by, the one least
    similar to the newest long-term entry (to the first conditional entry while there is none)
    is appended to the long-term memory, and counting begins anew. All candidates of one round
    are compared with the same entry, so only the best one so far needs to be kept; of two that
    are equally similar, the earlier one stays.
    """

    def consider(self, bank: MemoryBank, entry: Entry) -> None:
        """Weigh a tracked frame as a candidate."""
        if entry.iou <= bank.settings.iou_threshold:
            return
        held = bank.filled(bank.layout.long) or bank.filled(bank.layout.conditional)[:1]
        newest_slot = bank.layout.recent[bank.newest]
        alike = 1.0
        if held:
            alike = similarity(bank.spatial[newest_slot], bank.spatial[held[-1]]).item()
        if bank.candidates == 0 or alike < bank.candidate_similarity:
            bank.copy_slot(newest_slot, bank.layout.candidate)
            bank.candidate_similarity = alike
        bank.candidates += 1
        if bank.candidates >= bank.settings.buffer_size:
            self._append(bank)

    def _append(self, bank: MemoryBank) -> None:
        slots = bank.layout.long
        held = bank.filled(slots)
        free = [slot for slot in slots if slot not in held]
        bank.copy_slot(bank.layout.candidate, free[0] if free else held[0])
        bank.frames[bank.layout.candidate] = EMPTY
        bank.candidates = 0
        bank.candidate_similarity = 0.0


POLICIES: dict[str, Callable[[], Policy]] = {
    "sam2": Sam2Policy,
    "divemem": DiveMemPolicy,
    "efp": EfpPolicy,
}
