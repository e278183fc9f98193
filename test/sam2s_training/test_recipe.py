"""Recipes: one file, checked to the last key."""

import pytest
import yaml
from tiny import CONTENT, tiny

from sam2s_training.recipe import find_recipe, load_recipe, parse_recipe, shipped_recipes
from sam2s_training.schema import RecipeError, UnknownKeyError, merged


def refused(**changes):
    with pytest.raises(RecipeError) as error:
        tiny(**changes)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "wrong", "right"),
    [
        ({"optimm": {}}, "optimm", "optim"),
        ({"optim": {"learning": 1}}, "learning", "lr_end"),
        ({"optim": {"warm_up": 3}}, "warm_up", "warmup"),
        ({"losses": {"ambiguty": "entropy"}}, "ambiguty", "ambiguity"),
        ({"data": {"sampler": {"scatered": 2}}}, "scatered", "scattered"),
        ({"data": {"parts": {"x": {"sinthetic": {}}}}}, "sinthetic", "synthetic"),
        ({"model": {"presett": "nano"}}, "presett", "preset"),
        ({"log": {"evry": 3}}, "evry", "every"),
        ({"phases": [{"name": "a", "steps": 1, "promts": {}}]}, "promts", "prompts"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(changes, wrong, right):
    with pytest.raises(UnknownKeyError) as error:
        tiny(**changes)
    assert f"'{wrong}'" in str(error.value)
    if wrong != "learning":
        assert f"did you mean '{right}'" in str(error.value)
    assert right in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optim": {"lr": "fast"}}, "expected a number"),
        ({"optim": {"batch": 2.5}}, "expected a whole number"),
        ({"optim": {"batch": True}}, "expected a whole number"),
        ({"optim": {"batch": 0}}, "at least 1"),
        ({"optim": {"betas": [0.9]}}, "expected 2 values"),
        ({"optim": {"precision": "bfloat"}}, "did you mean 'bfloat16'"),
        ({"optim": {"ema": 1.0}}, "must lie in [0, 1)"),
        ({"losses": {"ambiguity": "entropie"}}, "did you mean 'entropy'"),
        ({"losses": []}, "expected a mapping"),
        ({"image_size": 100}, "multiple of 32"),
        ({"model": {"preset": "nani"}}, "Did you mean 'nano'"),
        ({"phases": []}, "phases"),
        ({"phases": [{"name": "a"}]}, "'steps' is missing"),
        ({"phases": [{"name": "a", "steps": 0}]}, "at least 1"),
        ({"phases": [{"name": "a", "steps": 1}, {"name": "a", "steps": 1}]}, "share a name"),
        ({"data": {"parts": {"endoscope": None}}}, "no source"),
        ({"data": {"parts": {"endoscope": {"synthetic": {"overrides": {"tools": 9}}}}}}, "tools"),
    ],
)
def test_a_value_that_cannot_be_is_refused(changes, told):
    assert told in refused(**changes)


def test_a_wrong_default_is_refused_though_every_phase_replaces_it():
    phases = [{"name": "a", "steps": 1, "optim": {"lr": 1.0}}]
    assert "optim" in refused(optim={"lr": "fast"}, phases=phases)


def test_a_phase_changes_only_what_it_names():
    recipe = tiny(
        optim={"lr": 0.5, "clip": 0.25},
        phases=[
            {"name": "a", "steps": 3},
            {"name": "b", "steps": 4, "image_size": 128, "optim": {"lr": 0.125}},
        ],
    )
    first, second = recipe.phases
    assert (first.optim.lr, first.optim.clip, first.image_size) == (0.5, 0.25, 64)
    assert (second.optim.lr, second.optim.clip, second.image_size) == (0.125, 0.25, 128)
    assert first.data == second.data
    assert recipe.steps == 7
    assert [recipe.locate(step) for step in (0, 2, 3, 6, 7)] == [
        (0, 0),
        (0, 2),
        (1, 0),
        (1, 3),
        (2, 0),
    ]


def test_a_recipe_survives_being_written_out():
    recipe = tiny(data={"augment": {"hue": 3.0}})
    text = yaml.safe_dump(recipe.plain())
    again = parse_recipe(yaml.safe_load(text), "again")
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_the_hash_follows_what_is_learned_and_nothing_else():
    digest = tiny().digest()
    assert tiny(log={"every": 7}).digest() == digest
    assert tiny(data={"loader": {"ahead": "processes", "workers": 3}}).digest() == digest
    assert tiny(optim={"lr": 0.123}).digest() != digest
    assert tiny(seed=6).digest() != digest
    assert tiny(data={"sampler": {"reverse": 0.25}}).digest() != digest


@pytest.mark.parametrize(
    "name",
    [name for name, path in shipped_recipes().items() if "variants:" not in path.read_text()],
)
def test_every_shipped_recipe_can_be_followed(name):
    assert load_recipe(name).steps > 0


def test_changes_from_the_command_line_are_laid_over(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    recipe = load_recipe(path, ["optim.lr=1e-2", "name=other"])
    assert (recipe.phases[0].optim.lr, recipe.name) == (0.01, "other")
    with pytest.raises(RecipeError, match=r"optim\.lr"):
        load_recipe(path, ["lr"])
    with pytest.raises(UnknownKeyError, match="did you mean 'lr'"):
        load_recipe(path, ["optim.rl=3"])


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match="nano"):
        find_recipe(tmp_path / "missing.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(RecipeError, match=r"broken\.yaml"):
        load_recipe(path)
    path.write_text("just text")
    with pytest.raises(RecipeError, match="expected a mapping"):
        load_recipe(path)


def test_merging_replaces_lists_and_joins_mappings():
    assert merged({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}
