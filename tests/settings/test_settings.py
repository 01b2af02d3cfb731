"""Settings from the command line: types, bounds, near names; and what they say on the board."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Annotated, Any, get_origin, get_type_hints

import pytest

from eval.analysis import ANALYSES
from eval.protocols import PROTOCOLS
from eval.protocols.requested import SMALL_GRID, requested
from eval.results.leaderboard import score_size, score_title, split_views
from eval.results.names import shown
from eval.settings.assign import with_setting
from eval.settings.bounds import AnyText, Between, Check, MayBeEmpty, OneOf
from eval.settings.protocols import Fewshot, Finetune, Linear, LinearSgd
from tests.factories import Cli, refusal


def test_overrides_keep_their_types() -> None:
    found = requested(
        ["finetune", "linear-sgd", "knn"],
        ["finetune.epochs=10", "finetune.lrs=[1, 0.5]", "finetune.halving=true",
         "linear-sgd.momentum=0", "linear-sgd.batch_sizes=64", "knn.ks=[1,5]"],
    )  # fmt: skip
    assert found["finetune"] == Finetune(epochs=10, lrs=(1.0, 0.5), halving=True)
    assert found["linear-sgd"] == LinearSgd(momentum=0.0, batch_sizes=(64,))
    assert type(found["finetune"].lrs[0]) is float  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("finetune.epoch=10", "no setting 'epoch'; did you mean 'epochs'"),
        ("finetune.epochs=ten", "epochs takes int values, not 'ten'"),
        ("finetune.epochs=1.5", "epochs takes int values, not 1.5"),
        ("finetune.epochs=true", "epochs takes int values, not True"),
        ("finetune.epochs=0", "epochs must be at least 1, got 0"),
        ("finetune.validation=2", "validation must be at most 0.99, got 2"),
        ("finetune.lrs=[]", "lrs needs at least one value"),
        ("finetune.lrs=[nan]", "lrs must be at least 1e-12, got nan"),
        ("finetune.scale=[0.5]", "scale takes two values, the smaller first"),
        ("finetune.scale=[0.9, 0.5]", "scale takes two values, the smaller first"),
        ("finetune.halving=1", "halving takes bool values, not 1"),
        ("finetune.fractions=[1.5]", "--train-fraction must lie above 0 and up to 1, got 1.5"),
        ("finetune.per_class=0", "--train-per-class must be at least 1, got 0"),
        ("linear.validation=0.5", "protocol 'linear' is not among finetune"),
        ("finetuen.epochs=1", "unknown protocol 'finetuen'; did you mean 'finetune'"),
        ("epochs=10", "is not a setting; write --set finetune.epochs=10"),
        ("finetune.epochs", "is not a setting; write --set finetune.epochs=10"),
    ],
)
def test_bad_overrides(override: str, why: str) -> None:
    assert why in refusal(lambda: requested(["finetune"], [override]))


def test_a_flag_is_named_as_it_was_written() -> None:
    message = refusal(lambda: with_setting(Fewshot(), "shots", [0], "--shots"))
    assert message == "--shots must be at least 1, got 0"


def test_the_small_grid_is_a_part_of_the_full_one() -> None:
    full = LinearSgd()
    for name, values in SMALL_GRID.items():
        assert set(values) <= set(getattr(full, name))


@pytest.mark.parametrize(
    ("value", "text"),
    [((0.01, 0.1), "0.01+0.1"), ([128, 32], "128+32"), ((), "none"), (0.07, "0.07"), (True, "True"),
     ("x", "x"), (1.0, "1")],
)  # fmt: skip
def test_settings_in_names(value: Any, text: str) -> None:
    assert shown(value) == text


def test_titles() -> None:
    names = ["top1", "top1_5shot", "top1_0.5pct", "top1_10pct", "top1_5each"]
    assert [score_title(n) for n in names] == [
        "top-1", "5-shot top-1", "top-1 with 0.5 % of train", "top-1 with 10 % of train",
        "top-1 with 5 training images a class",
    ]  # fmt: skip
    assert sorted(names, key=score_size)[0] == "top1"
    assert split_views("epochs=5, views=4") == ("@4", "epochs=5")
    assert split_views("") == ("", "")


def test_protocols_and_flags(cli: Cli) -> None:
    listed = cli("list", "protocols", "--verbose")
    assert listed.code == 0
    for line in ("finetune.epochs", "linear-sgd.lrs", "[0.01, 0.001]", "false"):
        assert line in listed.out
    rows = cli("list", "protocols", "--verbose", "--json").json
    assert {"setting": "linear.validation", "default": "0.2"} in rows
    assert Linear().validation == 0.2
    for flags, why in (
        (["--protocol", "knn", "--views", "2"], "--views has no effect with protocol knn"),
        (["--protocol", "knn", "--grid", "small"], "--grid small has no effect with protocol knn"),
        (["--protocol", "knn", "--train-fraction", "0.5"], "--train-fraction has no effect"),
        (["--protocol", "linear", "--train-fraction", "2"], "must lie above 0 and up to 1, got 2"),
        (["--set", "finetune.epochs=3"], "protocol 'finetune' is not among fewshot, knn, linear"),
    ):
        ran = cli("run", "random:test_resnet", "--task", "digits", *flags)
        assert (ran.code, ran.out) == (2, "")
        assert why in ran.err


@pytest.mark.parametrize(
    "kind", [*PROTOCOLS.values(), *ANALYSES.values()], ids=lambda kind: kind.name
)
def test_every_setting_says_what_it_may_be(kind: Any) -> None:
    """A number its bounds, a text its words or who checks it; the defaults are within them."""
    for name, hint in get_type_hints(kind.settings, include_extras=True).items():
        default = getattr(kind.settings(), name)
        if type(default) is bool:
            continue
        assert get_origin(hint) is Annotated, name
        rules = {type(rule): rule for rule in hint.__metadata__}
        values = default if type(default) is tuple else (default,)
        if Between in rules:
            assert [rules[Between].fault(v) for v in values] == [""] * len(values)
        else:
            assert str(hint).count("str"), name
            assert {OneOf, Check, AnyText} & rules.keys(), name
        if OneOf in rules:
            assert set(values) <= set(rules[OneOf].words)
        assert values or MayBeEmpty in rules


@pytest.mark.parametrize(
    ("bound", "value", "fault"),
    [
        (Between(1, 5), 1, ""), (Between(1, 5), 5, ""), (Between(1, 5), 0, "be at least 1"),
        (Between(1, 5), 6, "be at most 5"), (Between(1, 5), float("nan"), "be at least 1"),
        (Between(0, 1, above=True), 0, "lie above 0 and up to 1"),
        (Between(0, 1, above=True), 1, ""),
        (Between(0, 1, above=True), float("nan"), "lie above 0 and up to 1"),
    ],
)  # fmt: skip
def test_bounds(bound: Between, value: float, fault: str) -> None:
    assert bound.fault(value) == fault


def test_hooks_are_there_and_a_plan_s_import_no_torch() -> None:
    hooks = [h for p in PROTOCOLS.values() for h in (p.complete, p.refuse, p.merge, p.cost) if h]
    assert len(hooks) == 10
    for hook in hooks:
        module, _, function = hook.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    early = {h.partition(":")[0] for p in PROTOCOLS.values()
             for h in (p.complete, p.refuse, p.merge) if h}  # fmt: skip
    code = f"import sys, {', '.join(sorted(early))}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
