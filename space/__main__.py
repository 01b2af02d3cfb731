"""``transfer-space`` and ``python -m space``: parse, build the app, serve it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.common.command import Parser, dispatch
from eval.common.extras import require
from eval.common.files import default_cache
from eval.models.names import ZOO_FOLDER

EXAMPLES = """examples:
  transfer-space                                   # the results that ship here
  transfer-space --results results --port 8000
  transfer-space --results hub:ORG/results --queue hub:ORG/requests
  transfer-space --push ORG/NAME                   # make or update a Space on the Hub
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="transfer-space",
        description="Leaderboard, comparison, few-shot demo and submissions in the browser.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command="serve")
    parser.add_argument(
        "--results", default=str(ZOO_FOLDER), metavar="DIR", help="a directory, or hub:ORG/NAME"
    )
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free from 7860")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: all can reach it")
    parser.add_argument("--data", metavar="DIR", help="data sets, for example images; or hub:OWNER")
    parser.add_argument("--queue", default="", metavar="Q", help="of requests: DIR or hub:ORG/NAME")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="default: TRANSFERZOO_CACHE")
    hub = parser.add_argument_group("a Space on the Hub, instead of serving here")
    hub.add_argument("--push", metavar="ORG/NAME", help="make or update it, in one commit")
    hub.add_argument("--private", action="store_true", help="if it is made now")
    hub.add_argument("--dry-run", action="store_true", help="check and say what would change")
    hub.add_argument("--replace", metavar="SHA", help="the commit by somebody else to be replaced")
    return parser


def serve(args: argparse.Namespace) -> int:
    require("space", "transfer-space")
    if args.push:
        return push_space(args)
    from eval.data.locations import data_from
    from space.app import build, desk_of, launch

    data = data_from(args.data)
    desk = desk_of(args.results, args.cache or default_cache(), data, args.queue)
    launch(build(desk), server_name=args.host, server_port=args.port)
    return 0


def push_space(args: argparse.Namespace) -> int:
    from space.deploy.push import push

    results = "" if args.results == str(ZOO_FOLDER) else args.results  # the zoo goes along anyway
    done = push(
        args.push, results=results, private=args.private, dry_run=args.dry_run,
        replace=args.replace, say=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    for note in done.notes:
        print(note)
    change = f"{len(done.uploaded)} files, {done.bytes / 1e6:.1f} MB, {len(done.removed)} removed"
    if done.dry_run:
        print(f"{done.url}: would upload {change}")
    elif not done.uploaded and not done.removed:
        print(f"{done.url}: nothing changed, no commit made (commit {done.sha})")
    else:
        print(f"{done.url}: {change}, commit {done.sha}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the user's mistake."""
    return dispatch(build_parser, {"serve": serve}, argv, "stopped")


if __name__ == "__main__":
    sys.exit(main())
