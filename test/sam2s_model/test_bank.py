"""The memory bank: what each policy keeps, shows and forgets.

Memories are turned unit vectors, so that a similarity is the cosine of a difference of angles.
"""

from __future__ import annotations

import dataclasses
import io
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch
from builders import bytes_of, identical
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sam2s_model.bank import POLICIES, Entry, MemoryBank, Reading, similarity
from sam2s_model.config import MEMORY_POLICIES, MemorySettings, ModelConfig

SMALL = ModelConfig(
    image_size=64, hidden_dim=4, memory_dim=2, num_recent=3, num_pointers=5, max_conditional=3
)
CELLS = SMALL.memory_size**2
CONDITIONAL, LONG = SMALL.num_recent, SMALL.num_recent + 1  # their rows of temporal embedding


def turned(*degrees: float) -> Tensor:
    """A memory [HW, 2]; the angles are repeated over the positions."""
    angles = torch.tensor([math.radians(degrees[n % len(degrees)]) for n in range(CELLS)])
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def entry(frame: int, *degrees: float, iou: float = 0.9) -> Entry:
    return Entry(frame, turned(*degrees), torch.full((SMALL.hidden_dim,), float(frame)), iou)


def bank_of(policy: str = "divemem", **changes: object) -> MemoryBank:
    memory = dataclasses.replace(MemorySettings.for_policy(policy), **changes)  # type: ignore[arg-type]
    return MemoryBank(SMALL, memory)


def begun(policy: str = "divemem", **changes: object) -> MemoryBank:
    """A bank whose target was prompted on frame 0, at 0 degrees."""
    bank = bank_of(policy, **changes)
    bank.write_conditional(entry(0, 0))
    return bank


def frames_of(bank: MemoryBank, role: int) -> list[int]:
    """Frames of the entries that are shown in one role, in order."""
    reading = bank.read(1000)
    shown = zip(reading.slots, reading.roles, strict=True)
    return [bank.frames[slot] for slot, r in shown if r == role]


def window_of(bank: MemoryBank) -> list[tuple[int, int]]:
    """The short-term entries that are shown, as pairs of frame and role."""
    reading = bank.read(1000)
    pairs = zip(reading.slots, reading.roles, strict=True)
    return [(bank.frames[slot], role) for slot, role in pairs if role < SMALL.num_recent]


# --- what all policies share ------------------------------------------------------------------


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_an_empty_bank_shows_nothing(policy: str) -> None:
    assert bank_of(policy).read(7) == Reading([], [], [], [])


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_the_window_runs_from_the_newest_entry_and_its_roles_are_ages(policy: str) -> None:
    bank = begun(policy, efp_drop=0)
    for frame in (1, 2):
        bank.write(entry(frame, 10 * frame, iou=0.1))
    assert window_of(bank) == [(2, 0), (1, 1)]
    for frame in (3, 4, 9):
        bank.write(entry(frame, 10 * frame, iou=0.1))
    assert window_of(bank) == [(9, 0), (4, 1), (3, 2)]
    assert frames_of(bank, CONDITIONAL) == [0]


def test_entries_are_shown_as_conditional_then_long_term_then_recent() -> None:
    bank = begun(buffer_size=1)
    bank.write(entry(1, 30))
    bank.write_conditional(entry(2, 60))
    bank.write(entry(3, 90))
    reading = bank.read(4)
    assert [bank.frames[slot] for slot in reading.slots] == [0, 2, 1, 3, 3, 1]
    assert reading.roles == [CONDITIONAL, CONDITIONAL, LONG, LONG, 0, 1]


def test_what_was_written_is_what_is_read() -> None:
    bank = begun(buffer_size=1)
    for frame in range(1, 9):
        bank.write(entry(frame, 11 * frame))
    reading = bank.read(9)
    for slot in reading.slots:
        frame = bank.frames[slot]
        assert torch.equal(bank.spatial[slot], turned(11 * frame).to(bank.spatial.dtype))
    for slot in reading.pointers:
        assert (bank.pointers[slot] == bank.frames[slot]).all()


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_pointers_reach_further_back_than_the_window_but_not_for_ever(policy: str) -> None:
    bank = begun(policy)
    for frame in range(1, 12):
        bank.write(entry(frame, 0, iou=0.1))
    reading = bank.read(14)
    assert len(reading.pointers) == 1 + SMALL.num_pointers - 1
    assert reading.distances == [14, 3, 4, 5, 6]  # the prompted frame, then the newest ones


def test_pointers_of_conditional_and_long_term_entries_are_shown_too() -> None:
    bank = begun(buffer_size=1, max_long=2)
    for frame in range(1, 9):
        bank.write(entry(frame, 20 * frame, iou=0.9 if frame in (2, 3) else 0.1))
    assert bank.read(10).distances == [10, 8, 7, 2, 3, 4, 5]


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_the_first_prompted_frame_is_never_evicted_and_others_oldest_first(policy: str) -> None:
    bank = begun(policy, buffer_size=1, max_long=1)
    expected = [[0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    for frame, kept in enumerate(expected, start=1):
        bank.write_conditional(entry(frame, 40 * frame))
        assert frames_of(bank, CONDITIONAL) == kept
    for frame in range(6, 60):
        bank.write(entry(frame, 7 * frame))
        assert frames_of(bank, CONDITIONAL) == [0, 4, 5]


@pytest.mark.parametrize("policy", MEMORY_POLICIES)
def test_a_bank_stays_as_large_as_it_was_made(policy: str) -> None:
    bank = bank_of(policy, buffer_size=2)
    size = bytes_of(bank.state_dict())
    storage = (bank.spatial.data_ptr(), bank.pointers.data_ptr())
    most = 0
    for frame in range(3000):
        if frame % 97 == 0:
            bank.write_conditional(entry(frame, 3 * frame))
        else:
            bank.write(entry(frame, 3 * frame))
        most = max(most, len(bank.read(frame + 1).slots))
    long = bank.settings.max_long if policy == "divemem" else 0
    dropped = bank.settings.efp_drop if policy == "efp" else 0
    most_now = len(bank.read(3000).slots)
    assert most_now == SMALL.max_conditional + long + SMALL.num_recent - dropped
    assert most <= SMALL.max_conditional + long + SMALL.num_recent
    assert len(bank.read(3000).pointers) == SMALL.max_conditional + long + SMALL.num_pointers - 1
    assert bytes_of(bank.state_dict()) == size
    assert (bank.spatial.data_ptr(), bank.pointers.data_ptr()) == storage


def test_similarity_is_the_cosine_averaged_over_positions() -> None:
    assert similarity(turned(0), turned(60)).item() == pytest.approx(0.5, abs=1e-6)
    assert similarity(turned(0), turned(0, 60)).item() == pytest.approx(0.75, abs=1e-6)
    assert similarity(5 * turned(0), 0.1 * turned(180)).item() == pytest.approx(-1, abs=1e-6)


# --- divemem ----------------------------------------------------------------------------------


def test_the_candidate_least_like_the_prompted_frame_is_kept_when_the_buffer_is_full() -> None:
    bank = begun(buffer_size=4)
    for frame, angle in enumerate((10, 80, 30), start=1):
        bank.write(entry(frame, angle))
        assert frames_of(bank, LONG) == []
    bank.write(entry(4, 50))
    assert frames_of(bank, LONG) == [2]


def test_from_then_on_candidates_are_compared_with_the_newest_long_term_entry() -> None:
    bank = begun(buffer_size=2)
    for frame, angle in enumerate((90, 10), start=1):
        bank.write(entry(frame, angle))
    assert frames_of(bank, LONG) == [1]
    # 100 degrees is far from the prompted frame, but 40 is far from the 90 of frame 1.
    for frame, angle in enumerate((100, 40), start=3):
        bank.write(entry(frame, angle))
    assert frames_of(bank, LONG) == [1, 4]
    # Now 40 counts and not 90: of 60 and 110 the latter is kept.
    for frame, angle in enumerate((60, 110), start=5):
        bank.write(entry(frame, angle))
    assert frames_of(bank, LONG) == [1, 4, 6]


def test_the_newest_prompted_frame_does_not_stand_in_for_the_first() -> None:
    bank = begun(buffer_size=2)
    bank.write_conditional(entry(1, 90))
    bank.write(entry(2, 80))  # least like frame 0, most like frame 1
    bank.write(entry(3, 20))
    assert frames_of(bank, LONG) == [2]


def test_every_position_counts_alike_whatever_the_size_of_its_vector() -> None:
    bank = begun(buffer_size=2)
    strong = turned(180)
    strong[0] = torch.tensor([100.0, 0.0])  # alike where it is strong, opposite elsewhere
    bank.write(Entry(1, strong, torch.ones(4), 0.9))
    bank.write(entry(2, 100))
    assert frames_of(bank, LONG) == [1]


def test_the_buffer_clears_when_a_candidate_is_kept() -> None:
    bank = begun(buffer_size=3)
    for frame, angle in enumerate((170, 90, 20), start=1):
        bank.write(entry(frame, angle))
    assert frames_of(bank, LONG) == [1]
    # The 20 of the first round would be least like frame 1's 170, but is forgotten.
    for frame, angle in enumerate((150, 140), start=4):
        bank.write(entry(frame, angle))
    assert frames_of(bank, LONG) == [1]
    bank.write(entry(6, 160))
    assert frames_of(bank, LONG) == [1, 5]


def test_a_candidate_must_exceed_the_iou_threshold() -> None:
    bank = begun(buffer_size=1, iou_threshold=0.75)
    bank.write(entry(1, 90, iou=0.75))
    assert frames_of(bank, LONG) == []
    bank.write(entry(2, 10, iou=0.7500001))
    assert frames_of(bank, LONG) == [2]


def test_doubtful_frames_neither_fill_the_buffer_nor_clear_it() -> None:
    bank = begun(buffer_size=2)
    for frame, (angle, iou) in enumerate([(60, 0.9), (180, 0.5), (170, 0.1)], start=1):
        bank.write(entry(frame, angle, iou=iou))
    assert frames_of(bank, LONG) == []
    bank.write(entry(4, 10))
    assert frames_of(bank, LONG) == [1]


def test_of_equally_similar_candidates_the_earlier_one_is_kept() -> None:
    bank = begun(buffer_size=3)
    for frame in (1, 2, 3):
        bank.write(entry(frame, 45))
    assert frames_of(bank, LONG) == [1]


def test_the_oldest_long_term_entry_is_evicted_first() -> None:
    bank = begun(buffer_size=1, max_long=2)
    seen = []
    for frame in range(1, 6):
        bank.write(entry(frame, 50 * frame))
        seen.append(frames_of(bank, LONG))
    assert seen == [[1], [1, 2], [2, 3], [3, 4], [4, 5]]
    assert frames_of(bank, CONDITIONAL) == [0]


def test_a_long_term_entry_outlives_the_window() -> None:
    bank = begun(buffer_size=2)
    bank.write(entry(1, 77))
    bank.write(entry(2, 10))
    for frame in range(3, 40):
        bank.write(entry(frame, 33, iou=0.2))
    reading = bank.read(40)
    slot = reading.slots[reading.roles.index(LONG)]
    assert bank.frames[slot] == 1
    assert torch.equal(bank.spatial[slot], turned(77).to(bank.spatial.dtype))
    assert (bank.pointers[slot] == 1).all()


@pytest.mark.parametrize("policy", ["sam2", "efp"])
def test_other_policies_keep_no_long_term_entries(policy: str) -> None:
    bank = begun(policy, buffer_size=1)
    for frame in range(1, 20):
        bank.write(entry(frame, 50 * frame, iou=1.0))
    assert frames_of(bank, LONG) == []


# --- efp --------------------------------------------------------------------------------------


def test_pruning_waits_until_the_window_is_full() -> None:
    bank = begun("efp", efp_drop=1)
    bank.write(entry(1, 50))
    bank.write(entry(2, 50))
    assert window_of(bank) == [(2, 0), (1, 1)]


def test_pruning_drops_those_most_like_the_newest_and_roles_stay_ages() -> None:
    bank = begun("efp", efp_drop=1)
    for frame, angle in enumerate((20, 80, 15), start=1):
        bank.write(entry(frame, angle))
    assert window_of(bank) == [(3, 0), (2, 1)]  # frame 1 is within 5 degrees of frame 3
    bank.write(entry(4, 70))
    assert window_of(bank) == [(4, 0), (3, 1)]  # now frame 2 is near; frame 1 has left the window


def test_pruned_entries_remain_in_the_bank_for_the_next_frame() -> None:
    bank = begun("efp", efp_drop=1)
    for frame, angle in enumerate((90, 20, 15), start=1):
        bank.write(entry(frame, angle))
    assert window_of(bank) == [(3, 0), (1, 2)]
    bank.write(entry(4, 19))
    bank.write(entry(5, 100))
    assert window_of(bank) == [(5, 0), (3, 2)]
    assert bank.read(6) == bank.read(6)  # reading changes nothing


def test_by_default_two_are_pruned_and_newest_and_prompted_frames_stay() -> None:
    memory = MemorySettings.for_policy("efp")
    bank = MemoryBank(dataclasses.replace(SMALL, num_recent=6), memory)
    bank.write_conditional(entry(0, 12))  # as the newest entry: it must be shown all the same
    for frame, angle in enumerate((90, 11, 60, 30, 13, 12), start=1):
        bank.write(entry(frame, angle))
    reading = bank.read(7)
    assert [bank.frames[slot] for slot in reading.slots] == [0, 6, 4, 3, 1]
    assert reading.roles == [6, 0, 2, 3, 5]
    assert reading.distances == [7, 1, 2, 3, 4]  # pointers are not pruned


def test_pruning_never_takes_the_newest_entry() -> None:
    bank = begun("efp", efp_drop=99)
    for frame in range(1, 8):
        bank.write(entry(frame, 0))
    assert window_of(bank) == [(7, 0)]


# --- any sequence of writes, against the specification in plain lists -------------------------


class Write(NamedTuple):
    prompted: bool
    iou: float
    gap: int  # frames since the write before


@dataclass
class Specified:
    """The bank as the specification words it: lists, and the whole candidate buffer."""

    memory: MemorySettings
    config: ModelConfig
    conditional: list[Entry] = field(default_factory=list)
    long: list[Entry] = field(default_factory=list)
    recent: list[Entry] = field(default_factory=list)  # all there ever were
    buffer: list[Entry] = field(default_factory=list)

    def write(self, new: Entry, prompted: bool) -> None:
        if prompted:
            self.conditional.append(new)
            if len(self.conditional) > self.config.max_conditional:
                del self.conditional[1]
            return
        self.recent.append(new)
        if self.memory.policy != "divemem" or not new.iou > self.memory.iou_threshold:
            return
        self.buffer.append(new)
        if len(self.buffer) == self.memory.buffer_size:
            anchor = self.long[-1] if self.long else self.conditional[0]
            self.long.append(min(self.buffer, key=lambda held: _alike(held, anchor)))
            self.long = self.long[-self.memory.max_long :]
            self.buffer = []

    def shown(self) -> list[tuple[int, int]]:
        """Frame and role of what attention sees."""
        count = self.config.num_recent
        window = list(enumerate(reversed(self.recent[-count:])))
        if self.memory.policy == "efp" and len(window) == count:
            newest = window[0][1]
            ranked = sorted(window[1:], key=lambda held: _alike(held[1], newest), reverse=True)
            dropped = [age for age, _ in ranked[: self.memory.efp_drop]]
            window = [(age, held) for age, held in window if age not in dropped]
        return (
            [(held.frame, count) for held in self.conditional]
            + [(held.frame, count + 1) for held in self.long]
            + [(held.frame, age) for age, held in window]
        )

    def pointers(self) -> list[int]:
        newest_first = list(reversed(self.recent))[: self.config.num_pointers - 1]
        return [held.frame for held in (*self.conditional, *self.long, *newest_first)]


def _alike(a: Entry, b: Entry) -> float:
    x, y = (held.spatial.double().numpy() for held in (a, b))
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    return float(cosines.mean())


def restarted(bank: MemoryBank) -> MemoryBank:
    """The same bank after a way through a file."""
    buffer = io.BytesIO()
    torch.save(bank.state_dict(), buffer)
    buffer.seek(0)
    other = MemoryBank(bank.config, bank.settings)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


WRITES = st.lists(
    st.builds(
        Write,
        prompted=st.sampled_from([False] * 7 + [True]),
        iou=st.sampled_from([0.0, 0.3, 0.5, 0.500001, 0.8, 0.9, 0.9, 1.0]),
        gap=st.integers(1, 4),
    ),
    max_size=40,
)
SETTINGS = st.builds(
    MemorySettings,
    policy=st.sampled_from(MEMORY_POLICIES),
    iou_threshold=st.sampled_from([0.0, 0.5, 0.8]),
    buffer_size=st.integers(1, 4),
    max_long=st.integers(1, 3),
    efp_drop=st.integers(0, 4),
)
SIZES = st.builds(
    dataclasses.replace,
    st.just(SMALL),
    num_recent=st.integers(1, 5),
    num_pointers=st.integers(2, 7),
    max_conditional=st.integers(2, 4),
)


@given(memory=SETTINGS, config=SIZES, writes=WRITES, seed=st.integers(0, 2**20), data=st.data())
@settings(max_examples=250, deadline=None)
def test_any_sequence_of_writes_keeps_what_the_specification_says(
    memory: MemorySettings, config: ModelConfig, writes: list[Write], seed: int, data: st.DataObject
) -> None:
    bank, specified = MemoryBank(config, memory), Specified(memory, config)
    capacity = bytes_of(bank.state_dict())
    restart = data.draw(st.integers(0, len(writes)), label="restart before write")
    noise = torch.Generator().manual_seed(seed)
    frame, kept = 0, {}
    for n, write in enumerate([Write(True, 1.0, 1), *writes]):
        if n == restart:
            old, bank = bank, restarted(bank)
            assert identical(old.state_dict(), bank.state_dict())
        frame += write.gap
        spatial = torch.randn(CELLS, SMALL.memory_dim, generator=noise)
        new = Entry(frame, spatial, torch.randn(4, generator=noise), write.iou)
        kept[frame] = new
        (bank.write_conditional if write.prompted else bank.write)(new)
        specified.write(new, write.prompted)

        reading = bank.read(frame + 1)
        shown = [bank.frames[slot] for slot in reading.slots]
        assert list(zip(shown, reading.roles, strict=True)) == specified.shown()
        pointed = [bank.frames[slot] for slot in reading.pointers]
        assert pointed == specified.pointers()
        assert reading.distances == [frame + 1 - held for held in pointed]
        for slot, held in zip(reading.slots, shown, strict=True):
            assert torch.equal(bank.spatial[slot], kept[held].spatial)
        for slot, held in zip(reading.pointers, pointed, strict=True):
            assert torch.equal(bank.pointers[slot], kept[held].pointer)
        assert bytes_of(bank.state_dict()) == capacity


@given(memory=SETTINGS, writes=WRITES, more=WRITES, seed=st.integers(0, 2**20))
@settings(max_examples=60, deadline=None)
def test_a_restored_bank_continues_identically(
    memory: MemorySettings, writes: list[Write], more: list[Write], seed: int
) -> None:
    noise = torch.Generator().manual_seed(seed)
    bank = MemoryBank(SMALL, memory)
    frame = 0

    def put(banks: list[MemoryBank], write: Write) -> None:
        nonlocal frame
        frame += write.gap
        new = Entry(frame, torch.randn(CELLS, 2, generator=noise), torch.ones(4), write.iou)
        for each in banks:
            (each.write_conditional if write.prompted else each.write)(new)

    for write in [Write(True, 1.0, 1), *writes]:
        put([bank], write)
    snapshot = bank.state_dict()
    twin = restarted(bank)
    for write in more:
        put([bank, twin], write)
        assert identical(bank.state_dict(), twin.state_dict())
        assert bank.read(frame + 1) == twin.read(frame + 1)
    again = MemoryBank(SMALL, memory)
    again.load_state_dict(snapshot)  # which later writes to the bank must not have touched
    assert again.frames == snapshot["frames"]
    assert torch.equal(again.spatial, snapshot["spatial"])


def test_every_policy_has_its_class() -> None:
    assert tuple(POLICIES) == MEMORY_POLICIES
