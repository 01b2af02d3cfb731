"""Which model to try first, and what such advice has been worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from eval.__main__ import main
from eval.analysis.finding import write_finding
from eval.analysis.predictors import PREDICTORS, identity, measure
from eval.analysis.recommend import Evidence, advise, evidence, findings_at_hand, shipped, worth
from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.names import ZOO_FOLDER
from eval.models.resolve import resolve
from eval.results.store import read_shelf
from eval.tasks.registry import TASKS
from tests.factories import make_task

MODELS = ["random:test_resnet", "random:test_resnet@1", "random:test_vit"]


def told(task: str, predicted: list[float], measured: list[float | None]) -> Evidence:
    names = [f"m{i}" for i in range(len(predicted))]
    return Evidence(
        task, task,
        {n: dict.fromkeys(PREDICTORS, p) for n, p in zip(names, predicted, strict=True)},
        {n: m for n, m in zip(names, measured, strict=True) if m is not None},
    )  # fmt: skip


TOLD = [
    told("a", [3, 2, 1, 0], [0.9, 0.8, 0.7, 0.1]),  # the first choice is best
    told("b", [0, 1, 2, 3], [0.9, 0.8, 0.7, 0.1]),  # the worst order: 80 points short
    told("c", [1, 3, 2, 9], [0.58, 0.6, 0.61, None]),  # of three; one point short
    told("d", [3, 2, 1, 0], [0.5, None, None, 0.1]),  # two measured models order nothing
]


def test_hits_and_regret_by_hand() -> None:
    found = worth(TOLD, "log_me")
    assert found is not None
    assert found.tasks == ("a", "b", "c")
    assert found.models == (3, 4)
    assert found.hit1 == pytest.approx(1 / 3)
    assert found.hit3 == pytest.approx(2 / 3)  # a, and c where all of three are
    assert found.regret == pytest.approx((0 + 0.8 + 0.01) / 3)
    assert found.hit1_random == pytest.approx((1 / 4 + 1 / 4 + 1 / 3) / 3)
    interval = binomtest(1, 3).proportion_ci(method="wilson")
    assert (found.hit1_low, found.hit1_high) == pytest.approx((interval.low, interval.high))
    assert found.tau_low <= found.tau <= found.tau_high
    assert "On 3 other tasks with 3 to 4 measured models" in found.sentence


def test_the_model_that_is_best_elsewhere_is_no_clairvoyant() -> None:
    """It is chosen from the other tasks alone: m0 for a and b, and m0 for c, where m2 is best."""
    found = worth(TOLD, "log_me")
    assert found is not None
    assert found.hit1_always == pytest.approx(2 / 3)
    assert found.regret_always == pytest.approx(0.03 / 3)
    swapped = [told("a", [1, 2, 3], [0.9, 0.5, 0.1]), told("b", [1, 2, 3], [0.1, 0.5, 0.9])]
    found = worth(swapped, "log_me")
    assert found is not None
    assert found.hit1_always == 0  # each task's best is the other's worst
    assert found.regret_always == pytest.approx(0.8)


def test_judged_on_the_models_that_are_asked_for() -> None:
    found = worth(TOLD, "log_me", ["m0", "m1", "m2"])
    assert found is not None
    assert found.models == (3, 3)
    assert worth(TOLD, "log_me", ["m0", "m1"]) is None
    assert worth(TOLD[:1], "log_me") is None  # one task says nothing of advice


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """(results of three models on two tasks with their predictors, cache, three tasks)."""
    root = tmp_path_factory.mktemp("recommend")
    tasks = [
        f"parquet:{make_task(root / name, classes=3, train=9, test=6, seed=seed)}"
        for seed, name in enumerate("abc")
    ]
    where = ["--results", str(root / "r"), "--cache", str(root / "cache"), "--device", "cpu"]
    assert main(["run", *MODELS, "--task", *tasks[:2], "--protocol", "linear", *where]) == 0
    for task in tasks[:2]:
        assert main(["analyze", "predictors", *MODELS, "--task", task, *where]) == 0
    return root / "r", root / "cache", tasks


@pytest.mark.slow
def test_command(scored: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    results, cache, tasks = scored
    where = ["--results", str(results), "--cache", str(cache), "--device", "cpu"]
    capsys.readouterr()
    assert main(["recommend", *MODELS, "--task", tasks[2], *where]) == 0
    out = capsys.readouterr().out
    assert "On 2 other tasks with 3 measured models" in out
    assert main(["recommend", *MODELS, "--task", tasks[2], *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (numbers,) = {k: v for m in said["models"].values() for k, v in m.items()}.items()
    best = max(MODELS, key=lambda m: said["models"][m][numbers[0]]["log_me"])
    assert said["order"][0] == best
    assert said["same_models"]
    assert f"Try {best} first" in out
    # a task is not evidence for itself: the other one alone is too little, so the zoo's stands in
    assert main(["recommend", *MODELS, "--task", tasks[0], *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["same_models"]
    assert "measured with other models than these" in said["sentence"]
    assert main(["recommend", *MODELS, "--task", tasks[2], *where, "--by", "logme"]) == 2
    assert "did you mean 'log_me'" in capsys.readouterr().err


def test_what_was_measured_later_counts(
    scored: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    """Findings hold what was at hand when they were made; the shelf fills them up."""
    results, _, _ = scored
    found = [f for f in findings_at_hand(results)[1:] if len(f.tasks) == 1]
    measured = [f for f in found if any(next(iter(f.values["measured"].values())).values())]
    forgetful = []
    for finding in measured:
        key, scores = next(iter(finding.values["measured"].items()))
        values = finding.values | {"measured": {key: dict.fromkeys(scores)}}
        forgetful.append(finding.model_copy(update={"values": values}))
    held = [r for _, r in read_shelf(results).results]
    assert [e.measured for e in evidence(forgetful)] == [{}, {}]
    assert evidence(forgetful, held) == evidence(measured)


def test_findings_of_another_form_are_passed_over(
    scored: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    results, _, _ = scored
    finding = findings_at_hand(results)[1]
    odd = finding.model_copy(update={"values": {"models": [], "measured": [0.5]}})
    assert evidence([odd]) == []
    write_finding(tmp_path, odd)
    (tmp_path / "analyses" / "predictors" / "note.json").write_text("{}")
    assert len(findings_at_hand(tmp_path)) == 2  # the shipped one and the odd one
    lonely = advise(finding, [], [], "log_me")
    assert "is not known here" in lonely.sentence


# ------------------------------------------------------------------ what ships


def test_the_shipped_measurements_are_those_of_the_cards() -> None:
    """Every measured number of a checkpoint on a declared set is that of its model card."""
    finding = shipped()
    cards = {
        (identity(r.model), r.task.split_hash): r.score("top1").value  # type: ignore[union-attr]  # linear has it
        for _, r in read_shelf(ZOO_FOLDER).results
        if r.protocol.name == "linear"
    }
    seen = 0
    for task, scores in zip(finding.tasks, finding.values["measured"].values(), strict=True):
        for model, top1 in zip(finding.models, scores.values(), strict=True):
            wanted = cards.get((identity(model), task.split_hash))
            if wanted is not None:
                assert top1 == wanted
                seen += 1
    assert seen >= 60
    assert {m.weights_sha256 for m in finding.models} >= {key[0][:64] for key in cards}
    assert all("/" not in t.source for t in finding.tasks)  # nobody's folders


@pytest.mark.slow
def test_a_shipped_prediction_is_what_the_command_finds(cache: Path) -> None:
    finding = shipped()
    task = load_task("digits", cache)
    (model,) = (m for m in finding.models if m.id == "zoo:resnet18_narrow.ce_tin100")
    bank = encode(
        load(resolve(model.spec, cache, None)), task, cache, Workers("cpu"), Precision("fp32")
    ).bank
    stored = finding.values["models"][model.id]["digits"]
    assert stored == pytest.approx(measure(bank), rel=0.01)  # made in bf16
    (info,) = (t for t in finding.tasks if t.name == "digits")
    assert info.split_hash == task.split_hash


def test_the_page_s_claim_about_the_advice() -> None:
    """The numbers that eval/analysis/README.md states are those of the shipped evidence."""
    found = worth(evidence([shipped()]), "log_me")
    assert found is not None
    assert len(found.tasks) >= 20
    assert not np.isnan(found.tau)
    page = Path(__file__).resolve().parents[2] / "eval" / "analysis" / "README.md"
    text = " ".join(page.read_text().split())
    assert f"in {100 * found.hit1:.0f} % of {len(found.tasks)} tasks" in text
    assert f"fell {100 * found.regret:.1f} points short on the mean" in text
    zoo = [identity(m) for m in shipped().models if m.id.startswith("zoo:")]
    own = [e for e in evidence([shipped()]) if not TASKS[e.task].embedded]
    real = worth(own, "log_me", zoo)
    assert real is not None
    assert (
        f"{100 * real.hit1:.0f} % and {100 * real.regret:.1f} points short against "
        f"{100 * real.hit1_always:.0f} % and {100 * real.regret_always:.1f}"
    ) in text
