"""The commands, as a user types them."""

import os
import subprocess
import sys

import pytest
import yaml
from PIL import Image
from tiny import CONTENT

from sam2s_training.__main__ import main
from sam2s_training.log import read_rows
from sam2s_training.recipe import load_recipe, parse_recipe
from sam2s_training.schema import merged
from sam2s_training.scores import read_scores

# One worker, so that the run that they share is made once.
pytestmark = pytest.mark.xdist_group("smoke_run")
FALL = 0.5  # the share of its first value that the smoke recipe's loss falls below


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke recipe, run as continuous integration runs it; shared by what needs a run."""
    out = tmp_path_factory.mktemp("smoke")
    done = subprocess.run(
        [sys.executable, "-m", "sam2s_training", "train", "smoke", "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stderr


def test_the_smoke_recipe_learns(smoke):
    out, told = smoke
    losses = [float(row["loss"]) for row in read_rows(out / "log.csv")]
    assert len(losses) == 6
    assert max(losses[-2:]) < FALL * losses[0]
    assert "stopped at step 30 of 30 (done)" in told
    assert "all in about" in told
    assert {path.name for path in (out / "overlays").iterdir()} == {
        "step-00000015.jpg",
        "step-00000030.jpg",
    }


def test_what_follows_a_training(smoke, capsys):
    out, _ = smoke
    assert main(["evaluate", str(out), "smoke", "--memory", "sam2", "--quiet"]) == 0
    assert "| smoke " in capsys.readouterr().out
    (row,) = read_scores(out / "scores.csv")
    assert (row["step"], row["suite"], row["memory"]) == ("30", "smoke", "sam2")
    assert 0 <= float(row["jf"]) <= 1
    assert main(["export", str(out), "--dtype", "float16"]) == 0
    assert "smoke-00000030.safetensors (7." in capsys.readouterr().out
    assert main(["curves", str(out)]) == 0
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_files_where_it_is_installed(smoke):
    out, _ = smoke
    assert [path for path in (out / "tensorboard").iterdir() if path.stat().st_size > 1000]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optim": {"leraning_rate": 1}}, "there is no key 'leraning_rate'"),
        ({"losses": {"ambiguity": "gausian"}}, "did you mean 'gaussian'"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, changes, told):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(merged(CONTENT, changes)))
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "mine.yaml" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    assert main(["train", str(path), "--device", "cuda:99"]) == 2
    assert "CUDA device" in capsys.readouterr().err
    assert main(["train", str(path), "--device", "abacus"]) == 2
    assert "'abacus' is no device" in capsys.readouterr().err


def test_curves_of_no_run(tmp_path, capsys):
    assert main(["curves", str(tmp_path)]) == 2
    assert "log.csv has no row" in capsys.readouterr().err


def test_a_recipe_is_shown_with_all_its_defaults(capsys):
    assert main(["train", "nano", "--show", "--set", "optim.lr=0.125"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert parse_recipe(shown, "shown") == load_recipe("nano", ["optim.lr=0.125"])
    assert shown["phases"][0]["losses"]["iou"] == 1.0


def test_an_ablation_is_refused_under_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["ablate", "nano-ablation"]) == 2
    assert "without torchrun" in capsys.readouterr().err


def davis(root, mask_size=(40, 32), name="grasper"):
    """A data set of two frames, with whatever is to be wrong about it."""
    for folder in ("JPEGImages/a", "Annotations/a"):
        (root / folder).mkdir(parents=True)
    for n in range(2):
        Image.new("RGB", (40, 32), (200, 40, 40)).save(root / f"JPEGImages/a/{n:05d}.jpg")
        mask = Image.new("L", mask_size, 0)
        mask.paste(1, (8, 8, 24, 24))
        mask.save(root / f"Annotations/a/{n:05d}.png")
    (root / "classes.yaml").write_text(yaml.safe_dump({1: name}))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"mask_size": (41, 32)}, "41×32"),
        ({"name": "graspr"}, "did you mean 'grasper'"),
        ({}, None),
    ],
)
def test_a_data_set_is_refused_before_the_first_step(tmp_path, capsys, wrong, told):
    davis(tmp_path / "set", **wrong)
    path, out = tmp_path / "mine.yaml", tmp_path / "run"
    parts = {"endoscope": None, "mine": {"folder": {"root": str(tmp_path / "set")}}}
    path.write_text(yaml.safe_dump(merged(CONTENT, {"data": {"parts": parts}})))
    code = main(["train", str(path), "--out", str(out), "--until-step", "1", "--quiet"])
    if told is None:
        assert code == 0
        assert len(read_rows(out / "log.csv")) == 1
    else:
        assert code == 2
        assert told in capsys.readouterr().err
        assert not out.exists()


def test_shards_are_rendered_once_and_trained_from(tmp_path, capsys):
    path, shards = tmp_path / "mine.yaml", tmp_path / "shards"
    path.write_text(yaml.safe_dump(CONTENT))
    command = ["shards", str(path), "--clips", "3", "--out", str(shards), "--quiet"]
    assert main(command) == 0
    assert "3 clips of 2 frames at 64 px" in capsys.readouterr().out
    before = {file.name: file.stat().st_mtime_ns for file in shards.glob("*.zip")}
    assert main(command) == 0
    assert before == {file.name: file.stat().st_mtime_ns for file in shards.glob("*.zip")}
    parts = {"endoscope": None, "shards": {"shards": {"folder": str(shards)}}}
    path.write_text(yaml.safe_dump(merged(CONTENT, {"data": {"parts": parts}})))
    arguments = ["train", str(path), "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*arguments, "--until-step", "1"]) == 0
    assert len(read_rows(tmp_path / "run" / "log.csv")) == 1
    arguments[3] = str(tmp_path / "other")
    assert main([*arguments, "--set", "image_size=96"]) == 2
    assert "rendered with 64 pixels" in capsys.readouterr().err
    assert main(["shards", str(path), "--phase", "clps", "--out", str(shards)]) == 2
    assert "did you mean 'clips'" in capsys.readouterr().err
