"""Variants of one recipe, set side by side."""

import json
import re

import pytest
import torch
import yaml
from tiny import CONTENT, state_of

from sam2s_model.config import ModelConfig
from sam2s_model.random_weights import lively_weights
from sam2s_model.weights import save_weights
from sam2s_training.ablation import Ablation, AblationRun, Variant, load_ablation, table
from sam2s_training.distributed import World
from sam2s_training.schema import RecipeError, UnknownKeyError, merged

ABLATION = {
    "name": "tiny-ablation",
    "recipe": "base.yaml",
    "suites": ["smoke"],
    "seed": 11,
    "variants": [
        {"name": "base", "memory": "sam2", "changes": {"losses": {"semantic": 0.0}}},
        {"name": "+ TSL", "changes": {"data": {"sampler": {"policy": "consecutive"}}}},
    ],
}


@pytest.fixture
def written(tmp_path):
    phases = [{"name": "clips", "steps": 1}]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(merged(CONTENT, {"phases": phases})))
    path = tmp_path / "ablation.yaml"
    path.write_text(yaml.safe_dump(ABLATION))
    return path


def test_variants_differ_in_what_they_name_alone(written):
    _, recipes = load_ablation(written)
    base, tsl = recipes["base"], recipes["+ TSL"]
    assert base.seed == tsl.seed == 11
    assert (base.phases[0].losses.semantic, tsl.phases[0].losses.semantic) == (0.0, 0.5)
    assert base.phases[0].data.sampler.policy == "hybrid"
    assert tsl.phases[0].data.sampler.policy == "consecutive"
    assert base.phases[0].optim == tsl.phases[0].optim
    assert base.phases[0].data.parts == tsl.phases[0].data.parts


@pytest.mark.parametrize("name", ["nano-ablation", "nano-ablation-cpu"])
def test_the_shipped_ablation_changes_one_thing_a_row(name):
    ablation, recipes = load_ablation(name)
    base, divemem, tsl, entropy, gaussian = (recipes[v.name].phases[0] for v in ablation.variants)
    assert [v.memory for v in ablation.variants] == ["sam2", *["divemem"] * 4]
    assert base.data.sampler.policy == "consecutive"
    assert divemem.data == tsl.data == entropy.data == gaussian.data
    assert (base.losses, divemem.losses.semantic) == (divemem.losses, 0.0)
    assert base.losses.naming == 0.0
    assert tsl.losses.semantic > 0
    assert [p.losses.ambiguity for p in (tsl, entropy, gaussian)] == ["none", "entropy", "gaussian"]
    # Noise is on for all, or ARL would be compared with cleaner teachers.
    assert all(p.data.annotators is not None for p in (base, divemem, tsl, entropy, gaussian))
    assert len({(p.steps, p.optim, p.image_size) for p in (base, tsl, entropy, gaussian)}) == 1


def test_slices_lead_to_the_table(written, tmp_path, capsys):
    start = tmp_path / "start.safetensors"
    weights = lively_weights(ModelConfig.preset("nano"), seed=1)
    save_weights(start, weights, {"preset": "nano"})
    ablation, recipes = load_ablation(written, str(start))
    out, world = tmp_path / "out", World(torch.device("cpu"))

    def job(minutes):
        return AblationRun(
            ablation, recipes, out, world, minutes=minutes, quiet=True, command="again"
        )

    assert not job(0.0).run()
    assert "…" in job(None).write()
    while not (run := job(0.3)).run():
        assert run.stopped == "time"
    results = json.loads((out / "ablation.json").read_text())
    assert set(results) == {"base", "+ TSL"}
    assert all(0 <= figures["smoke"]["jf"] <= 1 for figures in results.values())
    text = (out / "ablation.md").read_text()
    assert "…" not in text
    gain = 100 * (results["+ TSL"]["smoke"]["jf"] - results["base"]["smoke"]["jf"])
    assert f"({gain:+.1f})" in text
    assert "1 steps of 1 clips at 64 px" in text
    assert "`again`" in text
    assert re.search(r"smoke: \d+ targets, clips: 2", text)
    assert state_of(out / "base").clips == state_of(out / "tsl").clips


def test_processes_share_the_variants(written, tmp_path):
    ablation, recipes = load_ablation(written)
    out, world = tmp_path / "out", World(torch.device("cpu"))

    def job(*only):
        return AblationRun(ablation, recipes, out, world, only=only, quiet=True)

    assert job("+ TSL").run()
    assert (out / "tsl").is_dir()
    assert not (out / "base").exists()
    rows = job().write().splitlines()[2:]
    assert ["…" in row for row in rows] == [True, False]
    with pytest.raises(RecipeError, match=r"no variant is called 'TSL'; there are: base, \+ TSL"):
        job("TSL")


def test_a_variant_may_build_on_another_than_the_row_above():
    variants = (Variant("a"), Variant("b"), Variant("c", after="a"))
    figures = dict.fromkeys(("absence_recall", "reidentified", "wrong_instance", "top1"))
    results = {
        name: {"s": {"jf": jf, **figures}} for name, jf in (("a", 0.5), ("b", 0.75), ("c", 0.625))
    }
    rows = table(Ablation("x", "r", variants, ("s",)), results).splitlines()[2:]
    assert ["50.0 " in rows[0], "75.0 (+25.0)" in rows[1], "62.5 (+12.5)" in rows[2]] == [True] * 3


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"suits": []}, UnknownKeyError, "did you mean 'suites'"),
        ({"variants": []}, RecipeError, "at least one"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, RecipeError, "share a name"),
        ({"variants": [{"name": "a", "after": "b"}]}, RecipeError, "comes after 'b'"),
        ({"variants": [{"name": "a", "memory": "dive"}]}, RecipeError, "memory"),
        ({"variants": [{"name": "a", "changes": {"optm": {}}}]}, UnknownKeyError, "variant 'a'"),
    ],
)
def test_mistakes_are_named(written, changes, error, told):
    written.write_text(yaml.safe_dump({**ABLATION, **changes}))
    with pytest.raises(error, match=told):
        load_ablation(written)
