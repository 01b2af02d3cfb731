"""``import eval``, as somebody uses it who writes Python and no commands."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eval as transfer
from eval.api import CellsFailed
from eval.common.files import default_cache
from eval.settings.protocols import Fewshot, Knn, Linear
from tests.factories import Cli

ROOT = Path(transfer.__file__).parents[1]
MODEL = "random:test_resnet"
OTHER = "random:test_resnet@1"
SMALL: dict[str, Any] = {"limit": 60, "img_size": 32}


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, its own cache, and no other default of the machine."""
    for name in ("TRANSFERZOO_DATA", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def python(code: str) -> None:
    """Runs the code in a process of its own, which imports this checkout."""
    here = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    subprocess.run([sys.executable, "-c", here + code], check=True, timeout=120)


def test_importing_it_costs_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import eval; assert len(dir(eval)) > 12;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "sys.exit(str(new) if new - set(sys.stdlib_module_names) - {'eval'} else 0)"
    )
    python(code)


def test_planning_needs_no_torch(tmp_path: Path) -> None:
    """All is done already: the second call answers from the results."""
    transfer.evaluate(MODEL, "digits", "knn", **SMALL)
    code = (
        "import sys, eval; (r,) = eval.evaluate('random:test_resnet', 'digits', 'knn',"
        f" **{SMALL!r}); print(r.scores[0].value);"
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    python(code)


def test_every_name_is_there() -> None:
    for name in transfer.__all__:
        assert getattr(transfer, name) is not None
        assert name in dir(transfer)
    assert transfer.__version__ == version("transferzoo")
    with pytest.raises(AttributeError, match="'evaluat'"):
        transfer.evaluat  # noqa: B018
    with pytest.raises(ImportError):
        from eval import nothing  # noqa: F401


def test_evaluate_is_what_the_command_does(cli: Cli) -> None:
    found = transfer.evaluate([MODEL, OTHER], ["digits"], ["knn", "linear"], **SMALL)
    assert [(r.model.id, r.protocol.name) for r in found] == [
        (MODEL, "knn"), (MODEL, "linear"), (OTHER, "knn"), (OTHER, "linear"),
    ]  # fmt: skip
    ran = cli(
        "run", MODEL, OTHER, "--task", "digits", "--protocol", "knn", "linear", "--limit", "60",
        "--img-size", "32", "--results", "by_command", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    files = [Path(f).relative_to("by_command") for f in ran.json["files"]]
    assert all((Path("results") / file).is_file() for file in files)
    theirs = transfer.read_results("by_command")
    for mine in found:
        (other,) = (r for r in theirs if (r.model, r.protocol) == (mine.model, mine.protocol))
        assert (mine.scores, mine.task) == (other.scores, other.task)
        assert mine.samples == other.samples


def test_what_is_there_is_read_and_not_scored_again() -> None:
    first = transfer.evaluate(MODEL, "digits", "knn", **SMALL)
    again = transfer.evaluate(MODEL, "digits", ["knn", "linear"], **SMALL)
    assert again[0] == first[0]
    assert [r.protocol.name for r in again] == ["knn", "linear"]


@pytest.mark.parametrize(
    "protocols",
    [
        {"fewshot": {"shots": [5, 1, 5], "episodes": 20}},
        {"fewshot": Fewshot(shots=(5, 1), episodes=20)},
    ],
)
def test_settings_are_changed_by_a_mapping_or_whole(protocols: Any) -> None:
    (result,) = transfer.evaluate(MODEL, "digits", protocols, img_size=32, limit=300)
    assert result.protocol.config["shots"] == [1, 5]
    assert result.protocol.config["episodes"] == 20
    assert result.protocol.config["n_way"] == Fewshot().n_way
    assert {s.name for s in result.scores} >= {"top1_1shot", "top1_5shot"}


def test_several_readouts_from_one_call() -> None:
    found = transfer.evaluate(
        MODEL, "digits", "knn", pool=["default", "mean"], layer=["", "layer3"], **SMALL
    )
    told = [r.readout and r.readout.model_dump() for r in found]
    assert told == [
        None,
        {"pool": "default", "layer": "layer3"},
        {"pool": "mean", "layer": ""},
        {"pool": "mean", "layer": "layer3"},
    ]
    # a map pools by its mean, by itself or told so
    assert found[1].scores == found[3].scores
    assert found[0].scores == found[2].scores
    assert found[0].scores != found[1].scores


def test_a_preset_is_the_commands() -> None:
    vit = "random:test_vit"
    (result,) = transfer.evaluate(vit, "digits", preset="dinov2-knn", img_size=32, limit=60)
    assert result.protocol.name == "knn"
    assert (result.protocol.config["ks"], result.readout.pool) == ([10, 20, 100, 200], "cls")
    (changed,) = transfer.evaluate(
        vit, "digits", {"knn": {"ks": (1,)}}, preset="dinov2-knn", img_size=32, limit=60
    )
    assert changed.protocol.config == {**result.protocol.config, "ks": [1]}


def test_the_seed_reaches_the_result() -> None:
    draws = {"fewshot": {"shots": 1, "episodes": 20}}
    zero, seven = (
        transfer.evaluate(MODEL, "digits", draws, seed=s, img_size=32, limit=300)[0] for s in (0, 7)
    )
    assert (zero.seed, seven.seed) == (0, 7)
    assert zero.samples != seven.samples


def test_plan_and_execute_in_two_steps() -> None:
    request = transfer.Request(
        models=[MODEL], tasks=["digits"], protocols={"knn": Knn(), "linear": Linear()},
        cache=default_cache(), results=Path("results"), **SMALL,
    )  # fmt: skip
    cells = transfer.plan(request)
    assert [(c.protocol, c.done) for c in cells] == [("knn", False), ("linear", False)]
    report = transfer.execute(request, cells[:1])
    assert (report.scored, report.failures) == (1, [])
    assert [(c.protocol, c.done) for c in transfer.plan(request)] == [
        ("knn", True), ("linear", False),
    ]  # fmt: skip


def test_results_compared_and_on_a_board() -> None:
    found = transfer.evaluate([MODEL, OTHER], "digits", ["knn", "linear"], **SMALL)
    read = transfer.read_results("results")
    assert sorted(r.model_dump_json() for r in read) == sorted(r.model_dump_json() for r in found)
    comparisons = transfer.compare(MODEL, OTHER, read)
    assert [c.protocol for c in comparisons] == ["knn", "linear"]
    for comparison in comparisons:
        mine, other = (
            next(r for r in found if (r.model.id, r.protocol.name) == (model, comparison.protocol))
            for model in (MODEL, OTHER)
        )
        (task,) = comparison.tasks
        assert task.a == pytest.approx(mine.scores[0].value, abs=1e-6)
        assert task.b == pytest.approx(other.scores[0].value, abs=1e-6)
    boards = transfer.leaderboard(read)
    assert [(b.protocol, b.tasks) for b in boards] == [
        ("knn", ("digits",)), ("linear", ("digits",)),
    ]  # fmt: skip
    assert all(len(b.models) == 2 and len(b.cells) == 2 for b in boards)
    assert repr(boards) == repr(read)  # boards, not the fields of a class
    assert "knn, top-1, %" in repr(boards)


def test_a_strange_file_among_the_results_is_warned_about() -> None:
    transfer.evaluate(MODEL, "digits", "knn", **SMALL)
    Path("results", "strange.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"skipped results/strange\.json: it has no schema_versio"):
        assert len(transfer.read_results("results")) == 1
    with pytest.warns(UserWarning, match="strange"):
        transfer.read_results()
    with pytest.raises(transfer.UserError, match="'nowhere' does not exist"):
        transfer.read_results("nowhere")


def test_a_task_and_a_model_that_one_holds_in_hand() -> None:
    (result,) = transfer.evaluate(MODEL, "digits", "knn", **SMALL)
    task = transfer.load_task("digits", limit=60)
    assert (len(task.classes), task.split_hash) == (10, result.task.split_hash)
    assert (len(task.train), len(task.test)) == (60, 60)
    assert len(transfer.load_task("digits").train) > 60

    backbone = transfer.load_model(MODEL, img_size=32)
    assert (backbone.weights_sha256, backbone.params) == (
        result.model.weights_sha256, result.model.params,
    )  # fmt: skip
    picture = Image.fromarray(np.full((40, 50, 3), 200, np.uint8))
    pixels = torch.as_tensor(np.asarray(backbone.transform(picture)))
    assert (tuple(pixels.shape), pixels.dtype) == ((3, 32, 32), torch.uint8)
    with torch.inference_mode():
        assert backbone.net(torch.zeros(2, 3, 32, 32)).shape == (2, backbone.dim)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: transfer.evaluate([], "digits"), "models is empty; name at least one"),
        (lambda: transfer.evaluate(MODEL, []), "tasks is empty; name at least one"),
        (lambda: transfer.evaluate(MODEL, "digits", []), "protocols is empty; name at least one"),
        (lambda: transfer.evaluate(MODEL, "digits", {}), "protocols is empty; leave it out"),
        (lambda: transfer.evaluate(MODEL, "digit"), "did you mean 'digits'?"),
        (lambda: transfer.evaluate(MODEL, "digits", "liner"), "did you mean 'linear'"),
        (lambda: transfer.evaluate([torch.nn.Identity()], "digits"), "strings such as 'zoo:NAME'"),
        (lambda: transfer.evaluate(MODEL, "digits", limit=0), "limit must be at least 1, got 0"),
        (lambda: transfer.evaluate(MODEL, "digits", img_size=7), "img_size must be at least 8"),
        (lambda: transfer.evaluate(MODEL, "digits", batch_size=0), "batch_size must be at least 1"),
        (lambda: transfer.evaluate(MODEL, "digits", seed=-1), "seed must be at least 0, got -1"),
        (lambda: transfer.evaluate(MODEL, "digits", seed=2**32), "seed must be below 2**32"),
        (lambda: transfer.evaluate(MODEL, "digits", {"fewshot": {"shot": 5}}), "'shots'"),
        (lambda: transfer.evaluate(MODEL, "digits", {"fewshot": {"n_way": 1}}), "at least 2"),
        (lambda: transfer.evaluate(MODEL, "digits", {"fewshot": Fewshot(n_way=1)}), "at least 2"),
        (lambda: transfer.evaluate(MODEL, "digits", {"knn": Linear()}), "takes Knn or a mapping"),
        (lambda: transfer.evaluate(MODEL, "digits", "knn", device="abacus"), "'abacus'"),
        (lambda: transfer.evaluate(MODEL, "digits", preset="dinov2-kn"), "did you mean"),
        (lambda: transfer.evaluate(MODEL, "digits", preset="dinov2-knn", pool="cls"), "leave pool"),
        (lambda: transfer.load_model("zoo:all"), "'zoo:all' names"),
        (lambda: transfer.load_model("random:resnet1"), "did you mean"),
        (lambda: transfer.load_model(MODEL, img_size=0), "img_size must be at least 8, got 0"),
        (lambda: transfer.load_task("digits", limit=0), "limit must be at least 1, got 0"),
        (lambda: transfer.load_task("eurosat", "nowhere"), "'nowhere' does not exist"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_nothing_is_written(call: Any, said: str) -> None:
    with pytest.raises(transfer.UserError) as refused:
        call()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("results").exists()


def test_a_cell_that_fails_leaves_the_others_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr("eval.protocols.linear.score", broken)
        with pytest.raises(
            CellsFailed, match=r"digits, linear: ZeroDivisionError: a fault of ours"
        ):
            transfer.evaluate(MODEL, "digits", ["knn", "linear"], **SMALL)
    (saved,) = transfer.read_results()
    assert saved.protocol.name == "knn"
    assert saved in transfer.evaluate(MODEL, "digits", ["knn", "linear"], **SMALL)


def test_a_helping_process_of_torchrun_plans_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It joins the run with no cells of its own, which the main one sends, and has no results."""
    joined: list[list[Any]] = []

    def execute(request: transfer.Request, cells: list[Any]) -> None:
        assert request.models == [MODEL]
        joined.append(cells)

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("eval.api.execute", execute)
    assert transfer.evaluate(MODEL, "digits", "knn", **SMALL) == []
    assert joined == [[]]
    assert not Path("results").exists()


def test_an_accelerator_of_the_caller_keeps_its_settings() -> None:
    """All Accelerators of a process share their state: a notebook that trains may evaluate."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    try:
        mine = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
        (result,) = transfer.evaluate(MODEL, "digits", "knn", **SMALL)
        assert (mine.gradient_accumulation_steps, mine.mixed_precision) == (3, "bf16")
        assert result.environment.dtype.startswith("fp32")
    finally:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()


def test_no_call_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        transfer.evaluate(MODEL, "digits", "knn", **SMALL)
