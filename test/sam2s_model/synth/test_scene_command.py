"""`sam2s scene` from the outside."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from sam2s_model.cli import main

FAST = ["--threads", "1", "--size", "96x80"]


def test_sheet(tmp_path):
    sheet = tmp_path / "sheet.png"
    assert main(["scene", "--sheet", str(sheet), "--rows", "2", "--columns", "3", *FAST]) == 0
    assert Image.open(sheet).size == (3 * 96, 2 * 80)


def test_davis_folder(tmp_path):
    arguments = ["scene", "--davis", str(tmp_path), "--frames", "3", "--seed", "5", *FAST]
    assert main(arguments) == 0
    names = [p.name for p in sorted((tmp_path / "JPEGImages" / "seed-5").iterdir())]
    assert names == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert len(list((tmp_path / "Annotations" / "seed-5").iterdir())) == 3
    assert json.loads((tmp_path / "classes.json").read_text())["seed-5"]


def test_davis_folder_takes_further_clips(tmp_path):
    for seed in ("5", "6"):
        assert (
            main(["scene", "--davis", str(tmp_path), "--frames", "1", "--seed", seed, *FAST]) == 0
        )
    named = json.loads((tmp_path / "classes.json").read_text())
    assert set(named) == {"seed-5", "seed-6"}
    assert all(named.values())


def test_davis_folder_whose_names_cannot_be_read_is_left_alone(tmp_path, capsys):
    (tmp_path / "classes.json").write_text("{")
    assert main(["scene", "--davis", str(tmp_path), "--frames", "1", *FAST]) == 2
    assert "classes.json" in capsys.readouterr().err
    assert not (tmp_path / "JPEGImages").exists()


def test_lists(capsys):
    assert main(["scene", "--list"]) == 0
    assert "val-long" in capsys.readouterr().out
    assert main(["scene", "--parameters"]) == 0
    assert "shaft_radius" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "large"], "WIDTHxHEIGHT"),
        (["--set", "zoom=big"], "NAME=LOW"),
        (["--set", "zooom=1"], "did you mean 'zoom'"),
    ],
)
def test_mistakes_are_explained(arguments, says, capsys):
    assert main(["scene", *arguments]) == 2
    assert says in capsys.readouterr().err
