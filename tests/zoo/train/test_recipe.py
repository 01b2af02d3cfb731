"""Recipes: TOML files, their overrides and what is said of wrong ones."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from eval.models.objectives import STUDY, parse_objective
from tests.factories import refusal
from zoo.train.recipe import (
    RECIPES,
    Recipe,
    differences,
    load_recipe,
    needs_labels,
    recipe_names,
    validate,
)

SECTIONS = ["backbone", "image", "train", "rate", "contrastive", "probe", "save"]
SMALL = """
name = "small"
tag = "t"

[backbone]
architecture = "resnet18"
name = "r18"

[image]
px = 32
store_px = 40

[train]
epochs = 3
batch_size = 512

[rate]
classification = 0.1
contrastive = 0.2
joint = 0.3
"""


def small(*overrides: str) -> Recipe:
    """The tiny recipe with overrides."""
    return load_recipe("tiny", overrides)


def refused(*overrides: str) -> str:
    return refusal(load_recipe, "tiny", overrides)


def written(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(text)
    return path


# ---------------------------------------------------------------- files


def test_the_shipped_recipes_are_listed_in_order() -> None:
    assert recipe_names() == sorted(p.name.removesuffix(".toml") for p in RECIPES.glob("*.toml"))


def test_the_study_and_the_small_one_ship() -> None:
    assert {"imagenet", "mini_imagenet", "tiny"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_loads_under_its_own_name(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_says_what_its_file_says(name: str) -> None:
    tree = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    told = load_recipe(name).model_dump(mode="json")
    lines = differences(tree, told)
    assert [line for line in lines if "was 'absent'" not in line] == []


def test_imagenet_is_the_study_s() -> None:
    recipe = load_recipe("imagenet")
    assert recipe.train.epochs == 400
    assert recipe.train.batch_size == 24 * 64
    assert recipe.contrastive.queue == 64000
    assert recipe.contrastive.temperature == 0.07
    assert recipe.contrastive.momentum == 0.999
    assert recipe.weights["ce+selfsupcon"] == {"selfsupcon": 0.5}
    assert recipe.weights["supcon+selfsupcon"] == {"selfsupcon": 0.5}


def test_mini_imagenet_is_the_study_s() -> None:
    recipe = load_recipe("mini_imagenet")
    assert (recipe.train.epochs, recipe.train.batch_size) == (300, 4 * 32)
    assert recipe.contrastive.queue == 16384
    assert recipe.weights["ce+selfsupcon"] == {"selfsupcon": 2.0}
    assert recipe.weights["supcon+selfsupcon"] == {"selfsupcon": 1.0}


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    assert load_recipe(str(written(tmp_path, SMALL))).name == "small"


def test_what_a_file_leaves_out_is_the_study_s(tmp_path: Path) -> None:
    recipe = load_recipe(str(written(tmp_path, SMALL)))
    assert recipe.contrastive.model_dump() == {
        "temperature": 0.07,
        "queue": 64000,
        "momentum": 0.999,
        "head_depth": 2,
        "head_hidden": 0,
        "head_dim": 128,
        "same_class_negatives_only": False,
    }
    assert recipe.train.schedule == "cosine"
    assert recipe.train.branches == ()
    assert recipe.projector.model_dump() == {  # t-ReX's
        "hidden_layers": 1,
        "hidden_dim": 2048,
        "bottleneck_dim": 256,
        "temperature": 0.1,
    }


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["train.branches=[2]"], "branches need schedule"),
        (["train.schedule=wsd", "train.branches=[5, 2]"], "[5, 2] must rise and stay below"),
        (["train.schedule=wsd", "train.branches=[9999]"], "[9999] must rise and stay below"),
        (["train.schedule=wsd", "train.branches=[1]", "train.warmup_epochs=0.95"], "of 1 epochs"),
        (["projector.hidden_layers=4"], "less than or equal to 3"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    overrides: list[str], reason: str, tmp_path: Path
) -> None:
    assert reason in refusal(load_recipe, str(written(tmp_path, SMALL)), overrides)


def test_a_shipped_name_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_text(SMALL)
    assert load_recipe("tiny").name == "tiny"


def test_a_finished_checkpoint_s_recipe_loads_again(tmp_path: Path) -> None:
    text = SMALL + '\n[run]\nobjective = "ce"\nimages_seen = 12\n[run.versions]\ntorch = "9"\n'
    plain = load_recipe(str(written(tmp_path, SMALL)))
    assert load_recipe(str(written(tmp_path, text))) == plain


def test_run_is_no_setting() -> None:
    assert refused("run.objective=ce").startswith("recipe 'tiny' has an unknown key 'run'")


def test_a_recipe_that_does_not_exist_is_told_a_near_one() -> None:
    assert refusal(load_recipe, "tinny") == (
        "recipe 'tinny' is neither shipped nor a file; did you mean 'tiny'?"
    )


def test_a_recipe_like_none_is_told_all_of_them() -> None:
    assert refusal(load_recipe, "zzzz").endswith(f"shipped are {', '.join(recipe_names())}")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert "is neither shipped nor a file" in refusal(load_recipe, str(tmp_path))


@pytest.mark.parametrize("text", ["name = ", "= 3", "[train\nepochs = 1", "a = 1\na = 2"])
def test_bad_toml_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert refusal(load_recipe, str(path)).startswith(f"recipe {path} is not valid TOML: ")


def test_bytes_that_are_no_text_are_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b'name = "\xff\xfe"')
    assert refusal(load_recipe, str(path)).startswith(f"recipe {path} is not valid TOML: ")


@pytest.mark.parametrize("section", ["backbone", "image", "train", "rate"])
def test_a_missing_section_is_named(section: str) -> None:
    tree = tomllib.loads(SMALL)
    del tree[section]
    assert refusal(validate, tree, "recipe x") == f"recipe x lacks {section!r}"


def test_a_missing_key_is_named_with_its_section() -> None:
    tree = tomllib.loads(SMALL)
    del tree["train"]["epochs"]
    assert refusal(validate, tree, "recipe x") == "recipe x lacks 'train.epochs'"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        small().train.epochs = 3  # type: ignore[misc]


# ---------------------------------------------------------------- unknown keys


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_key_is_told_its_near_name(section: str) -> None:
    key = next(iter(getattr(small(), section).model_dump()))
    assert refused(f"{section}.{key}s=1").startswith(
        f"recipe 'tiny' has an unknown key '{section}.{key}s'; did you mean {key!r}"
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_section_is_told_its_near_name(section: str) -> None:
    assert refused(f"{section}x.a=1") == (
        f"recipe 'tiny' has an unknown key '{section}x'; did you mean {section!r}?"
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_a_key_like_none_is_told_those_of_its_section(section: str) -> None:
    known = ", ".join(getattr(small(), section).model_dump())
    assert refused(f"{section}.zzzzzz=1") == (
        f"recipe 'tiny' has an unknown key '{section}.zzzzzz'; known here are {known}"
    )


def test_a_key_of_another_section_is_unknown() -> None:
    assert refused("train.temperature=1").startswith(
        "recipe 'tiny' has an unknown key 'train.temperature'"
    )


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("setting", "key", "shown"),
    [
        ("train.epochs=0", "train.epochs", "0"),
        ("train.epochs=many", "train.epochs", "'many'"),
        ("train.epochs=2.5", "train.epochs", "2.5"),
        ("train.epochs=", "train.epochs", "''"),
        ("train.batch_size=1", "train.batch_size", "1"),
        ("train.accumulate=0", "train.accumulate", "0"),
        ("train.momentum=1", "train.momentum", "1"),
        ("train.weight_decay=-1e-4", "train.weight_decay", "-0.0001"),
        ("train.weight_decay=nan", "train.weight_decay", "nan"),
        ("train.warmup_epochs=-1", "train.warmup_epochs", "-1"),
        ("train.clip_norm=-1", "train.clip_norm", "-1"),
        ("train.precision=bf61", "train.precision", "'bf61'"),
        ("train.seed=-1", "train.seed", "-1"),
        ("train=3", "train", "3"),
        ("rate.joint=0", "rate.joint", "0"),
        ("rate.joint=[0.1]", "rate.joint", "[0.1]"),
        ("image.px=7", "image.px", "7"),
        ("image.scale=[0.5,0.2]", "image.scale", "[0.5, 0.2]"),
        ("image.blur_sigma=[0,1]", "image.blur_sigma", "[0, 1]"),
        ("image.jitter=[0.4,0.4,0.4,0.2]", "image.jitter.3", "0.2"),
        ("image.jitter_p=1.1", "image.jitter_p", "1.1"),
        ("image.crop_pct=0", "image.crop_pct", "0"),
        ("contrastive.temperature=0", "contrastive.temperature", "0"),
        ("contrastive.queue=0", "contrastive.queue", "0"),
        ("contrastive.momentum=1.5", "contrastive.momentum", "1.5"),
        ("contrastive.head_depth=0", "contrastive.head_depth", "0"),
        ("contrastive.same_class_negatives_only=2", "contrastive.same_class_negatives_only", "2"),
        ("probe.k=0", "probe.k", "0"),
        ("save.every_epochs=0", "save.every_epochs", "0"),
        ("save.dtype=int8", "save.dtype", "'int8'"),
        ("backbone.name=ResNet", "backbone.name", "'ResNet'"),
        ("backbone.architecture=18", "backbone.architecture", "18"),
        ("backbone.model_args=3", "backbone.model_args", "3"),
        ("tag=a.b", "tag", "'a.b'"),
        ("name=''", "name", "''"),
        ("weights.ce+selfsupcon.selfsupcon=0", "weights.ce+selfsupcon.selfsupcon", "0"),
        ("weights.ce+selfsupcon=2", "weights.ce+selfsupcon", "2"),
    ],
)
def test_a_wrong_value_is_named_and_shown(setting: str, key: str, shown: str) -> None:
    assert refused(setting).startswith(f"recipe 'tiny': {key} = {shown}: ")


def test_a_range_s_sentence_says_its_order() -> None:
    assert refused("image.scale=[0.5,0.2]").endswith(
        ": must be two positive numbers, the smaller first"
    )


def test_a_list_that_is_too_short_is_told_what_it_lacks() -> None:
    assert refused("image.mean=[1,2]") == "recipe 'tiny' lacks 'image.mean.2'"


def test_weights_of_an_unknown_objective_name_a_near_one() -> None:
    sentence = refused("weights.ce+selfsubcon.ce=2")
    assert sentence.startswith("recipe 'tiny': unknown objective 'selfsubcon' in 'ce+selfsubcon'")
    assert "did you mean 'selfsupcon'" in sentence


def test_weights_of_a_term_that_the_objective_lacks_are_refused() -> None:
    assert refused("weights.ce+selfsupcon.supcon=2") == (
        "recipe 'tiny': weights of 'ce+selfsupcon' name 'supcon', no term of it"
    )


def test_weights_of_an_objective_in_another_order_count(tmp_path: Path) -> None:
    text = SMALL + '[weights]\n"selfsupcon+ce" = { selfsupcon = 3.0 }\n'
    recipe = load_recipe(str(written(tmp_path, text)))
    assert recipe.term_weights(parse_objective("ce+selfsupcon")) == {"selfsupcon": 3.0}


# ---------------------------------------------------------------- overrides


def test_an_override_changes_its_value_alone() -> None:
    assert differences(small().model_dump(), small("train.epochs=99").model_dump()) == [
        f"train.epochs was {small().train.epochs}, is 99"
    ]


def test_a_bare_word_is_a_string() -> None:
    assert small("train.precision=fp32").train.precision == "fp32"


def test_a_quoted_string_loses_its_quotes() -> None:
    assert small('tag="abc"').tag == "abc"


def test_a_list_is_a_list() -> None:
    assert small("image.scale=[0.08, 1.0]").image.scale == (0.08, 1.0)


def test_a_boolean_is_a_boolean() -> None:
    assert small("contrastive.same_class_negatives_only=true").contrastive.same_class_negatives_only


def test_a_table_is_a_table() -> None:
    assert small("backbone.model_args={a = 1}").backbone.model_args == {"a": 1}


def test_a_nested_key_leaves_its_neighbours() -> None:
    args = small().backbone.model_args
    assert small("backbone.model_args.channels=[8, 16]").backbone.model_args == {
        **args,
        "channels": [8, 16],
    }


def test_a_section_that_the_file_leaves_out_can_be_set(tmp_path: Path) -> None:
    path = str(written(tmp_path, SMALL))
    assert load_recipe(path, ["save.dtype=float16"]).save.dtype == "float16"


def test_a_weight_can_be_set_by_objective_and_term() -> None:
    weights = small("weights.ce+supcon.supcon=0.2").weights
    assert weights == {**small().weights, "ce+supcon": {"supcon": 0.2}}


def test_the_last_override_of_a_key_wins() -> None:
    assert small("train.epochs=5", "train.epochs=6").train.epochs == 6


def test_spaces_around_the_equals_sign_do_not_matter() -> None:
    assert small(" train.epochs = 7 ").train.epochs == 7


def test_a_value_may_hold_an_equals_sign() -> None:
    assert small("backbone.architecture=a=b").backbone.architecture == "a=b"


@pytest.mark.parametrize("text", ["epochs", "", "=3", "  =3"])
def test_an_override_without_key_or_value_is_shown_how(text: str) -> None:
    assert refused(text) == f"--set {text!r} is not a setting; write --set train.epochs=10"


def test_a_value_is_no_section() -> None:
    assert refused("train.epochs.x=3") == (
        "--set 'train.epochs.x=3': 'epochs' is not a section of the recipe"
    )


# ---------------------------------------------------------------- what a recipe tells


@pytest.mark.parametrize(
    ("objective", "rate"),
    [("ce", 0.1), ("ce-strong", 0.1), ("supcon", 0.2), ("selfsupcon", 0.2), ("ce+selfsupcon", 0.3)],
)
@pytest.mark.parametrize("batch", [64, 256, 512])
def test_the_rate_is_the_family_s_for_256_images(objective: str, rate: float, batch: int) -> None:
    tree = tomllib.loads(SMALL)
    tree["train"]["batch_size"] = batch
    recipe = validate(tree, "recipe")
    assert recipe.learning_rate(parse_objective(objective)) == pytest.approx(rate * batch / 256)


def test_imagenet_s_peak_rate_is_the_study_s() -> None:
    rate = load_recipe("imagenet").learning_rate(parse_objective("supcon+selfsupcon"))
    assert rate == pytest.approx(0.02 * 24)


@pytest.mark.parametrize("objective", STUDY)
def test_labels_are_needed_by_the_objective(objective: str) -> None:
    assert needs_labels(small(), parse_objective(objective)) == (objective != "selfsupcon")


def test_labels_are_needed_by_the_same_class_ablation() -> None:
    recipe = small("contrastive.same_class_negatives_only=true")
    assert needs_labels(recipe, parse_objective("selfsupcon"))


# ---------------------------------------------------------------- differences


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a was 1, is 2"]),
        ({"a": "x"}, {"a": "y"}, ["a was 'x', is 'y'"]),
        ({"a": 1}, {}, ["a was 1, is 'absent'"]),
        ({}, {"a": [1]}, ["a was 'absent', is [1]"]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a.b.c was 1, is 2"]),
        ({"a": {"b": 1}}, {"a": 3}, ["a was {'b': 1}, is 3"]),
        ({"b": 1, "a": {"z": 1, "y": 1}}, {"b": 2, "a": {"z": 2, "y": 2}}, None),
    ],
)
def test_differences_are_told_by_key(
    old: dict[str, Any], new: dict[str, Any], lines: list[str] | None
) -> None:
    expected = ["a.y was 1, is 2", "a.z was 1, is 2", "b was 1, is 2"] if lines is None else lines
    assert differences(old, new) == expected
