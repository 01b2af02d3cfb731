"""Names of objectives."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.models.objectives import OBJECTIVES, PAIRS, STUDY, TERMS, parse_objective
from tests.factories import refusal


def terms(text: str) -> tuple[tuple[str, float | None], ...]:
    return parse_objective(text).terms


def refused(text: str) -> str:
    return refusal(parse_objective, text)


# ---------------------------------------------------------------- what a name says


@pytest.mark.parametrize("name", STUDY)
def test_every_objective_of_the_study_keeps_its_name(name: str) -> None:
    assert parse_objective(name).name == name


def test_a_weight_not_written_is_left_to_the_recipe() -> None:
    assert terms("ce+0.5*selfsupcon") == (("ce", None), ("selfsupcon", 0.5))


@pytest.mark.parametrize(
    ("text", "weight"),
    [("2*ce", 2.0), (".5*ce", 0.5), ("1e-3*ce", 0.001), ("2e2*ce", 200.0), ("1*ce", 1.0)],
)
def test_a_weight_is_any_positive_number(text: str, weight: float) -> None:
    assert terms(text) == (("ce", weight),)


@given(st.floats(1e-9, 1e9).map(lambda x: f"{x:.12f}"))
def test_a_weight_is_read_to_its_last_digit(text: str) -> None:
    assert terms(f"ce+{text}*supcon")[1] == ("supcon", float(text))


def test_case_and_spaces_do_not_matter() -> None:
    assert parse_objective(" CE + 0.5 * SelfSupCon ") == parse_objective("ce+0.5*selfsupcon")


@pytest.mark.parametrize("name", [name for name in STUDY if "+" in name])
def test_a_joint_objective_has_one_name_in_whatever_order_it_is_written(name: str) -> None:
    names = {parse_objective("+".join(order)).name for order in permutations(name.split("+"))}
    assert names == {name}


def test_a_sum_that_the_study_lacks_has_one_name_too() -> None:
    assert parse_objective("supcon+ce").name == parse_objective("ce+supcon").name


def test_a_weight_moves_with_its_term() -> None:
    assert terms("0.5*selfsupcon+3*ce") == (("ce", 3.0), ("selfsupcon", 0.5))


def test_a_sum_that_the_study_lacks_is_an_objective_too() -> None:
    assert parse_objective("ce+supcon+selfsupcon").name == "ce+supcon+selfsupcon"


def test_a_name_and_a_slug_carry_no_weights() -> None:
    objective = parse_objective("2*supcon+0.5*selfsupcon")
    assert (objective.name, objective.slug) == ("supcon+selfsupcon", "supcon_selfsupcon")


def test_a_slug_keeps_the_dash() -> None:
    assert parse_objective("ce-strong").slug == "ce-strong"


def test_slugs_tell_the_objectives_of_the_study_apart() -> None:
    assert len({parse_objective(name).slug for name in STUDY}) == len(STUDY)


def test_shown_is_the_name_in_the_paper() -> None:
    assert [parse_objective(name).shown for name in STUDY] == [
        "CE",
        "CE (strong aug)",
        "SelfSupCon",
        "SupCon",
        "CE+SelfSupCon",
        "SupCon+SelfSupCon",
    ]


def test_families_are_classification_contrastive_and_joint() -> None:
    assert [parse_objective(name).family for name in STUDY] == [
        "classification",
        "classification",
        "contrastive",
        "contrastive",
        "joint",
        "joint",
    ]


def test_a_weight_does_not_make_a_single_term_joint() -> None:
    assert parse_objective("2*supcon").family == "contrastive"


def test_only_selfsupcon_alone_needs_no_labels() -> None:
    assert [name for name in STUDY if not parse_objective(name).needs_labels] == ["selfsupcon"]


def test_only_cross_entropy_alone_needs_no_second_view() -> None:
    assert [name for name in STUDY if not parse_objective(name).contrastive] == ["ce", "ce-strong"]


@pytest.mark.parametrize(("joint", "plain"), PAIRS)
def test_a_pair_differs_by_the_self_supervised_term(joint: str, plain: str) -> None:
    assert terms(joint) == (*terms(plain), ("selfsupcon", None))


def test_the_objectives_are_made_of_all_terms() -> None:
    assert {term for name in OBJECTIVES for term in name.split("+")} == set(TERMS)


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("ce", "weak"),
        ("ce-strong", "strong"),
        ("ce-mlp", "strong"),
        ("ce+ce-mlp", "strong"),
        ("ce-mlp+selfsupcon", "two strong"),
        ("nscl", "two strong"),
    ],
)
def test_a_name_tells_its_views(name: str, views: str) -> None:
    assert parse_objective(name).views == views


def test_names_are_read_without_torch() -> None:
    code = "import sys, eval.models.objectives; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "near"),
    [("supcn", "supcon"), ("selfsup", "selfsupcon"), ("ce-stong", "ce-strong")],
)
def test_a_misspelt_objective_is_told_its_near_name(text: str, near: str) -> None:
    sentence = refused(text)
    assert sentence.startswith(f"unknown objective {text!r}; did you mean ")
    assert repr(near) in sentence


def test_a_misspelt_term_is_shown_within_its_objective() -> None:
    assert refused("ce+selfsubcon").startswith(
        "unknown objective 'selfsubcon' in 'ce+selfsubcon'; did you mean 'selfsupcon'"
    )


def test_a_near_name_is_offered_once() -> None:
    assert refused("supcn").count("'supcon'") == 1


def test_an_underscore_for_the_plus_is_told_the_joint_name() -> None:
    assert "'ce+selfsupcon'" in refused("ce_selfsupcon")


def test_an_objective_like_none_is_told_all_of_them() -> None:
    assert refused("vicreg") == (
        f"unknown objective 'vicreg'; objectives are {', '.join(OBJECTIVES)}"
    )


@pytest.mark.parametrize("text", ["", "+", "ce+", "+ce", "ce++supcon", "0.5*", "ce+0.5* "])
def test_an_empty_term_is_no_objective(text: str) -> None:
    assert refused(text).startswith("unknown objective ''")


def test_a_term_cannot_be_named_twice() -> None:
    assert refused("ce+0.5*ce") == "objective 'ce+0.5*ce' names 'ce' twice"


@pytest.mark.parametrize(
    "weight",
    ["0", "0.0", "-1", "nan", "inf", "1e999", "1e-999", "x", "", "2*3", "1.", "0x1", "1_0"],
)
def test_a_weight_that_is_no_positive_number_is_quoted(weight: str) -> None:
    assert refused(f"ce+{weight}*selfsupcon") == (
        f"objective 'ce+{weight}*selfsupcon': weight {weight!r} is not a positive number; "
        "write ce+0.5*selfsupcon"
    )


@pytest.mark.parametrize("text", ["ce-strong+selfsupcon", "supcon+2*ce-strong", "ce+ce-strong"])
def test_the_control_cannot_be_joined(text: str) -> None:
    assert refused(text).startswith(f"objective {text!r}: 'ce-strong' is the control of 'ce' alone")
