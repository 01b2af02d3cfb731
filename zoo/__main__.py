"""``transfer-zoo`` and ``python -m zoo``: parse, call one public function, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.cli import Parser, dispatch
from eval.errors import UserError
from eval.files import default_cache

COMMANDS = {
    "pretrain": "train one backbone with one objective",
    "list": "checkpoints, objectives or recipes that can be named",
}

EXAMPLES = """examples:
  transfer-zoo pretrain tiny --objective ce+selfsupcon --data DATA/tiny_imagenet --out runs/joint
  transfer-zoo pretrain tiny --objective supcon+0.5*selfsupcon --data photos --out runs/mine
  transfer-zoo pretrain my_recipe.toml --objective selfsupcon --data 'hub:org/name' --out runs/x
  transfer-zoo pretrain tiny --objective ce --data DATA/tiny_imagenet --out runs/ce --resume
  torchrun --nproc_per_node 8 -m zoo pretrain imagenet --objective supcon --data DIR --out runs/sup
  transfer-zoo list
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="transfer-zoo",
        description="Pretrain backbones, one objective each, and list what there is.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    train = commands.add_parser(
        "pretrain",
        help=COMMANDS["pretrain"],
        description="Train one backbone with one objective; Ctrl-C saves, --resume goes on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "recipe", metavar="RECIPE", help="a shipped recipe (transfer-zoo list recipes) or a TOML"
    )
    train.add_argument(
        "--objective", required=True, metavar="OBJ",
        help="ce, ce-strong, selfsupcon, supcon, ce+selfsupcon, supcon+0.5*selfsupcon, ...",
    )  # fmt: skip
    train.add_argument(
        "--data", required=True, metavar="DIR",
        help="a folder of train-*.parquet, of classes, or of images; or hub:org/name",
    )  # fmt: skip
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="the run's folder")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override the recipe, for example --set train.epochs=5 (repeatable)",
    )  # fmt: skip
    train.add_argument("--image", default="image", metavar="COL", help="the image column")
    train.add_argument("--label", default="label", metavar="COL", help="the label column")
    train.add_argument("--limit", type=int, metavar="N", help="train on N images, class-balanced")
    train.add_argument("--device", metavar="D", help="cpu, cuda or mps; default: the best there is")
    train.add_argument("--cache", type=Path, metavar="DIR", help="default: TRANSFERZOO_CACHE")

    listing = commands.add_parser("list", help=COMMANDS["list"])
    listing.add_argument(
        "what", nargs="?", default="checkpoints", choices=("checkpoints", "objectives", "recipes")
    )
    listing.add_argument("--json", action="store_true", help="as JSON")
    return parser


def pretrain_command(args: argparse.Namespace) -> int:
    from zoo.names import parse_objective
    from zoo.recipe import load_recipe, needs_labels

    objective = parse_objective(args.objective)
    recipe = load_recipe(args.recipe, args.overrides)
    if args.limit is not None and args.limit < 2:
        raise UserError(f"--limit {args.limit} leaves nothing to train on; use 2 or more")

    from zoo.pixels import open_data
    from zoo.pretrain import Interrupted, pretrain

    data = open_data(
        args.data,
        recipe.image.store_px,
        args.cache or default_cache(),
        need_labels=needs_labels(recipe, objective),
        image=args.image,
        label=args.label,
        limit=args.limit,
        progress=sys.stderr.isatty(),
    )
    try:
        done = pretrain(recipe, objective, data, args.out, resume=args.resume, device=args.device)
    except Interrupted as stopped:
        print(f"interrupted: {stopped}; the same command with --resume goes on", file=sys.stderr)
        return 130
    probe = "" if done.knn_top1 is None else f", kNN {done.knn_top1:.1f} % on its validation split"
    print(
        f"{objective.shown}: {recipe.train.epochs} epochs in {done.seconds / 60:.1f} min "
        f"({done.images_per_s:,.0f} images/s){probe}\n"
        f"{args.out}/model.safetensors: {done.exported.bytes / 1e6:.2f} MB, features within "
        f"{done.exported.difference:.1g} of the trained ones\n"
        f"  timm.create_model('local-dir:{args.out}', pretrained=True)\n"
        f"  transfer-eval run local-dir:{args.out} --suite mini"
    )
    return 0


def list_command(args: argparse.Namespace) -> int:
    from zoo import listing

    rows = {
        "checkpoints": listing.checkpoints,
        "objectives": listing.objectives,
        "recipes": listing.recipes,
    }[args.what]()
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print(listing.render(rows, markdown=not sys.stdout.isatty()))
    return 0


HANDLERS = {"pretrain": pretrain_command, "list": list_command}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the user's mistake, 130 interrupted (the state is saved)."""
    return dispatch(build_parser, HANDLERS, argv, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
