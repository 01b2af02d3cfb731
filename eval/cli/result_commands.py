"""Commands on results: leaderboard, compare, curves, ties, study, push, merge, export."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.cli.inputs import place_from, results_from
from eval.cli.screen import screen_width
from eval.common.errors import BadInput, NotFound

if TYPE_CHECKING:
    from eval.sharing.push import Pushed


def leaderboard_command(args: argparse.Namespace) -> int:
    from eval.analysis import robustness_board
    from eval.analysis.finding import read_findings
    from eval.protocols import protocol_named
    from eval.results import board_text, leaderboard

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    robust = robustness_board.NAME
    wanted = [p if p == robust else protocol_named(p).name for p in args.protocol or []]
    folder, shelf, signed = place_from(args.results)
    results = [r for _, r in shelf.results if not wanted or r.protocol.name in wanted]
    tables = leaderboard.tables(results, signed)
    if not wanted or robust in wanted:
        findings = read_findings(folder, robust, say)
        tables += robustness_board.boards(findings, say, marked=signed is not None)
    if not tables:
        raise NotFound(f"no results in {args.results!r}; make some with `transfer-eval run`")
    if args.json:
        print(json.dumps([leaderboard.as_json(t) for t in tables], indent=1))
    else:
        width = screen_width()
        print(board_text.render(tables, markdown=width is None, width=width))
    return 0


def curves_command(args: argparse.Namespace) -> int:
    import dataclasses

    from eval.analysis import curves, step_curves

    results = [r for _, r in results_from(args.results).results]
    found: Sequence[curves.Curve | step_curves.StepCurve]
    if args.x == "step":
        found = steps = step_curves.step_curves(results)
        path = step_curves.draw(steps, args.out)
    else:
        found = parts = curves.curves(results)
        path = curves.draw(parts, args.out)
    if args.json:
        print(json.dumps([dataclasses.asdict(c) for c in found], indent=1))
    else:
        print(f"{len(found)} curves: {path.resolve()}")
    return 0


def compare_command(args: argparse.Namespace) -> int:
    from eval.results import compare

    results = [r for _, r in results_from(args.results).results]
    found = compare.compare(args.model_a, args.model_b, results)
    if args.json:
        print(json.dumps([compare.as_json(c) for c in found], indent=1))
    else:
        print(compare.render(found, screen_width()))
    return 0


def ties_command(args: argparse.Namespace) -> int:
    from eval.results import item_scores
    from eval.stores.front import local_copy

    file = local_copy(args.file)
    if file.is_dir() or file.suffix in (".json", ".jsonl"):
        found = list(item_scores.every_eval_ever_items(file))
    else:
        found = item_scores.read_items(file)
    whole, boards = item_scores.ties_of(found)
    shown = [whole] if whole is not None else []
    if args.tasks or not shown:
        shown += boards
    if args.json:
        print(json.dumps([item_scores.as_json(board) for board in shown], indent=1))
    else:
        print(item_scores.render(shown, screen_width()))
    return 0


def study_command(args: argparse.Namespace) -> int:
    from eval.analysis.plots import check_picture
    from eval.study import figure, show, table
    from eval.study.verdict import verdict

    if args.out:
        check_picture(args.out)
    found = verdict(table.read(args.file))
    if args.json:
        print(json.dumps(show.as_json(found), indent=1))
    else:
        print(show.render(found, screen_width()))
    if args.out:
        print(f"learning curves: {figure.draw(found, args.out).resolve()}", file=sys.stderr)
    return 0


def push_command(args: argparse.Namespace) -> int:
    from eval.sharing.push import push

    done = push(
        args.directory, args.repo, direct=args.direct, replace=args.replace,
        private=args.private, dry_run=args.dry_run,
    )  # fmt: skip
    for file, why in done.skipped:
        print(f"skipped {file}: {why}", file=sys.stderr)
    if args.dry_run:
        print(f"{done.url}: would add {len(done.added)} results, {done.held} are there already")
        for path in done.added:
            print(f"  {path}")
        return 0
    print(_pushed(done))
    return 0


def _pushed(done: Pushed) -> str:
    if done.pull_request:
        return f"{len(done.added)} results offered: {done.pull_request}"
    if not done.added:
        return f"{done.url}: nothing to add, all {done.held} results are there (commit {done.sha})"
    return (
        f"{done.url}: {len(done.added)} results added (commit {done.sha})\n"
        f"  transfer-eval leaderboard --results hub:{'/'.join(done.url.split('/')[-2:])}"
    )


def merge_command(args: argparse.Namespace) -> int:
    from eval.common.files import default_cache
    from eval.data.locations import data_from
    from eval.queue.candidate import check
    from eval.sharing.push import merge
    from eval.sharing.recompute import sampler

    recompute = None
    if args.verify is not None:
        if args.verify < 1:
            raise BadInput(f"--verify must be at least 1, got {args.verify}")
        cache = args.cache or default_cache()
        # a stranger's model is asked the same as one in the queue
        recompute = sampler(
            args.verify, cache, data_from(args.data), lambda spec: check(spec, cache)
        )
    done = merge(args.repo, args.number, recompute)
    if done.sample is not None:
        absent = f"; {done.sample.absent_text}" if done.sample.absent else ""
        print(f"{len(done.sample.verified)} of its results computed again, as recorded{absent}")
    print(_merged(done))
    if done.late:
        print(
            f"{done.pull_request} got other commits meanwhile: they were not looked at, and are "
            "not merged",
            file=sys.stderr,
        )
    return 0


def _merged(done: Pushed) -> str:
    results = f"{len(done.added)} results merged" if done.added else "all results are there"
    return f"{results} (commit {done.sha}), {done.pull_request} is closed"


def export_command(args: argparse.Namespace) -> int:
    from eval.results.every_eval_ever import EVERY_EVAL_EVER, write_every_eval_ever

    results = [r for _, r in results_from(args.results).results]
    files = write_every_eval_ever(results, args.out, samples=args.samples)
    if args.json:
        print(json.dumps([str(f) for f in files], indent=1))
    else:
        print(f"{len(files)} files of every_eval_ever {EVERY_EVAL_EVER} under {args.out}")
    return 0
