"""Runs on many machines: ``--on`` of run and plan, and the command status."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from eval.common.errors import BadInput

if TYPE_CHECKING:
    from eval.engines.engine import Engine
    from eval.engines.placing import Placing
    from eval.run.execute import Report
    from eval.run.plan import Request

_FLAGS = ("partition", "gpus", "cpus", "time", "max_jobs", "images_per_job")


def engine_of(args: argparse.Namespace) -> Engine | None:
    """What ``--on`` names; None without it. Raises UserError for what does not go with it."""
    told = {name: getattr(args, name) for name in _FLAGS}
    if args.on is None:
        for name, value in (told | {"engine": args.engine}).items():
            if value is not None:
                raise BadInput(f"--{name.replace('_', '-')} has no effect without --on")
        return None
    from eval.common.distributed import launched
    from eval.engines.named import engine_named

    if launched() > 1:
        raise BadInput("--on starts processes of its own; leave torchrun out")
    if args.keep_model:
        raise BadInput("--keep-model keeps folders on one machine; leave --on out for it")
    return engine_named(args.on, _placing(args))


def _placing(args: argparse.Namespace) -> Placing:
    from eval.engines.placing import placing_from

    return placing_from(args.engine, {name: getattr(args, name) for name in _FLAGS})


def driven(args: argparse.Namespace, request: Request) -> Report:
    """The run by the engine that is asked for, a line on stderr for each cell that ends."""
    from eval.engines.drive import drive
    from eval.stores.front import place_of

    engine = engine_of(args)
    assert engine is not None
    cache = place_of(args.cache) if args.cache else ""
    images = _placing(args).images_per_job

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return drive(request, engine, cache, say, images)


def measured_plan(args: argparse.Namespace, request: Request, engine: Engine) -> int:
    """What a run would cost by what the results of its store cost; no model is loaded."""
    from eval.engines.costs import Costs, in_words
    from eval.engines.planned import planned_cells
    from eval.run.known import planned_from

    cells, index = planned_from(request)
    left = Costs(index.results.values()).of(
        planned_cells([c for c in cells if not c.done], request.results)
    )
    if args.json:
        print(json.dumps({"cells": len(cells)} | asdict(left) | {"hours": left.hours}, indent=1))
        return 0
    print(f"{sum(c.done for c in cells):,} of {len(cells):,} cells are done.")
    print(in_words(left, engine.slots))
    return 0


def status_command(args: argparse.Namespace) -> int:
    from eval.common.errors import NotFound
    from eval.engines.status import as_json, render, status_of
    from eval.stores.front import address_of

    folder = args.results
    if not address_of(folder) and not folder.is_dir():
        raise NotFound(f"results directory {str(folder)!r} does not exist")
    status = status_of(folder)
    print(json.dumps(as_json(status), indent=1) if args.json else render(status))
    return 0
