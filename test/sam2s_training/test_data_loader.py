"""Clips made ahead: the same in every way of making them, and errors that reach the training."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from clips import Squares, alike, davis, square_clip

from sam2s_training.data.augment import AugmentedSource
from sam2s_training.data.clip import take
from sam2s_training.data.errors import ClipError, DataSettingError
from sam2s_training.data.folder import FolderSettings
from sam2s_training.data.loader import Batch, Loader, LoaderSettings
from sam2s_training.data.sampler import SamplerSettings
from sam2s_training.data.sources import PartSettings, open_source
from sam2s_training.data.synthetic import SyntheticSettings, SyntheticSource

NONE = LoaderSettings(ahead="none")
THREAD = LoaderSettings(ahead="thread")
ONE = LoaderSettings(workers=1)
TWO = LoaderSettings(workers=2)


def batches(loader: Loader, count: int) -> list[Batch]:
    with loader:
        return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("settings", [THREAD, TWO], ids=["thread", "two"])
def test_order_and_content_do_not_depend_on_who_makes_them(settings: LoaderSettings) -> None:
    source = SyntheticSource(
        32,
        SyntheticSettings(scenes=2, min_share=0.01),
        SamplerSettings(scattered=1, consecutive=1),
    )
    expected = batches(Loader(AugmentedSource(source), 3, NONE, first=2), 3)
    made = batches(Loader(AugmentedSource(source), 3, settings, first=2), 3)
    assert [batch.indices for batch in made] == [[2, 3, 4], [5, 6, 7], [8, 9, 10]]
    for one, other in zip(expected, made, strict=True):
        assert one.indices == other.indices
        assert all(alike(a, b) for a, b in zip(one.clips, other.clips, strict=True))


def test_ranks_share_what_one_process_would_have() -> None:
    alone = batches(Loader(Squares(), 4, NONE, first=8), 3)
    shared = [batches(Loader(Squares(), 2, THREAD, first=8, rank=r, world=2), 3) for r in (0, 1)]
    assert [b.indices for b in shared[1]] == [[9, 11], [13, 15], [17, 19]]
    for step, batch in enumerate(alone):
        both = sorted(shared[0][step].indices + shared[1][step].indices)
        assert both == batch.indices
    for rank in shared:
        for batch in rank:
            for index, clip in zip(batch.indices, batch.clips, strict=True):
                assert alike(clip, square_clip(index=index))


def test_a_stopped_run_goes_on_with_the_next_clip() -> None:
    whole = batches(Loader(Squares(), 2, THREAD), 6)
    rest = batches(Loader(Squares(), 2, THREAD, first=6), 3)
    assert [b.indices for b in whole[3:]] == [b.indices for b in rest]
    for one, other in zip(whole[3:], rest, strict=True):
        assert all(alike(a, b) for a, b in zip(one.clips, other.clips, strict=True))


@pytest.mark.parametrize("settings", [NONE, THREAD, ONE], ids=["none", "thread", "process"])
def test_errors_name_the_clip(settings: LoaderSettings) -> None:
    with Loader(Squares(broken=5), 2, settings) as loader:
        assert next(loader).indices == [0, 1]
        assert next(loader).indices == [2, 3]
        with pytest.raises(ClipError, match=r"5.*ValueError: the film of 5 tore"):
            next(loader)


def test_a_process_that_dies_is_said() -> None:
    with Loader(Dying(), 1, ONE) as loader:
        assert next(loader).indices == [0]
        with pytest.raises(ClipError, match="has ended"):
            [next(loader) for _ in range(5)]


class Dying(Squares):
    """Ends its process at clip 2, as the kernel does when memory runs out."""

    def sample(self, index: int):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(index)


def test_processes_leave_signals_to_the_training_and_step_back() -> None:
    with Loader(Telling(), 1, LoaderSettings(workers=1, nice=7)) as loader:
        clip = next(loader).clips[0]
        ignored, nice, threads, worker = clip.numbers
        assert ignored == 2  # SIGINT and SIGTERM
        assert nice == os.nice(0) + 7 or nice == 19
        assert threads == 1
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
        assert next(loader).clips[0].numbers[3] == worker
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


class Telling(Squares):
    """Says in its frame numbers how its process is set up."""

    def sample(self, index: int):
        ignored = sum(
            signal.getsignal(s) is signal.SIG_IGN for s in (signal.SIGINT, signal.SIGTERM)
        )
        facts = (ignored, os.nice(0), torch.get_num_threads(), os.getpid())
        return dataclasses.replace(super().sample(index), numbers=facts)


def test_the_thread_works_ahead_and_stops_when_closed() -> None:
    source = Slow(0.25)
    with Loader(source, 1, LoaderSettings(ahead="thread", batches=2)) as loader:
        next(loader)
        deadline = time.monotonic() + 20
        while source.made < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.4)
        assert source.made == 4  # one taken, two in the queue, one before it
        before = loader.waited
        next(loader)
        assert loader.waited - before < 0.2
    made = source.made
    time.sleep(0.4)
    assert source.made == made


class Slow(Squares):
    """Takes its time, and counts."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.made = seconds, 0

    def sample(self, index: int):
        time.sleep(self.seconds)
        self.made += 1
        return super().sample(index)


def test_waiting_is_measured() -> None:
    with Loader(Slow(0.02), 4, NONE) as loader:
        next(loader)
        assert 0.08 <= loader.waited < 2


def test_closing_twice_does_no_harm_and_using_after_is_said() -> None:
    for settings in (THREAD, ONE):
        loader = Loader(Squares(), 1, settings)
        loader.close()
        loader.close()
        with pytest.raises(ClipError, match="closed"):
            next(loader)


def test_parts_are_opened_and_mixed(tmp_path: Path) -> None:
    root = davis(tmp_path / "set", {"one": 4})
    parts = {
        "endoscope": PartSettings(weight=1, synthetic=SyntheticSettings(min_share=0.01)),
        "disk": PartSettings(weight=3, folder=FolderSettings(str(root))),
    }
    sampler = SamplerSettings(scattered=1, consecutive=1)
    source = open_source(parts, 32, sampler, progress=False)
    names = [clip.name for clip in take(source, range(8))]
    assert sum("one, frames" in name for name in names) in range(4, 9)
    assert all("synthetic" in name or "one, frames" in name for name in names)
    alone = open_source({"disk": parts["disk"]}, 32, sampler, progress=False)
    assert "one, frames" in alone.sample(0).name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ahead": "fork"}, "processes, thread, none"),
        ({"workers": 0}, "workers"),
        ({"nice": 40}, "nice"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataSettingError, match=said):
        LoaderSettings(**wrong)  # type: ignore[arg-type]


def test_impossible_ranks_are_refused() -> None:
    with pytest.raises(DataSettingError, match="rank 2 of 2"):
        Loader(Squares(), 1, NONE, rank=2, world=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_renders_beside_the_training() -> None:
    source = SyntheticSource(
        64, SyntheticSettings(scenes=4), SamplerSettings(scattered=1, consecutive=1), device="cuda"
    )
    for batch in batches(Loader(source, 4, THREAD, device="cuda"), 4):
        for index, clip in zip(batch.indices, batch.clips, strict=True):
            assert clip.images.device.type == "cuda"
            torch.cuda.synchronize()
            assert alike(clip, source.sample(index))
