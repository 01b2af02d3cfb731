"""The commands about findings: one public function each. They import torch when they are called."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eval.cli.inputs import models_from, results_from
from eval.common.errors import BadInput
from eval.common.files import default_cache


def cka_command(args: argparse.Namespace) -> int:
    from eval.analysis import LayerCka

    if args.images is not None and args.images < 4:
        raise BadInput(f"--images must be at least 4 for an unbiased estimate, got {args.images}")
    settings = LayerCka(args.kernel, args.images or 0, tuple(args.layers or ()), args.spatial)
    return _analyse(args, "cka", [args.model_a, args.model_b], [args.task], settings)


def analyze_command(args: argparse.Namespace) -> int:
    from eval.analysis import analysis_named
    from eval.models.names import expand
    from eval.settings.assign import with_assignments

    analysis = analysis_named(args.name)
    settings = with_assignments(analysis.settings(), args.set or ())
    models = [name for text in args.models for name in expand(text)]
    tasks = args.task or analysis.default_tasks
    return _analyse(args, analysis.name, models, tasks, settings)


def recommend_command(args: argparse.Namespace) -> int:
    import dataclasses

    from eval.analysis import recommend
    from eval.analysis.analyze import analyze
    from eval.analysis.finding import write_finding
    from eval.common.distributed import is_main_process
    from eval.common.text import text_table
    from eval.data.load import load_task
    from eval.data.locations import data_from
    from eval.results.store import check_writable

    if not (args.models or args.author or args.collection or args.filter):
        args.models = ["zoo:all"]
    models = models_from(args)
    recommend.check_predictor(args.by)
    check_writable(args.results)
    cache = args.cache or default_cache()
    task = load_task(args.task, cache, data_from(args.data), args.limit)
    results = _at_hand(args.results)
    known = recommend.findings_at_hand(args.results)
    finding = analyze(
        "predictors", models, [task], cache,
        results=results, img_size=args.img_size, device=args.device, seed=args.seed,
    )  # fmt: skip
    if not is_main_process():
        return 0
    path = write_finding(args.results, finding)
    advice = recommend.advise(finding, known, results, args.by)
    if args.json:
        worth = dataclasses.asdict(advice.worth) if advice.worth else None
        print(json.dumps({"order": advice.order, "by": args.by, "worth": worth,
                          "same_models": advice.same_models, "sentence": advice.sentence,
                          **finding.values}, indent=1))  # fmt: skip
        return 0
    print(text_table(*recommend.table(advice), markdown=not sys.stdout.isatty()))
    print(advice.sentence)
    for note in finding.notes:
        print(f"- {note}")
    print(path.resolve())
    return 0


def reliability_command(args: argparse.Namespace) -> int:
    from eval.analysis import plots, reliability

    plots.check_picture(args.out)
    results = [r for _, r in results_from(args.results).results]
    chosen = reliability.chosen(results, args.task, args.protocol, args.model)
    found = reliability.diagrams(chosen)
    path = reliability.draw(found, args.out)
    if args.json:
        print(json.dumps([reliability.as_json(d) for d in found], indent=1))
    else:
        print(f"{path.resolve()}\n{reliability.sentence(found)}")
    return 0


def report_command(args: argparse.Namespace) -> int:
    from eval.report.page import TITLE, report

    size = report(
        args.places, args.out, lambda text: print(text, file=sys.stderr), title=args.title or TITLE
    )
    print(f"{args.out.resolve()} ({size / 1e6:.2f} MB)")
    return 0


def _analyse(
    args: argparse.Namespace, name: str, models: Sequence[str], tasks: Sequence[str], settings: Any
) -> int:
    """Run an analysis, write its finding and picture, print its table and what it says."""
    from eval.analysis import analysis_named, plots
    from eval.analysis.analyze import analyze
    from eval.analysis.finding import write_finding
    from eval.analysis.module import module_of
    from eval.common.distributed import is_main_process
    from eval.common.text import text_table
    from eval.data.load import load_task
    from eval.data.locations import data_from
    from eval.results.store import check_writable

    if args.out:
        plots.check_picture(args.out)
    check_writable(args.results)
    cache = args.cache or default_cache()
    loaded = [load_task(t, cache, data_from(args.data), args.limit) for t in dict.fromkeys(tasks)]
    analysis = analysis_named(name)
    results = _at_hand(args.results) if analysis.reads_results else ()
    finding = analyze(
        name, models, loaded, cache,
        settings=settings, results=results, img_size=args.img_size, device=args.device,
        seed=args.seed,
    )  # fmt: skip
    if not is_main_process():
        return 0
    path = write_finding(args.results, finding)
    module = module_of(analysis)
    if args.out:
        plots.saved(partial(module.figure, finding), args.out)
    if args.json:
        print(json.dumps(finding.values | {"sentence": finding.sentence}, indent=1))
        return 0
    print(text_table(*module.table(finding), markdown=not sys.stdout.isatty()))
    print(finding.sentence)
    for note in finding.notes:
        print(f"- {note}")
    print(f"{args.out.resolve()}\n{path.resolve()}" if args.out else path.resolve())
    return 0


def _at_hand(results: Path) -> list[Any]:
    """What was measured here, and what ships with the zoo."""
    from eval.models.names import ZOO_FOLDER
    from eval.results.shared import pull_results
    from eval.results.sound import sound
    from eval.results.store import read_shelf

    pull_results(results)
    shelves = [sound(read_shelf(f)) for f in (ZOO_FOLDER, results) if f.is_dir()]
    return [result for shelf in shelves for _, result in shelf.results]
