"""Images on which two models disagree: the very answers behind the stored results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eval.common.images import decode
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.protocols import PROTOCOLS
from eval.protocols.outcome import Outcome
from eval.results.schema import Result
from eval.results.store import read_result
from eval.run.execute import execute
from eval.run.plan import Request, plan
from eval.settings.protocols import Knn, Linear
from space.examples_disagreement import Case, choose, disagreements, predictions
from tests.factories import make_task, refusal

OTHER = "random:test_resnet @32px"
TIMES = re.compile(rb'"created": "[^"]*"|"seconds": \{[^}]*\}')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("data") / "photos", test=30)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(folder: Path, shared_cache: Path) -> TaskData:
    return load_task(f"parquet:{folder}", shared_cache)


def run(
    folder: Path, cache: Path, results: Path, model: str, size: int | None = None
) -> list[Path]:
    """Score as the command line does; the result files."""
    request = Request(
        [model], [f"parquet:{folder}"], {"linear": Linear(), "knn": Knn()}, cache, results,
        img_size=size, precision="fp32",
    )  # fmt: skip
    cells = plan(request)
    assert execute(request, cells).exit_code == 0
    return [cell.path for cell in cells]


@pytest.fixture(scope="module")
def stored(
    folder: Path, shared_cache: Path, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Result]:
    """By model string and protocol."""
    out = tmp_path_factory.mktemp("results")
    local = f"local-dir:{model_dir}"
    found = {}
    for shown, model, size in ((local, local, None), (OTHER, "random:test_resnet", 32)):
        for path in run(folder, shared_cache, out, model, size):
            result = read_result(path)
            found[shown, result.protocol.name] = result
    return found


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_right_and_wrong_are_those_of_the_result(
    stored: dict[tuple[str, str], Result], shared_cache: Path, task: TaskData, protocol: str
) -> None:
    right = {}
    for (model, name), result in stored.items():
        if name != protocol:
            continue
        answer = predictions(model, task, shared_cache, protocol, "fp32", 0)
        assert answer.dtype == np.int64
        right[model] = answer == task.test.labels
        held = result.samples["top1"].values().astype(bool)
        assert right[model].tolist() == held.tolist()
    a, b = right
    whole = disagreements(
        a, b, task.where, None, shared_cache, protocol, most=10**6, precision="fp32"
    )
    pairs = list(zip(right[a].tolist(), right[b].tolist(), strict=True))
    counts = (whole.a_alone, whole.b_alone, whole.both, whole.neither)
    kinds = ((True, False), (False, True), (True, True), (False, False))
    assert counts == tuple(pairs.count(kind) for kind in kinds)
    assert (whole.images, whole.protocol) == (len(pairs), protocol)
    cases = whole.cases
    assert {c.row for c in cases} == set(np.flatnonzero(right[a] ^ right[b]))
    assert {c.row for c in cases if c.a_right} == set(np.flatnonzero(right[a] & ~right[b]))
    assert cases


def test_a_case_shows_its_own_image(
    stored: dict[tuple[str, str], Result], shared_cache: Path, task: TaskData, model_dir: Path
) -> None:
    def ask(first: str, second: str, most: int = 6) -> list[Case]:
        return disagreements(first, second, task.where, None, shared_cache, "knn", most,
                             precision="fp32").cases  # fmt: skip

    local = f"local-dir:{model_dir}"
    cases = ask(local, OTHER)
    assert 0 < len(cases) <= 6
    for case in cases:
        source = int(task.test.rows[case.row])
        ((_, data),) = task.test.source.images(np.array([source]))
        assert np.array_equal(np.asarray(case.image), np.asarray(decode(data)))
        assert case.truth == task.classes[task.test.labels[case.row]]
        right = case.predicted_a if case.a_right else case.predicted_b
        wrong = case.predicted_b if case.a_right else case.predicted_a
        assert right == case.truth != wrong
        assert wrong in task.classes
    assert [c.row for c in ask(local, OTHER)] == [c.row for c in cases]
    back = ask(OTHER, local)
    assert {(c.row, c.predicted_a, c.predicted_b, c.a_right) for c in back} == {
        (c.row, c.predicted_b, c.predicted_a, not c.a_right) for c in cases
    }
    assert ask(local, local) == ()


@given(hnp.arrays(bool, st.integers(0, 30)), st.integers(0, 10**6), st.integers(0, 14))
def test_the_choice_is_balanced_and_as_large_as_it_can_be(
    a: np.ndarray, seed: int, most: int
) -> None:
    b = np.random.RandomState(seed).uniform(size=len(a)) < 0.5
    chosen = choose(a, b, most)
    mine, theirs = int((a & ~b).sum()), int((b & ~a).sum())
    assert len(chosen) == min(most, mine + theirs) == len(set(chosen.tolist()))
    assert all(a[i] != b[i] for i in chosen)
    for_a = int(a[chosen].sum())
    assert a[chosen].tolist() == sorted(a[chosen].tolist(), reverse=True)
    if min(mine, theirs) >= (most + 1) // 2:
        assert for_a - (len(chosen) - for_a) in (0, 1)
    elif mine + theirs >= most:  # the smaller kind is all there
        assert for_a == mine or len(chosen) - for_a == theirs


def test_result_files_keep_no_predictions(
    folder: Path, shared_cache: Path, model_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """They are what they were before there were any."""
    local = f"local-dir:{model_dir}"
    now = [TIMES.sub(b"", p.read_bytes()) for p in run(folder, shared_cache, tmp_path / "a", local)]
    for name in ("linear", "knn"):
        score = PROTOCOLS[name].load()

        def without(*args: Any, score: Any = score) -> Outcome:
            out: Outcome = score(*args)
            assert out.predictions is not None
            out.predictions = None
            return out

        monkeypatch.setattr(f"eval.protocols.{name}.score", without)
    then = [
        TIMES.sub(b"", p.read_bytes()) for p in run(folder, shared_cache, tmp_path / "b", local)
    ]
    assert now == then
    assert len(now) == 2
    assert not any(b"prediction" in content for content in now)


def test_what_is_not_at_hand_is_one_sentence(
    task: TaskData, shared_cache: Path, model_dir: Path, tmp_path: Path
) -> None:
    local = f"local-dir:{model_dir}"

    def ask(
        a: str = local, task_name: str = task.where, protocol: str = "linear", **more: Any
    ) -> str:
        data = more.pop("data", None)
        return refusal(lambda: disagreements(a, local, task_name, data, shared_cache, protocol,
                                             **more))  # fmt: skip

    assert "needs --data" in ask(task_name="eurosat")
    assert "has no folder 'eurosat'" in ask(task_name="eurosat", data=tmp_path)
    assert "unknown task" in ask(task_name="eurosta")
    assert "does not exist" in ask("local-dir:/nowhere")
    assert "many episodes" in ask(protocol="fewshot")
    assert "did you mean 'linear'" in ask(protocol="linaer")
    assert "unknown precision" in ask(precision="fp7")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    assert "weights of local-dir:broken begin with" in ask(f"local-dir:{broken}")
    assert "at most 1024" in ask("random:test_resnet @99999px")
    assert "does not run at 1 px" in ask("random:vit_tiny_patch16_224 @1px")
