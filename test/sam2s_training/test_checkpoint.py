"""Checkpoints: whole or not there, and nothing but data."""

import pytest
import torch
from tiny import same_tensors, tiny

from sam2s_training.checkpoint import Checkpoint, CheckpointError, checkpoints, newest


def state(step=3):
    weights = {"w": torch.arange(6.0).reshape(2, 3) + step}
    return Checkpoint(
        preset="nano",
        recipe=tiny().plain(),
        step=step,
        clips=7,
        seconds=1.5,
        model=weights,
        ema={"w": weights["w"] / 2},
        ema_updates=step,
        optimizer={"w": {"exp_avg": torch.ones(2, 3), "step": torch.tensor(3.0)}},
        row={"sum loss": 0.25},
    )


def test_what_is_written_is_read(tmp_path):
    path = state().save(tmp_path, keep=2)
    read = Checkpoint.load(path)
    wrote = vars(state())
    for name, value in vars(read).items():
        if name in ("model", "ema", "optimizer"):
            assert same_tensors(value, wrote[name])
        else:
            assert value == wrote[name]


def test_only_the_newest_are_kept_and_nothing_half_written(tmp_path):
    for step in (5, 20, 100, 1000):
        state(step).save(tmp_path, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000100.pt", "step-00001000.pt"]
    assert len(list(tmp_path.iterdir())) == 2
    assert newest(tmp_path)[1].step == 1000


def test_a_folder_without_any_has_none(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None


def test_a_truncated_newest_gives_way_to_the_one_before(tmp_path):
    state(1).save(tmp_path, keep=2)
    path = state(2).save(tmp_path, keep=2)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="the one before it"):
        found = newest(tmp_path)
    assert found[1].step == 1


def test_if_none_can_be_read_that_is_said(tmp_path):
    path = state(2).save(tmp_path, keep=2)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(CheckpointError, match=r"step-00000002\.pt cannot be read"):
        newest(tmp_path)


class Code:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_file_does_not_run(tmp_path, capsys):
    path = tmp_path / "step-00000001.pt"
    torch.save({"format": "sam2s training", "version": 1, "model": Code()}, path)
    with pytest.raises(CheckpointError):
        Checkpoint.load(path)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"model": {}}, "no training checkpoint"),
        ({"format": "sam2s training", "version": 99}, "has version 99"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, told):
    path = tmp_path / "step-00000001.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=told):
        Checkpoint.load(path)


def test_a_disk_that_refuses_leaves_the_older_ones(tmp_path, monkeypatch):
    state(1).save(tmp_path, keep=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        state(2).save(tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
