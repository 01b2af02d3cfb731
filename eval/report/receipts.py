"""What is needed to trust or repeat the numbers: weights, data, versions, commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from eval.report.blocks import Block, Section, Sheet, sheet
from eval.report.gather import Gathered
from eval.results.facts import UNKNOWN, facts_of, shown_objective
from eval.results.leaderboard import model_label
from eval.results.names import task_label
from eval.results.schema import Environment, ModelInfo, Result, TaskInfo
from eval.tasks.registry import TASKS

LEAD = (
    "Every number on this page comes from a file that names the weights, the images and the "
    "program behind it, and can be computed again from them."
)


def section(gathered: Gathered) -> Section:
    results = [r for _, r in gathered.results]
    blocks = [
        Block(title="Models", sheets=_models(gathered), folded=False),
        Block(title="Data sets", sheets=_tasks(gathered), folded=False),
        Block(title="Computed with", sheets=_environments(gathered), folded=False),
    ]
    if results:
        blocks.append(
            Block(
                title="To compute a result again",
                sentence="Each command encodes the images and scores them anew, without any cached "
                "features, and says equal or what differs; --data DIR says where the data lie now. "
                "One file of each model and protocol is named; the others lie beside them.",
                sheets=_commands(gathered.results),
                folded=False,
            )
        )
    notes = _notes(results)
    if notes:
        blocks.append(Block(title="Notes of the results", notes=notes, folded=False))
    return Section("receipts", "Receipts", LEAD, tuple(blocks))


def models_of(gathered: Gathered) -> list[ModelInfo]:
    """Every model of a result or a finding, once."""
    found = {_key(m): m for _, f in gathered.findings for m in f.models}
    ours = {_key(r.model): r.model for _, r in gathered.results}
    return list((ours | {k: m for k, m in found.items() if k not in ours}).values())


def _key(model: ModelInfo) -> tuple[str, str, int | None]:
    return model.id, model.revision, model.img_size


def tasks_of(gathered: Gathered) -> list[TaskInfo]:
    """Every set of images of a result or a finding, once."""
    every = [r.task for _, r in gathered.results]
    every += [t for _, f in gathered.findings for t in f.tasks]
    return list({(t.name, t.split, t.split_hash): t for t in reversed(every)}.values())[::-1]


def _models(gathered: Gathered) -> tuple[Sheet, ...]:
    lines = []
    for m in models_of(gathered):
        name = m.id + (f" @{m.img_size}px" if m.img_size else "")
        lines.append([name, f"{m.params:,}", _input(m), _declared(m), m.revision, m.weights_sha256])
    header = ["model", "parameters", "input", "declared by its author", "revision",
              "sha256 of the weights"]  # fmt: skip
    return _hashed(sheet(header, lines), 4, 5)


def _declared(model: ModelInfo) -> str:
    """Objective, architecture and training data, with the files that say so."""
    facts = facts_of(model)
    said = [shown_objective(facts.objective), facts.architecture, *facts.data]
    text = ", ".join(part for part in said if part)
    where = f" ({', '.join(facts.said_in)})" if facts.said_in else ""
    return f"{text}{where}" if text else UNKNOWN


def _input(model: ModelInfo) -> str:
    config = model.input
    said = []
    size = config.get("input_size")
    if model.img_size or isinstance(size, list | tuple):
        sides = [model.img_size] * 2 if model.img_size else list(size or ())[-2:]
        said.append(f"{' × '.join(str(s)[:6] for s in sides)} px")  # noqa: RUF001
    said += [str(config[k])[:20] for k in ("interpolation", "crop_mode") if k in config]
    crop = config.get("crop_pct")
    said += [f"crop {crop:.3g}"] if isinstance(crop, int | float) else []
    return ", ".join(said) or "-"


def _tasks(gathered: Gathered) -> tuple[Sheet, ...]:
    lines = []
    for t in tasks_of(gathered):
        known = TASKS.get(t.name)
        about = f"{known.title} ({known.domain})" if known else "-"
        counts = "; ".join(f"{n:,} {what}" for what, n in t.counts.items())
        where = t.source + (f" at {t.revision}" if t.revision else "")
        name = task_label(t.name, t.split) + ("*" if t.subset else "")
        lines.append([name, about, counts, where, t.split_hash])
    header = ["task", "about", "images", "source", "split hash"]
    return _hashed(sheet(header, lines), 4)


def _environments(gathered: Gathered) -> tuple[Sheet, ...]:
    counts: dict[str, tuple[Environment, list[int]]] = {}
    made: Iterable[tuple[Environment, int]] = [
        *((r.environment, 0) for _, r in gathered.results),
        *((f.environment, 1) for _, f in gathered.findings),
    ]
    for environment, kind in made:
        _, tally = counts.setdefault(environment.model_dump_json(), (environment, [0, 0]))
        tally[kind] += 1
    lines = []
    for e, (results, findings) in counts.values():
        of = [f"{n} {what}{'s' * (n != 1)}"
              for n, what in ((results, "result"), (findings, "finding")) if n]  # fmt: skip
        threads = f"{e.device}, {e.dtype}, {e.threads} thread{'s' * (e.threads != 1)}"
        threads += f", {e.processes} processes" if e.processes != 1 else ""
        lines.append(
            [" and ".join(of), threads, ", ".join(f"{k} {v}" for k, v in e.versions.items())]
        )
    return sheet(["made", "on", "with"], lines)


def _commands(results: Sequence[tuple[str, Result]]) -> tuple[Sheet, ...]:
    first: dict[tuple[str, str, str], str] = {}
    for file, r in results:
        first.setdefault((model_label(r), r.model.revision, r.protocol.name), file)
    lines = [[f"transfer-eval verify {shlex.quote(file)}"] for file in first.values()]
    return _hashed(sheet(["command"], lines), 0)


def _notes(results: Sequence[Result]) -> tuple[str, ...]:
    """Each note and warning once, with the tasks that it is about."""
    about: dict[str, dict[str, None]] = {}
    for r in results:
        for note in (*r.notes, *(f"warning: {text}" for text in r.warnings)):
            about.setdefault(note, {})[r.task.name] = None
    return tuple(f"{', '.join(tasks)}: {note}" for note, tasks in about.items())


def _hashed(sheets: tuple[Sheet, ...], *columns: int) -> tuple[Sheet, ...]:
    return tuple(replace(s, small=frozenset(columns)) for s in sheets)
