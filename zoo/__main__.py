"""``transfer-zoo`` and ``python -m zoo``: parse, call one public function, print."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.command import Parser, dispatch
from eval.common.errors import BadInput
from eval.common.files import default_cache
from eval.common.text import counted
from zoo.convert.convert import SOURCES

if TYPE_CHECKING:
    from eval.hub.mirror import Mirrored
    from zoo.study.plan import Plan

COMMANDS = {
    "pretrain": "train one backbone with one objective",
    "convert": "a foreign checkpoint as a folder that timm loads, every tensor accounted for",
    "card": "write a checkpoint's model card from its files and results",
    "publish": "upload a checkpoint to the Hub in one commit, and load it back",
    "study": "carry out a plan: every arm, budget and seed, tuned, trained and scored",
    "list": "checkpoints, objectives or recipes that can be named",
}

EXAMPLES = """examples:
  transfer-zoo pretrain tiny --objective ce+selfsupcon --data DATA/tiny_imagenet --out runs/joint
  transfer-zoo pretrain tiny --objective supcon+0.5*selfsupcon --data photos --out runs/mine
  transfer-zoo pretrain my_recipe.toml --objective selfsupcon --data 'hub:org/name' --out runs/x
  transfer-zoo pretrain tiny --objective ce --data DATA/tiny_imagenet --out runs/ce --resume
  torchrun --nproc_per_node 8 --no-python transfer-zoo pretrain imagenet --objective supcon \\
      --data DIR --out runs/sup
  transfer-zoo convert moco_v2_800ep_pretrain.pth.tar --source moco --out my/resnet50.moco
  transfer-zoo card my/resnet50.moco --results results
  transfer-zoo publish my/resnet50.moco ORG/resnet50.moco --dry-run
  transfer-zoo publish --all ORG
  transfer-zoo study run --plan budget-projector --data DATA --out study
  transfer-zoo study status --plan budget-projector --out study
  transfer-zoo list
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="transfer-zoo",
        description="Pretrain backbones, one objective each; describe, publish and convert them.",
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

    def command(name: str) -> argparse.ArgumentParser:
        about = COMMANDS[name][0].upper() + COMMANDS[name][1:] + "."
        return commands.add_parser(
            name, help=COMMANDS[name], description=about, epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    convert = command("convert")
    convert.add_argument("file", type=Path, metavar="FILE", help="the checkpoint as downloaded")
    convert.add_argument(
        "--source", required=True, metavar="S", choices=tuple(SOURCES), help=", ".join(SOURCES)
    )
    convert.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    convert.add_argument("--arch", metavar="NAME", help="timm architecture, if it is not evident")
    convert.add_argument("--objective", metavar="OBJ", help="if the file does not tell")
    convert.add_argument("--px", type=int, metavar="N", help="input size, if not the source's own")
    card = command("card")
    card.add_argument("folder", type=Path, metavar="DIR", help="the checkpoint's folder")
    card.add_argument("--repo", metavar="ORG/NAME", help="the Hub repository that it speaks of")
    card.add_argument(
        "--results", type=Path, metavar="DIR", help="take over these weights' results from here"
    )
    publish = command("publish")
    publish.add_argument("folder", nargs="?", type=Path, metavar="DIR")
    publish.add_argument("repo", nargs="?", metavar="REPO_ID", help="ORG/NAME")
    publish.add_argument("--all", metavar="ORG", help="every checkpoint that ships, as ORG/NAME")
    publish.add_argument("--private", action="store_true", help="if the repository is made now")
    publish.add_argument("--dry-run", action="store_true", help="check and say what would change")
    publish.add_argument(
        "--replace", metavar="SHA", help="the commit by somebody else that may be replaced"
    )

    study = command("study")
    study.add_argument(
        "action", choices=("run", "status", "collect", "restore", "rescore", "ship"),
        help="run: do what is open, as many processes side by side as are started; status: say "
        "what is done; collect: write what was found into two Parquet files (`transfer-eval study` "
        "reads them); restore: in a new folder, take what these files hold as done; rescore: score "
        "checkpoints again whose results are of an earlier version; ship: copy the checkpoint of "
        "each objective's best budget, as its Hub repository has it",
    )  # fmt: skip
    study.add_argument("--plan", required=True, metavar="PLAN", help="shipped, or a TOML file")
    study.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="run, rescore: the pretraining images and the tasks",
    )
    study.add_argument("--out", required=True, type=Path, metavar="DIR", help="the study's folder")
    study.add_argument(
        "--to",
        type=Path,
        default=Path("model_cards"),
        metavar="DIR",
        help="collect, ship: where",
    )
    study.add_argument(
        "--from", dest="tables", type=Path, default=Path("model_cards"), metavar="DIR",
        help="restore, run: where the two files are",
    )  # fmt: skip
    study.add_argument("--device", metavar="D", help="cpu, cuda or mps; default: the best there is")
    study.add_argument("--cache", type=Path, metavar="DIR", help="default: TRANSFERZOO_CACHE")
    study.add_argument("--json", action="store_true", help="status: as JSON")

    listing = commands.add_parser("list", help=COMMANDS["list"])
    listing.add_argument(
        "what", nargs="?", default="checkpoints", choices=("checkpoints", "objectives", "recipes")
    )
    listing.add_argument("--json", action="store_true", help="as JSON")
    return parser


def pretrain_command(args: argparse.Namespace) -> int:
    from eval.models.objectives import parse_objective
    from zoo.train.recipe import load_recipe, needs_labels

    objective = parse_objective(args.objective)
    recipe = load_recipe(args.recipe, args.overrides)
    if args.limit is not None and args.limit < 2:
        raise BadInput(f"--limit {args.limit} leaves nothing to train on; use 2 or more")

    from zoo.train.pixels import open_data
    from zoo.train.pretrain import Interrupted, pretrain

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
        print(f"{stopped.how}: {stopped}; the same command with --resume goes on", file=sys.stderr)
        return stopped.exit_code
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


def convert_command(args: argparse.Namespace) -> int:
    from zoo.convert.convert import convert, render

    done = convert(
        args.file, args.source, args.out,
        architecture=args.arch, objective=args.objective, px=args.px,
    )  # fmt: skip
    print(render(done, markdown=not sys.stdout.isatty()))
    print(
        f"{args.out}: {done.architecture}, {done.params / 1e6:.1f} M parameters\n"
        f"  transfer-eval run local-dir:{args.out} --suite mini\n"
        f"  transfer-zoo card {args.out} --results results"
    )
    return 0


def card_command(args: argparse.Namespace) -> int:
    from eval.hub.commits import check_repo_id
    from zoo.card import card
    from zoo.checkpoint import adopt

    repo = check_repo_id(args.repo, "--repo") if args.repo else None
    if args.results:
        print(f"{len(adopt(args.folder, args.results))} results taken over")
    done = card.write(args.folder, repo)
    for name in done.changed:
        print(f"wrote {args.folder / name}")
    for name in done.removed:
        print(f"removed {args.folder / name}: its results are gone")
    if not done.changed and not done.removed:
        print(f"{args.folder / 'README.md'} was up to date")
    return 0


def publish_command(args: argparse.Namespace) -> int:
    from eval.hub.commits import check_repo_id
    from zoo.card.publish import collect, publish, publish_all

    if bool(args.all) == bool(args.folder) or bool(args.folder) != bool(args.repo):
        raise BadInput("publish takes DIR REPO_ID, or --all ORG")

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    if args.all:
        if args.replace:
            raise BadInput("--replace names a commit of one repository; it does not go with --all")
        check_repo_id(f"{args.all}/x", "--all")
        repos = []
        for one in publish_all(args.all, private=args.private, dry_run=args.dry_run, say=say):
            print(_published(one), flush=True)
            repos.append(one.repo)
        if not args.dry_run:
            print(collect(args.all, repos, private=args.private))
        return 0
    one = publish(
        args.folder, args.repo, private=args.private, dry_run=args.dry_run, replace=args.replace,
        say=say,
    )  # fmt: skip
    print(_published(one))
    return 0


def _published(one: Mirrored) -> str:
    change = f"{len(one.uploaded)} files, {one.bytes / 1e6:.1f} MB"
    change += f", {len(one.removed)} removed" if one.removed else ""
    if one.dry_run:
        if not one.uploaded and not one.removed:
            return f"{one.url}: nothing would change (commit {one.sha})"
        names = [*one.uploaded, *(f"removed: {name}" for name in one.removed)]
        return "\n  ".join([f"{one.url}: would upload {change}", *names])
    head = f"{one.url}: {change}, commit {one.sha}"
    if not one.uploaded and not one.removed:
        head = f"{one.url}: nothing changed, no commit made (commit {one.sha})"
    return (
        f"{head}; loaded back, features equal\n"
        f'  timm.create_model("hf-hub:{one.repo}", pretrained=True)'
    )


def study_command(args: argparse.Namespace) -> int:
    from zoo.study.cells import cells, status
    from zoo.study.plan import load_plan

    plan = load_plan(args.plan)
    if args.action == "status":
        from zoo.listing import render
        from zoo.study.progress import progress

        rows, far = status(plan, args.out), progress(plan, args.out)
        if args.json:
            print(json.dumps({"work": rows, "progress": dataclasses.asdict(far)}, indent=1))
        else:
            print(render([*rows], markdown=not sys.stdout.isatty()))
            print(f"\n{far}")
        return 0
    if args.action == "collect":
        from zoo.study.collect import collect

        if not args.out.is_dir():
            raise BadInput(f"--out {str(args.out)!r} is not a directory; nothing to collect")
        done, of = collect(plan, args.out, args.to)
        print(f"{done} of {of} checkpoints: {args.to / plan.name}.results.parquet, .log.parquet")
        return 0
    if args.action == "ship":
        return _ship(plan, args.out, args.to)
    if args.action == "restore":
        from zoo.study.restore import restore

        trained, tuned = restore(plan, args.tables, args.out)
        print(
            f"{counted(trained, 'checkpoint')} and {counted(tuned, 'tuning run')} are done in "
            f"{args.out}; `study run` goes on from there"
        )
        return 0
    if args.data is None or not args.data.is_dir():
        raise BadInput(
            f"--data {str(args.data)!r} is not a directory; study {args.action} needs one"
        )

    from zoo.study import runner
    from zoo.study.restore import table
    from zoo.train.pretrain import Interrupted

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if args.action == "rescore":
        done, busy = runner.rescore(
            plan, args.data, args.out, args.cache or default_cache(), args.device, say
        )
        print(f"{counted(done, 'checkpoint')} scored again, {busy} left: {args.out / 'results'}")
        return 0
    known = table(plan, args.tables, "results")
    if known.is_file() and not any(cell.done(args.out) for cell in cells(plan)):
        say(
            f"{known} holds finished checkpoints of this plan; `transfer-zoo study restore` would "
            f"take them as done in {args.out}, where nothing is"
        )
    try:
        runner.run(plan, args.data, args.out, args.cache or default_cache(), args.device, say)
    except Interrupted as stopped:
        print(f"{stopped.how}: {stopped}; the same command goes on", file=sys.stderr)
        return stopped.exit_code
    print(f"all of {plan.name} is done. Results: {args.out / 'results'}")
    return 0


def _ship(plan: Plan, out: Path, to: Path) -> int:
    from zoo.listing import render
    from zoo.study.ship import ship

    shipped, without = ship(plan, out, to)
    rows = [
        {
            "checkpoint": one.name, "arm": one.cell.arm.name, "epochs": str(one.cell.epochs),
            "validation kNN, %": f"{one.validation_knn:.1f}", "MB": f"{one.bytes / 1e6:.2f}",
        }
        for one in shipped
    ]  # fmt: skip
    print(render(rows, markdown=not sys.stdout.isatty()))
    total = sum(one.bytes for one in shipped) / 1e6
    print(f"\n{counted(len(shipped), 'checkpoint')}, {total:.1f} MB of weights: {to}")
    if without:
        print(f"no weights in {out} of: {', '.join(without)}")
    print(f"`transfer-zoo card DIR --results {out / 'results'}` writes the card of each")
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


HANDLERS = {
    "pretrain": pretrain_command,
    "convert": convert_command,
    "card": card_command,
    "publish": publish_command,
    "study": study_command,
    "list": list_command,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the user's mistake, 130 Ctrl-C, 143 SIGTERM
    (a state is saved)."""
    return dispatch(build_parser, HANDLERS, argv, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
