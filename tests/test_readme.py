"""The pages for readers: every command in them parses, every file and link in them is there, and
what they show is done here. The model cards are generated and have tests of their own."""

from __future__ import annotations

import builtins
import importlib.util
import itertools
import os
import pkgutil
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from markdown_it.token import Token

import eval.analysis
import eval.cli.parser
import eval.models.names
import eval.models.resolve
import eval.protocols
import eval.settings.protocols
import space.__main__
import zoo.__main__
import zoo.train.objectives
from eval.analysis import ANALYSES, robustness_board
from eval.common.text import percent
from eval.data.load import load_task
from eval.data.task_file import TaskFile
from eval.models import objectives, plugs
from eval.models.backbone import load
from eval.models.names import parse_model, zoo_names
from eval.prepare.layouts.masks import MASK_LAYOUTS
from eval.protocols import PROTOCOLS
from eval.results.store import read_result
from eval.settings.assign import with_assignments
from eval.study.table import read
from eval.tasks.declaration import read_declaration
from eval.tasks.names import SHIFT, parse_task, shift_parts
from eval.tasks.registry import SUITES, TASKS
from tests.factories import Cli, blobs, make_task
from tests.models.checkpoints import checkpoint
from tests.tasks.facts import check_facts
from zoo.train.recipe import recipe_names

ROOT = Path(__file__).resolve().parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
CATALOG = ROOT / "eval" / "catalog" / "README.md"  # generated
GOLDEN = ROOT / "tests" / "zoo" / "golden"  # model cards, generated
PAGES = [
    README, CONTRIBUTING, ROOT / "model_cards" / "README.md",
    *sorted(
        page for room in ("eval", "zoo", "space", "tests")
        for page in (ROOT / room).rglob("README.md") if GOLDEN not in page.parents
    ),
]  # fmt: skip
NAMES = [p.relative_to(ROOT).as_posix() for p in PAGES]
PARSERS = {
    "eval": eval.cli.parser.build_parser,
    "zoo": zoo.__main__.build_parser,
    "space": space.__main__.build_parser,
}
# Tools whose arguments are their own affair.
OTHERS = {".", "pip", "ruff", "mypy", "lint-imports"}
ROOMS = re.compile(r"(?:eval|zoo|space|tests|model_cards|\.ci)/[\w./*-]*|pyproject\.toml")

every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


# --------------------------------------------------------------------------- reading a page


def tokens(page: Path) -> list[Token]:
    """All tokens of a page in order, those within lines of text included."""
    text = page.read_text(encoding="utf-8")
    if text.startswith("---\n"):  # the metadata of a Space
        text = text.split("---\n", 2)[2]
    found = MarkdownIt("commonmark").enable("table").parse(text)
    return [one for token in found for one in (token, *(token.children or ()))]


def blocks(page: Path, *languages: str) -> list[str]:
    """The content of the code blocks in one of these languages."""
    return [t.content for t in tokens(page) if t.type == "fence" and t.info in languages]


def words(page: Path) -> list[str]:
    """What stands in backticks within the text."""
    return [t.content for t in tokens(page) if t.type == "code_inline"]


def commands(page: Path) -> Iterator[list[str]]:
    """Each command of the shell blocks, as words; comments are left out."""
    for block in blocks(page, "bash", "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            parts: list[list[str]] = [[]]
            for word in shlex.split(line.removeprefix("$ "), comments=True):
                if word == "&&":
                    parts.append([])
                else:
                    parts[-1].append(word)
            yield from (part for part in parts if part)


def ours(command: list[str]) -> tuple[str, list[str]] | None:
    """(package, arguments) of a command of this project, however it is started."""
    program, *rest = command
    if program.startswith("transfer-"):
        return program.removeprefix("transfer-"), rest
    if program == "torchrun":
        return ours(rest[rest.index("--no-python") + 1 :])
    return None


def anchors(page: Path) -> dict[str, int]:
    """{anchor of a heading as GitHub makes it: level}"""
    all_tokens = tokens(page)
    return {
        re.sub(r"[^\w -]", "", all_tokens[i + 1].content.lower()).replace(" ", "-"): int(t.tag[1])
        for i, t in enumerate(all_tokens) if t.type == "heading_open"
    }  # fmt: skip


# --------------------------------------------------------------------------- commands


def check_names(package: str, args: Any) -> None:
    """The names that a parsed command gives are known here; whatever is pure is asked."""
    for model in [*getattr(args, "models", ()), *(getattr(args, f"model_{x}", None) for x in "ab")]:
        if model:
            parse_model(model)
    tasks = getattr(args, "task", None) or ()
    for task in tasks if isinstance(tasks, list) else ():
        for one in shift_parts(task)[:2] if task.startswith(SHIFT) else (task,):
            parse_task(one)
    assert set(getattr(args, "suite", None) or ()) <= SUITES.keys()
    boards = {robustness_board.NAME} if args.command == "leaderboard" else set()
    assert set(getattr(args, "protocol", None) or ()) <= PROTOCOLS.keys() | boards
    if args.command == "analyze":
        assert args.name in ANALYSES
    elif package == "eval":
        for text in getattr(args, "set", None) or ():
            protocol, _, assignment = text.partition(".")
            with_assignments(PROTOCOLS[protocol].settings(), [assignment])
    if args.command == "prepare":
        assert args.task in MASK_LAYOUTS or TASKS[args.task].preparable
    if args.command == "pretrain":
        objectives.parse_objective(args.objective)
        assert args.recipe in recipe_names() or args.recipe.endswith(".toml")


@every_page
def test_every_command_parses(page: Path) -> None:
    for command in commands(page):
        if (mine := ours(command)) is not None:
            package, argv = mine
            check_names(package, PARSERS[package]().parse_args(argv))
            continue
        command = list(itertools.dropwhile(lambda word: "=" in word, command))
        if command[0].startswith("tests/"):
            assert (ROOT / command[0]).is_file(), command
        elif command[0] in ("python", "python3"):
            assert command[1] == "-m", command
            assert importlib.util.find_spec(command[2]) is not None, command
            for place in command[3:] if command[2] == "pytest" else ():
                assert (ROOT / place).exists(), command
        else:
            assert command[0] in OTHERS, command


def test_pages_have_commands() -> None:
    """That the checks above look at something."""
    mine = [command for page in PAGES for command in commands(page) if ours(command)]
    assert len(mine) > 60
    assert {ours(command)[0] for command in mine} == set(PARSERS)  # type: ignore[index]
    started = {command[0] for command in mine}
    assert started == {"transfer-eval", "transfer-zoo", "transfer-space", "torchrun"}


@every_page
def test_commands_within_the_text_are_known(page: Path) -> None:
    for text in words(page):
        if match := re.match(r"transfer-(eval|zoo) ([a-z-]+)", text):
            parser = PARSERS[match[1]]()
            (choices,) = (a.choices for a in parser._actions if a.dest == "command")
            assert match[2] in choices, text


# --------------------------------------------------------------------------- files and links


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    for text in words(page):
        if ROOMS.fullmatch(text):
            place = text.partition("NAME")[0]  # a file that the reader will make, in this folder
            assert list(ROOT.glob(place.rstrip("/"))), text
        elif re.fullmatch(r"bench_\w+", text):
            assert (ROOT / "tests" / "bench" / f"{text}.py").is_file(), text
        elif re.fullmatch(r"\w+\.py", text):
            assert (page.parent / text).is_file(), text
        elif re.fullmatch(r"(eval|zoo|space)\.[\w.]+", text):
            pkgutil.resolve_name(text)


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for token in tokens(page):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if not target or target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) < 14_000


def test_the_readme_names_every_page() -> None:
    linked = {
        (ROOT / str(token.attrGet("href"))).resolve() for token in tokens(README)
        if token.type == "link_open"
    }  # fmt: skip
    others = {README, ROOT / "space" / "README.md", ROOT / "tests" / "hub" / "README.md"}
    assert set(PAGES) - others <= linked


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.stat().st_size > 5000 and p not in (README, CATALOG)],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_a_long_page_lists_its_sections(page: Path) -> None:
    listed = {str(t.attrGet("href")) for t in tokens(page) if t.type == "link_open"}
    assert {f"#{anchor}" for anchor, level in anchors(page).items() if level == 2} <= listed


def test_contributing_names_every_package() -> None:
    (rule,) = (x for x in CONTRIBUTING.read_text().split("\n\n") if "From the top of `eval/`" in x)
    packages = {p.parent.name for p in (ROOT / "eval").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"`(\w+)`", rule))


# --------------------------------------------------------------------------- what they show


@pytest.mark.slow
def test_the_first_command_of_the_readme_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is written, on fewer images and episodes and two checkpoints of the zoo; and then the
    comparison of its results. That every checkpoint loads is tests/models/test_models.py's."""
    (compared,) = (c[1:] for c in comparisons() if "--results" not in c)
    _, *two = compared
    shipped = [name.removeprefix("zoo:") for name in two]
    assert set(shipped) <= set(zoo_names())
    monkeypatch.setattr("eval.models.names.zoo_names", lambda: shipped)
    (argv,) = (c[1:] for c in list(commands(README))[:5] if c[0] == "transfer-eval")
    ran = cli(
        *argv, "--limit", "60", "--queries", "2", "--episodes", "5", "--shots", "1",
        "--precision", "fp32", "--device", "cpu", "--cache", tmp_path / "cache",
        "--results", tmp_path / "results", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    defaults = [p.name for p in PROTOCOLS.values() if p.default and p.kind == "classification"]
    assert ran.json["scored"] == 3 * len(SUITES["mini"]) * len(defaults)
    ran = cli(*compared, "--results", tmp_path / "results")
    assert ran.code == 0, ran.err
    assert all(f"{name} @64px" in ran.out for name in two)


def test_the_comparison_of_the_readme_runs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the receipts that ship."""
    monkeypatch.chdir(ROOT)
    (argv,) = (c[1:] for c in comparisons() if "--results" in c)
    ran = cli(*argv)
    assert ran.code == 0, ran.err
    assert f"{argv[1]} is better than {argv[2]} on " in ran.out


def comparisons() -> list[list[str]]:
    return [c for c in commands(README) if c[:2] == ["transfer-eval", "compare"]]


def test_the_task_file_is_one() -> None:
    (text,) = blocks(ROOT / "eval" / "data" / "README.md", "toml")
    assert TaskFile.model_validate(tomllib.loads(text)).name == "garden-flowers"


# --------------------------------------------------------------------------- numbers


def table(page: Path, heading: str) -> dict[str, list[str]]:
    """{first cell: other cells} of the table under a heading."""
    text = page.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")
    ]  # fmt: skip
    return {first: others for first, *others in rows[2:]}


@pytest.mark.parametrize(
    ("heading", "protocol", "score"),
    [("Few-shot results", "fewshot", "top1_5shot"), ("Linear results", "linear", "top1")],
)
def test_the_zoo_s_tables_are_those_of_its_receipts(
    heading: str, protocol: str, score: str
) -> None:
    shown = table(ROOT / "model_cards" / "README.md", heading)
    values: dict[str, list[float]] = {}
    for task, cells in shown.items():
        for name, cell in zip(zoo_names(), cells, strict=True):
            if task.startswith("mean"):
                held = values[name]
                assert cell == f"{100 * sum(held) / len(held):.1f}"
                assert str(len(held)) in task
                continue
            result = read_result(ROOT / f"model_cards/{name}/results/{task}.{protocol}.json")
            (found,) = (s for s in result.scores if s.name == score)
            assert cell == percent(found.value, (found.ci_high - found.ci_low) / 2), (task, name)
            if not TASKS[task].pretrains:
                values.setdefault(name, []).append(found.value)
    assert len(shown) >= 12


STUDY = ROOT / "model_cards" / "budget-projector.results.parquet"


Table = tuple[list[str], list[list[str]]]  # header, rows


@pytest.mark.parametrize("name", ["contrast", "arm", "content"])
def test_the_study_s_tables_are_what_its_results_say(name: str, cli: Cli) -> None:
    """Behind `<!-- study: NAME -->` the command's first table whose first column is NAME: every
    row; of contrasts and content as many columns as the page has."""
    said = cli("study", STUDY).out
    page, mark = ROOT / "model_cards" / "README.md", f"<!-- study: {name} -->"
    header, known = table_of(said[said.index(f"| {name} ") :])
    if name != "arm":
        header, _ = table_of(page.read_text(encoding="utf-8").split(mark)[1])
    assert shown_table(page, mark, (header, [row[: len(header)] for row in known]))
    assert len(known) > 1


def test_the_readme_has_every_contrast_at_every_budget_so_far(cli: Cli) -> None:
    """A row a contrast, a column a score and budget, of what has three trainings; checks at one
    budget alone are elsewhere."""
    said = cli("study", STUDY).out
    header, rows = table_of(said[said.index("| contrast ") :])
    whole = [row for row in rows if row[header.index("trainings")] == "3"]
    known = {
        (row[0], title): cell for row in whole for title, cell in zip(header, row, strict=True)
    }
    plan = read(STUDY).plan
    names = [
        c.name for c in plan.contrasts
        if plan.budgets_of(c) == plan.budgets and any(r.startswith(c.name) for r, _ in known)
    ]  # fmt: skip
    budgets = [b.epochs for b in plan.budgets if any(f" at {b.epochs}" in r for r, _ in known)]
    columns = [(score, budget) for score in ("linear", "5-shot") for budget in budgets]
    lines = [
        [name, *(known.get((f"{name} at {b}", f"{score} top-1"), "-") for score, b in columns)]
        for name in names
    ]
    titles = ["contrast", *(f"{score} at {budget}" for score, budget in columns)]
    assert shown_table(README, "<!-- study -->", (titles, lines))


def shown_table(page: Path, mark: str, expected: Table) -> bool:
    """Whether the table behind a mark of a page is that. With TRANSFERZOO_REGENERATE_STUDY=1 it is
    written there first; the words around it are for a person."""
    before, text = page.read_text(encoding="utf-8").split(mark)
    if os.environ.get("TRANSFERZOO_REGENERATE_STUDY") == "1":
        header, rows = expected
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        text = f"\n\n{table}\n\n<!-- end -->" + text.split("<!-- end -->", 1)[1]
        page.write_text(before + mark + text, encoding="utf-8")
    return table_of(text) == expected


@pytest.mark.parametrize("page", [README, ROOT / "model_cards" / "README.md"], ids=str)
def test_the_study_s_differences_in_words_are_in_its_table(page: Path, cli: Cli) -> None:
    """Each "+1.4 ±0.4" of a page with the study is a contrast's, at some budget in some score."""
    said = cli("study", STUDY).out
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r"[+-]\d+\.\d ±\d+\.\d", text))
    assert len(shown) > 5
    assert shown <= set(re.findall(r"[+-]\d+\.\d ±\d+\.\d", said))
    (count,) = re.findall(r"a score's (\d+)\s+tests|the (\d+)\s+tests of a score", text)
    assert re.findall(r"over the (\d+) tests of a score", said) == [one for one in count if one]


def table_of(text: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the first table of a text."""
    lines = text[text.index("|") :].splitlines()
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    return header, rows


# --------------------------------------------------------------------------- CONTRIBUTING.md


def section(heading: str) -> list[str]:
    """The Python and TOML blocks under a heading of CONTRIBUTING.md."""
    all_tokens = tokens(CONTRIBUTING)
    starts = [i for i, t in enumerate(all_tokens) if t.type == "heading_open"]
    (start,) = (i for i in starts if all_tokens[i + 1].content == heading)
    end = next(i for i in [*starts, len(all_tokens)] if i > start)
    return [t.content for t in all_tokens[start:end] if t.type == "fence" and t.info != "bash"]


def row(text: str, module: ModuleType) -> dict[str, Any]:
    """A row of a registry of that module, ``"name": value,``."""
    return eval_in(f"{{{text}}}", module)


def eval_in(text: str, module: ModuleType) -> Any:
    return builtins.eval(text, vars(module))  # the plain name is the package's here


def test_a_task_is_added_as_contributing_says(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration, packing = section("A task")
    facts = tomllib.loads(declaration)
    monkeypatch.chdir(tmp_path)
    for part, count, seed in (("train", 12, 0), ("test", 8, 1)):
        for label, name in enumerate(facts["classes"]):
            folder = tmp_path / "leaves" / part / name
            folder.mkdir(parents=True)
            for i, image in enumerate(blobs(label, count, seed)):
                (folder / f"{i}.png").write_bytes(image)
    exec(packing, {})
    found = load_task("parquet:DATA/leaves", tmp_path / "cache")
    facts["subset"] = {
        "classes": 3,
        "train": 36,
        "test": 24,
        "split_hash": found.split_hash,
    }  # as check-task prints them
    task = read_declaration("leaves", facts)
    check_facts(task)
    monkeypatch.setitem(TASKS, "leaves", task)
    assert load_task("leaves", tmp_path / "cache", Path("DATA")).classes == tuple(facts["classes"])
    ran = cli(
        "run", "random:test_resnet", "--task", "leaves", "--data", "DATA",
        "--protocol", "knn", "--results", tmp_path / "results", "--cache", tmp_path / "cache",
        "--device", "cpu", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert list((tmp_path / "results").rglob("leaves*.knn.json"))


def test_a_model_source_is_added_as_contributing_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, entry = section("A model source")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/runs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    (group,) = tomllib.loads(entry)["project"]["entry-points"].items()
    assert group[0] == plugs.GROUP
    monkeypatch.setattr(plugs, "_OWN", plugs._OWN | group[1])
    plugs.prefixes.cache_clear()
    folder = checkpoint(tmp_path / "runs" / "joint")
    monkeypatch.chdir(tmp_path)
    try:
        model = eval.models.resolve.resolve("runs:joint", tmp_path / "cache")
        assert (model.kind, model.id, model.spec) == ("source", "runs:joint", "runs:joint")
        assert model.revision == eval.models.resolve.folder_revision(folder)
        assert load(model).dim == 96
    finally:
        plugs.prefixes.cache_clear()


def test_an_analysis_is_added_as_contributing_says(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, registered, functions = section("An analysis")
    known = vars(eval.analysis)
    monkeypatch.setitem(known, "Norms", None)  # forgotten afterwards
    exec(settings, known)
    (analysis,) = eval_in(registered, eval.analysis)
    monkeypatch.setitem(ANALYSES, analysis.name, analysis)
    module = ModuleType("eval.analysis.norms")
    imports = "from __future__ import annotations\nfrom eval.analysis.study import task_key\n"
    exec(imports + functions, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    ran = cli(
        "analyze", "norms", "random:test_resnet", "--task", f"parquet:{data}", "--device", "cpu",
        "--set", 'layers=["layer4"]', "--out", tmp_path / "norms.png", "--json",
        "--results", tmp_path / "results", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (finding,) = (tmp_path / "results" / "analyses").rglob("*.json")
    assert '"layer4"' in finding.read_text()
    assert (tmp_path / "norms.png").stat().st_size > 1000


def test_an_objective_is_added_as_contributing_says(monkeypatch: pytest.MonkeyPatch) -> None:
    facts, code, built = section("An objective")
    module = zoo.train.objectives
    for name, value in row(facts, objectives).items():
        monkeypatch.setitem(objectives.TERMS, name, value)
    monkeypatch.setitem(vars(module), "SmoothCrossEntropy", None)  # forgotten afterwards
    exec(code, vars(module))
    for name, value in row(built, module).items():
        monkeypatch.setitem(module._TERMS, name, value)
    objective = module.build("ce-smooth+0.5*selfsupcon", dim=8, classes=3)
    features = torch.randn(4, 8, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    terms = objective(features, torch.randn(4, 8), labels)
    logits = objective.parts["ce-smooth"].head(features).log_softmax(1)
    truth = 0.9 * torch.nn.functional.one_hot(labels, 3) + 0.1 / 3
    assert torch.allclose(terms["ce-smooth"], -(truth * logits).sum(1).mean())
    terms["total"].backward()
    assert features.grad is not None
    assert module.build("ce-smooth", dim=8, classes=3).views == "strong"


def test_a_protocol_is_added_as_contributing_says(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, function, registered = section("A protocol")
    known = vars(eval.settings.protocols)
    monkeypatch.setitem(known, "Centroid", None)  # forgotten afterwards
    exec(settings, known)
    monkeypatch.setitem(vars(eval.protocols), "Centroid", known["Centroid"])
    (protocol,) = eval_in(registered, eval.protocols)
    monkeypatch.setitem(PROTOCOLS, protocol.name, protocol)
    module = ModuleType("eval.protocols.centroid")
    imports = """
from __future__ import annotations
import torch
import torch.nn.functional as F
from eval.metrics import intervals
from eval.protocols.outcome import Outcome
"""
    exec(imports + function, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    places = ("--results", tmp_path / "results", "--cache", tmp_path / "cache")
    ran = cli(
        "run", "random:test_resnet", "--task", f"parquet:{data}", "--device", "cpu",
        "--protocol", "centroid", "--set", "centroid.cosine=false", "--json", *places,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (path,) = (tmp_path / "results").rglob("*.json")
    assert path.name.endswith(".centroid@cosine=False.json")
    assert cli("verify", path, *places[2:]).code == 0
