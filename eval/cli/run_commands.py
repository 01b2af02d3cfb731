"""Commands that score, or say what scoring would cost: run, plan, verify, worker, cache, detect."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.cli.engine_commands import driven, engine_of, measured_plan
from eval.cli.inputs import models_from
from eval.cli.screen import screen_width
from eval.common.errors import BadInput, NotFound
from eval.common.files import default_cache
from eval.common.fitted_table import wrapped
from eval.common.text import duration
from eval.protocols.requested import SMALL_GRID, requested
from eval.settings.presets import preset_named
from eval.settings.readout import readouts

if TYPE_CHECKING:
    from eval.data.locations import Data
    from eval.run.execute import Report
    from eval.run.plan import Request
    from eval.settings.presets import Preset
    from eval.settings.protocols import Settings


# settings whose flag is a mistake where no protocol has them
NEEDED = ("fractions", "per_class", "views", "schedule")
VERIFY_CODES = {"equal": 0, "differs": 1, "within tolerance": 3}  # 2 is the user's mistake


def _request(args: argparse.Namespace) -> Any:
    """The run that the command line asks for."""
    return _request_for(args, models_from(args))


def _request_for(args: argparse.Namespace, models: list[str]) -> Any:
    from eval.data.locations import data_from
    from eval.run.plan import NUMBERS, Request, check_number

    data = data_from(args.data)
    tasks = _tasks(args, data)
    preset = preset_named(args.preset) if args.preset else None
    if preset and (args.pool or args.layer):
        raise BadInput(
            f"--preset {preset.name} says which layers are pooled, and how; leave --pool and "
            "--layer out"
        )
    protocols = _protocols(args, preset)
    for name in NUMBERS:
        check_number(name, getattr(args, name), "--" + name.replace("_", "-"))
    return Request(
        models=models,
        tasks=tasks,
        protocols=protocols,
        cache=args.cache or default_cache(),
        results=args.results,
        data=data,
        seed=args.seed,
        limit=args.limit,
        img_size=args.img_size,
        device=args.device,
        precision=None if args.precision == "auto" else args.precision,
        batch_size=args.batch_size,
        strict=args.strict,
        keep_model=args.keep_model,
        readouts=(preset.readout,) if preset else readouts(args.pool or (), args.layer or ()),
    )


def _protocols(args: argparse.Namespace, preset: Preset | None) -> dict[str, Settings]:
    """The protocols that are asked for, with their settings. A flag goes to each that knows it, and
    stands above what a preset says."""
    from eval.protocols import PROTOCOLS, protocol_named
    from eval.settings import assign

    names = [protocol_named(n).name for n in args.protocol or ()]
    default = list(preset.protocols) if preset else [n for n, p in PROTOCOLS.items() if p.default]
    names = list(dict.fromkeys(names or default))
    found = requested(names, args.set or (), preset.protocols if preset else {})
    flags: dict[str, Any] = {
        "--shots": ("shots", sorted(set(args.shots)) if args.shots else None),
        "--n-way": ("n_way", args.n_way),
        "--queries": ("queries", args.queries),
        "--episodes": ("episodes", args.episodes),
        "--train-fraction": ("fractions", args.train_fraction),
        "--train-per-class": ("per_class", args.train_per_class),
        "--views": ("views", args.views),
        "--schedule": ("schedule", args.schedule),
    }
    for flag, (name, value) in flags.items():
        knowing = [n for n, s in found.items() if hasattr(s, name)]
        # a few-shot flag without few-shot is harmless: scripts give it to every run
        if value is not None and not knowing and name in NEEDED:
            raise BadInput(f"{flag} has no effect with protocol {', '.join(found)}")
        for protocol in knowing if value is not None else ():
            found[protocol] = assign.with_setting(found[protocol], name, value, flag)
    if args.grid == "small":
        trained = [n for n, s in found.items() if all(hasattr(s, k) for k in SMALL_GRID)]
        if not trained:
            raise BadInput(f"--grid small has no effect with protocol {', '.join(found)}")
        for protocol in trained:
            for name, value in SMALL_GRID.items():
                found[protocol] = assign.with_setting(found[protocol], name, value, "--grid")
    return found


def _tasks(args: argparse.Namespace, data: Data | None) -> list[str]:
    """The tasks that are asked for. Those of a suite that are not here are named and left out."""
    from eval.data.locations import missing
    from eval.tasks.names import SHIFT
    from eval.tasks.registry import TASKS, suite_tasks

    def split(task: str) -> str:
        chosen = args.split and task in TASKS and not TASKS[task].embedded
        return f"{task}@{args.split}" if chosen else task

    asked = [split(t) for suite in args.suite or [] for t in suite_tasks(suite)]
    if isinstance(data, Path) and not data.is_dir():
        raise NotFound(f"--data {str(data)!r} does not exist or is not a directory")
    lacking = {t: why for t in asked if (why := missing(t, data))}
    for why in lacking.values():
        print(f"not here: {why}", file=sys.stderr)
    tasks = [t for t in asked if t not in lacking] + [split(t) for t in args.task or []]
    if asked and not tasks:
        raise BadInput(
            f"none of the tasks of suite {', '.join(args.suite)} is here; say where they lie with "
            "--data DIR"
        )
    tasks = tasks or list(suite_tasks("mini"))
    return [f"{SHIFT}{task}=>{args.test_on}" for task in tasks] if args.test_on else tasks


def run_command(args: argparse.Namespace) -> int:
    from eval.common.distributed import is_main_process
    from eval.results import board_text, leaderboard
    from eval.results.evidence import broken
    from eval.results.signoff import sign_offs
    from eval.results.store import read_result
    from eval.run.execute import execute
    from eval.stores.front import place_of

    engine = engine_of(args)
    request = _request(args)
    if not is_main_process():  # helps to encode; the main process plans, reports and fails for all
        execute(request, [])
        return 0
    report = driven(args, request) if engine else _executed(args, request)
    cells = report.cells
    if report.exit_code == 2:
        raise BadInput("; ".join(dict.fromkeys(f.error for f in report.failures)))
    found = []
    for path in (c.path for c in cells if c.path.exists()):
        result = read_result(path)
        if why := broken(result):
            print(f"left out {path}: {why}; remove it to score it again", file=sys.stderr)
        else:
            found.append(result)
    tables = leaderboard.tables(found, sign_offs(request.results) or None)
    width = screen_width()
    if args.json:
        summary = {
            "scored": report.scored,
            "reused": report.reused,
            "failures": [{"cell": f.title, "error": f.error} for f in report.failures],
            "results": place_of(request.results),
            "files": [str(c.path) for c in cells if c.path.exists()],
            "boards": [leaderboard.as_json(t) for t in tables],
        }
        print(json.dumps(summary, indent=1))
    elif tables:
        print(board_text.render(tables, markdown=width is None, width=width))
    if not args.json:
        for note in _notes(found):
            print(wrapped(note, width, "  ") if width else note)
    for failure in report.failures:
        print(f"failed: {failure.title}: {failure.error}", file=sys.stderr)
    closing = (
        f"{report.scored} scored, {report.reused} already there, {len(report.failures)} failed; "
        f"{report.images:,} images encoded; {duration(report.seconds)} in all."
    )
    for line in (closing, f"Results: {place_of(request.results)}"):
        print(wrapped(line, width) if width else line, file=sys.stderr if args.json else sys.stdout)
    return report.exit_code


def _executed(args: argparse.Namespace, request: Request) -> Report:
    """The run by this process, or by those that torchrun started."""
    from eval.run.execute import execute
    from eval.run.known import fetch_results, note_results, planned_from
    from eval.run.plan import warned
    from eval.run.progress import run_progress
    from eval.stores.front import check_store

    check_store(request.results)
    cells, _ = planned_from(request)
    for line in warned(cells):
        print(line, file=sys.stderr)
    report = execute(request, cells, debug=args.debug, progress=run_progress())
    note_results(request, report)
    fetch_results(request, report.cells)
    return report


def _notes(results: Sequence[Any]) -> list[str]:
    """What a reader of the board must know, each once with the tasks it is about."""
    about: dict[str, dict[str, None]] = {}
    for result in results:
        for note in result.notes:
            about.setdefault(note, {})[result.task.name] = None
    return [f"- {', '.join(tasks)}: {note}" for note, tasks in about.items()]


def plan_command(args: argparse.Namespace) -> int:
    from eval.run import cost
    from eval.run.known import planned_from

    engine = engine_of(args)
    request = _request(args)
    if engine:
        return measured_plan(args, request, engine)
    costs = cost.estimate(request, planned_from(request)[0])
    if args.json:
        print(json.dumps(cost.as_json(costs), indent=1))
    else:
        print(cost.render(costs, screen_width()))
    return 0


def verify_command(args: argparse.Namespace) -> int:
    from eval.data.locations import data_from
    from eval.run.sign_off import verify_and_sign
    from eval.run.verify import verify

    cache = args.cache or default_cache()
    data = data_from(args.data)
    signed = None
    if args.sign_off:
        verdict, signed = verify_and_sign(args.result, cache, data, _signer(args.by))
    else:
        verdict = verify(args.result, cache, data)
    code = VERIFY_CODES[verdict.word]
    if args.json:
        report = {
            "verdict": verdict.word,
            "equal": verdict.equal,
            "differences": [d.text for d in verdict.differences],
            "beyond": [d.text for d in verdict.differences if not d.allowed],
            "tolerance": None if verdict.tolerance is None else asdict(verdict.tolerance),
            "context": list(verdict.context),
        } | ({"sign_off": str(signed)} if signed else {})
        print(json.dumps(report, indent=1))
        return code
    print(verdict.word)
    for line in verdict.differences:
        allowed = " (within tolerance)" if line.allowed and verdict.word == "differs" else ""
        print(f"  {line.text}{allowed}")
    if verdict.differences and verdict.tolerance is not None:
        print(f"tolerance: {verdict.tolerance}")
    if verdict.context:
        print("computed otherwise: " + "; ".join(verdict.context))
    if signed:
        print(f"signed off: {signed}")
    return code


def _signer(name: str | None) -> str:
    """Who signs off. Raises UserError for a name that cannot stand on a board."""
    import getpass

    try:
        found = getpass.getuser() if name is None else name
    except (OSError, KeyError):
        raise BadInput("this account has no name to sign off with; give one as --by") from None
    if not (0 < len(found) <= 100 and found.isprintable() and found.strip() == found):
        raise BadInput(f"--by {found[:120]!r} is no name of 1 to 100 printable characters")
    return found


def worker_command(args: argparse.Namespace) -> int:
    from eval.data.locations import data_from
    from eval.queue.candidate import check
    from eval.queue.open import open_queue
    from eval.queue.reviewer import Reviewer
    from eval.queue.worker import work
    from eval.stores.front import address_of, place_of

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    if address_of(args.results):
        raise BadInput(
            f"a worker signs results off in a directory; {place_of(args.results)} is an address"
        )
    cache = args.cache or default_cache()
    engine_of(args)  # what cannot be is said before a request is taken
    done = work(
        open_queue(args.queue), lambda spec: _request_for(args, [spec]), once=args.once,
        reviewer=Reviewer(args.results, cache, data_from(args.data), _signer(args.by), say),
        say=say,
        score=(lambda request: driven(args, request)) if args.on else None,
        check=lambda spec: check(spec, cache),  # again: a request file may say anything
    )  # fmt: skip
    served = "1 request" if done == 1 else f"{done} requests"
    print(f"{served} served. Results: {args.results.resolve()}")
    return 0


def cache_command(args: argparse.Namespace) -> int:
    from eval.features import cache

    folder = args.cache or default_cache()
    if args.action == "ls":
        entries = cache.entries(folder)
        if args.json:
            print(json.dumps([cache.as_json(e) for e in entries], indent=1))
        else:
            print(cache.render(entries, folder, markdown=not sys.stdout.isatty()))
        return 0
    removed = cache.remove(folder, args.keys, args.model, args.task, everything=args.all)
    print(f"removed {len(removed)} feature banks, {sum(e.megabytes for e in removed):.1f} MB")
    return 0


def detect_command(args: argparse.Namespace) -> int:
    from eval.detection.saved_model import detect_pictures

    done = detect_pictures(args.model, args.images, args.out, args.least)
    if args.json:
        print(json.dumps(done.images, indent=1))
    else:
        for seen in done.images:
            found = ", ".join(f"{o['class']} {100 * o['score']:.0f} %" for o in seen["objects"])
            print(f"{seen['image']}: {found or 'nothing'} -> {seen['drawn']}")
    for failure in done.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 2 if done.failures else 0
