"""What ``transfer-eval`` takes: its commands and their options.

argparse rather than typer: the contract has options that take several values
(``--shots 1 5 20``), which typer cannot parse, and the standard library starts at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.analysis import ANALYSES
from eval.common.command import Parser
from eval.settings.presets import PRESETS
from eval.stores.front import folder_of

COMMANDS = {
    "run": "score models on tasks; what is done is not done again",
    "plan": "what a run with the same arguments would cost",
    "status": "how far the runs of a results directory or store are: done, running, failed, left",
    "list": "tasks, suites, protocols, presets or models that can be named",
    "leaderboard": "boards of all results in a directory or a data set repository of the Hub",
    "curves": "plot accuracy against training images (--train-fraction) or steps of a training",
    "reliability": "plot how often answers of a confidence are right (linear, finetune)",
    "compare": "two models on the same episodes and images, with paired tests",
    "ties": "ranks, intervals and tie groups of anybody's scores, item by item",
    "cka": "how alike the layers of two models are (centred kernel alignment)",
    "analyze": "why do models transfer: profile, geometry, robustness, reconstruction, predictors",
    "study": "what a study of many trainings says: every planned contrast, with its uncertainty",
    "recommend": "which models to try first on a data set, and how good that advice has been",
    "report": "results and findings as one page that prints well and needs nothing beside it",
    "verify": "run one result again and say equal, within tolerance, or what differs",
    "detect": "draw what a kept detector finds in pictures of yours",
    "prepare": "official downloads of a declared data set -> Parquet that every run can use",
    "check-task": "look at a data set of your own before it is scored",
    "push": "offer results to a data set repository of the Hub, as a pull request",
    "merge": "check and merge such a pull request (for those who keep the repository)",
    "worker": "score the models that are asked for in a queue",
    "export": "results in the every_eval_ever format",
    "cache": "list or remove cached features",
}

EXAMPLES = """examples:
  transfer-eval run random:resnet18 zoo:NAME --suite mini
  transfer-eval run hf-hub:timm/resnet50.a1_in1k --data DATA --task eurosat dtd --protocol fewshot
  transfer-eval run local-dir:my_model --task imagefolder:photos --shots 1 5
  transfer-eval run MODEL --task dtd --data DATA --protocol linear --pool cls mean --layer last-4
  torchrun --nproc_per_node 2 --no-python transfer-eval run MODEL --data DATA --suite subsets
  transfer-eval run zoo:all --suite detection --data DATA --schedule short:600
  transfer-eval run --author ORG --filter objective:supcon --suite mini
  transfer-eval compare random:resnet18 resnet50.a1_in1k
  transfer-eval ties scores.csv
  transfer-eval push results ORG/results
  transfer-eval leaderboard --results hub:ORG/results
"""


PUSH_EXAMPLES = """examples:
  transfer-eval push results ORG/results --dry-run
  transfer-eval push results ORG/results            # opens a pull request
  transfer-eval merge ORG/results 3 --verify 2      # its owner: two of them are computed again
  transfer-eval leaderboard --results hub:ORG/results
"""
TIES_EXAMPLES = """examples:
  transfer-eval ties scores.csv                     # columns model, item, score and perhaps task
  transfer-eval ties every_eval_ever/ --tasks --json
"""
STUDY_EXAMPLES = """examples:
  transfer-eval study model_cards/budget-projector.results.parquet --out learning-curves.svg
  transfer-eval study study.results.parquet --json
"""
COMPARE_EXAMPLES = """examples:
  transfer-eval compare random:resnet18 resnet50.a1_in1k
  transfer-eval compare zoo:NAME zoo:OTHER --results hub:ORG/results
"""
STATUS_EXAMPLE = """example:
  transfer-eval run zoo:all --suite mini --results s3://BUCKET/board --on slurm --partition gpu
  transfer-eval status --results s3://BUCKET/board
"""
PREPARE_EXAMPLES = """examples:
  transfer-eval prepare eurosat --source downloads --out DATA      # downloads/EuroSAT_RGB.zip
  transfer-eval prepare chestx --source downloads --out DATA --processes 8
  transfer-eval prepare eurosat --out DATA --push-to ORG/eurosat   # then: --data hub:ORG
  transfer-eval prepare ade20k --source downloads --out DATA       # also voc2012-seg, cityscapes
"""
DETECT_EXAMPLE = """example:
  transfer-eval run zoo:NAME --task bccd --data DATA --schedule short:600 --keep-model
  transfer-eval detect results/zoo-NAME/REVISION/bccd.detection@schedule=short-600.model photo.jpg
"""
RELIABILITY_EXAMPLE = """examples:
  transfer-eval run zoo:all --task eurosat dtd --data DATA --protocol linear
  transfer-eval reliability --task eurosat --out reliability.svg
"""
CURVES_EXAMPLES = """examples:
  transfer-eval run zoo:all --protocol linear --train-fraction 0.01 0.1 0.25 0.5 1
  transfer-eval curves --out parts.png
  transfer-eval curves --x step --results probe --out training.png
"""
CKA_EXAMPLE = """example:
  transfer-eval cka zoo:NAME random:resnet18 --task eurosat --data DATA --img-size 64 --out map.png
"""
ANALYZE_EXAMPLE = """examples:
  transfer-eval analyze profile zoo:all random:resnet18 --img-size 64 --out profile.png
  transfer-eval analyze geometry zoo:all --task dtd --data DATA
  transfer-eval analyze predictors zoo:all random:resnet18 --task imagefolder:photos
"""
RECOMMEND_EXAMPLE = """example:
  transfer-eval recommend --task imagefolder:photos
  transfer-eval recommend zoo:all resnet50.a1_in1k --task csv:FILE?image=path&label=class
"""
REPORT_EXAMPLES = """examples:
  transfer-eval report results --out report.html
  transfer-eval report hub:ORG/results results --title "Our models, spring"
"""
VERIFY_EPILOG = """exit codes:
  0  equal, to the last digit
  3  within tolerance: other versions, processor or threads, and no more changed than they explain
  1  differs
  2  your mistake: no result file, or its model or data are not to be had
"""
CHECK_EXAMPLE = """a task file, say flowers.toml:
  name = "my-flowers"
  title = "Flowers of my garden"
  domain = "fine-grained"
  source = "imagefolder:photos"     # or parquet:DIR, csv:FILE?image=..&label=.., hub:org/name?..
  licence = "my own"
  classes = ["aster", "daisy"]      # optional, checked
  train = 400                       # optional, checked
  test = 100
  transfer-eval run MODEL --task flowers.toml
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="transfer-eval",
        description="Score any vision backbone on real image data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, epilog: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=COMMANDS[name],
            description=COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    for name in ("run", "plan"):
        running = command(name, EXAMPLES)
        _add_run_arguments(running)
        _add_engine(running)
    _add_results(command("status", STATUS_EXAMPLE))
    listing = command("list")
    listing.add_argument("what", choices=("tasks", "suites", "protocols", "presets", "models"))
    listing.add_argument("--data", metavar="DIR", help="tasks: also say which are there")
    listing.add_argument("--verbose", action="store_true", help="protocols: every setting")
    listing.add_argument("--json", action="store_true", help="print JSON")
    board = command("leaderboard")
    _add_shelf(board)
    board.add_argument(
        "--protocol", nargs="+", action="extend", metavar="P",
        help="only these protocols; robustness: findings of `analyze robustness`",
    )  # fmt: skip
    curves = command("curves", CURVES_EXAMPLES)
    _add_shelf(curves)
    curves.add_argument(
        "--x", choices=("train", "step"), default="train",
        help="training images (default), or steps: the readings of a TrainingProbe",
    )  # fmt: skip
    curves.add_argument(
        "--out", type=Path, default=Path("curves.png"), metavar="FILE", help=".png or .svg"
    )
    reliability = command("reliability", RELIABILITY_EXAMPLE)
    _add_shelf(reliability)
    reliability.add_argument("--task", nargs="+", action="extend", metavar="T", help="only these")
    reliability.add_argument(
        "--protocol", nargs="+", action="extend", metavar="P", help="only these protocols"
    )
    reliability.add_argument(
        "--model", nargs="+", action="extend", metavar="M", help="only these models"
    )
    reliability.add_argument(
        "--out", type=Path, default=Path("reliability.png"), metavar="FILE", help=".png or .svg"
    )
    ties = command("ties", TIES_EXAMPLES)
    ties.add_argument(
        "file", metavar="FILE",
        help="CSV or Parquet with model, item (or seed), score and perhaps task; or a file or "
        "folder of every_eval_ever",
    )  # fmt: skip
    ties.add_argument("--tasks", action="store_true", help="also a board for each task")
    ties.add_argument("--json", action="store_true", help="print JSON")
    study = command("study", STUDY_EXAMPLES)
    study.add_argument(
        "file", type=Path, metavar="FILE",
        help="NAME.results.parquet, as `transfer-zoo study collect` writes it",
    )  # fmt: skip
    study.add_argument(
        "--out", type=Path, metavar="PICTURE", help="draw the learning curves too: .png or .svg"
    )
    study.add_argument("--json", action="store_true", help="print JSON")
    compare = command("compare", COMPARE_EXAMPLES)
    compare.add_argument("model_a", metavar="MODEL_A")
    compare.add_argument("model_b", metavar="MODEL_B")
    _add_shelf(compare)
    cka = command("cka", CKA_EXAMPLE)
    cka.add_argument("model_a", metavar="MODEL_A")
    cka.add_argument("model_b", metavar="MODEL_B", help="the same again: a model with itself")
    cka.add_argument("--task", required=True, metavar="T", help="whose images are looked at")
    cka.add_argument("--kernel", default="linear", metavar="K", help="linear (default) or rbf")
    cka.add_argument("--layers", nargs="+", action="extend", metavar="L", help="default: all")
    cka.add_argument("--images", type=int, metavar="N", help="at most so many (default: all)")
    cka.add_argument(
        "--spatial", action="store_true", help="compare maps place by place, not their averages"
    )
    _add_analysis(cka)
    analyze = command("analyze", ANALYZE_EXAMPLE)
    analyze.add_argument("name", metavar="NAME", help=", ".join(ANALYSES))
    analyze.add_argument("models", nargs="+", metavar="MODEL", help="as for run")
    analyze.add_argument(
        "--task", nargs="+", action="extend", metavar="T",
        help="one or more, as for run (profile: the drawn tasks of mini)",
    )  # fmt: skip
    analyze.add_argument(
        "--set", nargs="+", action="extend", metavar="NAME=V",
        help="a setting of the analysis, for example severities=[1,5]",
    )  # fmt: skip
    _add_analysis(analyze)
    recommend = command("recommend", RECOMMEND_EXAMPLE)
    _add_models(recommend, "default: zoo:all")
    recommend.add_argument("--task", required=True, metavar="T", help="your data, as for run")
    recommend.add_argument(
        "--by", default="log_me", metavar="P", help="log_me (default), shrunk_h_score, "
        "trans_rate or centroid",
    )  # fmt: skip
    _add_analysis(recommend, picture=False)
    report = command("report", REPORT_EXAMPLES)
    report.add_argument(
        "places", nargs="+", metavar="RESULTS_DIR", help="directories, or hub:ORG/NAME[@rev]"
    )
    report.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help=".html"
    )
    report.add_argument("--title", metavar="TEXT", help="what stands at the top")
    verify = command("verify", VERIFY_EPILOG)
    verify.add_argument("result", type=Path, metavar="RESULT.json")
    verify.add_argument(
        "--data", metavar="DIR", help="where the data lie now, if they moved (or hub:OWNER)"
    )
    _add_cache(verify)
    verify.add_argument(
        "--sign-off", action="store_true",
        help="where it is equal, say so beside the result: boards show it as verified",
    )  # fmt: skip
    verify.add_argument("--by", metavar="NAME", help="who signs off (default: your user name)")
    verify.add_argument("--json", action="store_true", help="print JSON")
    detect = command("detect", DETECT_EXAMPLE)
    detect.add_argument("model", type=Path, metavar="MODEL_DIR", help="of run --keep-model")
    detect.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    detect.add_argument(
        "--out", type=Path, default=Path("detected"), metavar="DIR", help="where pictures go"
    )
    detect.add_argument("--least", type=float, default=0.5, metavar="S", help="score of a box")
    detect.add_argument("--json", action="store_true", help="print JSON")
    prepare = command("prepare", PREPARE_EXAMPLES)
    prepare.add_argument(
        "task", metavar="TASK",
        help="as in `transfer-eval list tasks`, or voc2012-seg, ade20k, cityscapes",
    )  # fmt: skip
    prepare.add_argument(
        "--source", type=Path, metavar="DIR", help="the official download: archives, or unpacked"
    )
    prepare.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="DIR/TASK is made, for --data DIR"
    )
    prepare.add_argument("--partial", action="store_true", help="accept that images are missing")
    prepare.add_argument("--decode", action="store_true", help="look at every pixel for damage")
    prepare.add_argument("--processes", type=int, default=1, metavar="N")
    prepare.add_argument("--push-to", metavar="ORG/NAME", help="also upload it to the Hub")
    prepare.add_argument("--private", action="store_true", help="if the repository is made now")
    prepare.add_argument("--replace", metavar="SHA", help="a commit of somebody else to replace")
    prepare.add_argument("--dry-run", action="store_true", help="say what would be uploaded")
    prepare.add_argument("--json", action="store_true", help="print JSON")
    check = command("check-task", CHECK_EXAMPLE)
    check.add_argument(
        "task", metavar="TASK", help="FILE.toml, or any task string of your own data"
    )
    check.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="contact sheet (default: NAME.png here)"
    )
    check.add_argument("--data", metavar="DIR", help="of a declared task")
    check.add_argument(
        "--strict", action="store_true", help="fail where `run --strict` would: exit code 2"
    )
    _add_cache(check)
    check.add_argument("--json", action="store_true", help="print JSON")
    push = command("push", PUSH_EXAMPLES)
    push.add_argument("directory", type=Path, metavar="RESULTS_DIR")
    push.add_argument("repo", metavar="ORG/NAME", help="the data set repository")
    push.add_argument("--direct", action="store_true", help="commit, with the table, not a request")
    push.add_argument(
        "--replace", action="store_true", help="also results whose scores differ from those there"
    )
    push.add_argument("--private", action="store_true", help="if the repository is made now")
    push.add_argument("--dry-run", action="store_true", help="say what would be added")
    merge = command("merge")
    merge.add_argument("repo", metavar="ORG/NAME")
    merge.add_argument("number", type=int, metavar="NUMBER", help="of the pull request")
    merge.add_argument(
        "--verify", type=int, metavar="N", help="first compute N of its results again, by chance"
    )
    merge.add_argument("--data", metavar="DIR", help="--verify: as for run")
    _add_cache(merge)
    worker = command("worker")
    worker.add_argument(
        "--queue", required=True, metavar="Q", help="a directory, or hub:ORG/NAME (a data set)"
    )
    worker.add_argument("--once", action="store_true", help="stop when nothing is pending")
    worker.add_argument(
        "--by", metavar="NAME", help="who signs off what is computed (default: your user name)"
    )
    _add_choices(worker)
    _add_engine(worker)
    export = command("export")
    export.add_argument("out", type=Path, metavar="DIR", help="where the files go")
    export.add_argument(
        "--samples", action="store_true", help="also each image's and episode's answer, one a line"
    )
    _add_shelf(export)
    cache = command("cache")
    actions = cache.add_subparsers(dest="action", metavar="ls|rm", required=True)
    ls = actions.add_parser("ls", help="list cached features")
    _add_cache(ls)
    ls.add_argument("--json", action="store_true", help="print JSON")
    rm = actions.add_parser("rm", help="remove cached features")
    rm.add_argument("keys", nargs="*", metavar="KEY", help="as shown by ls (a prefix is enough)")
    rm.add_argument("--model", help="all of this model's")
    rm.add_argument("--task", help="all of this task's")
    rm.add_argument("--all", action="store_true", help="all of them")
    _add_cache(rm)
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_models(
        parser,
        "hf-hub:org/name[@rev], local-dir:PATH, zoo:NAME, zoo:all, random:ARCH or a timm name",
    )
    _add_choices(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """Who scores the groups, where not this process alone."""
    parser.add_argument(
        "--on", metavar="ENGINE",
        help="local:N processes of this machine, slurm, ray or ray://HEAD:PORT (eval/engines)",
    )  # fmt: skip
    parser.add_argument("--partition", metavar="P", help="--on slurm: of the jobs")
    parser.add_argument("--gpus", type=int, metavar="N", help="--on slurm, ray: of a job (0)")
    parser.add_argument("--cpus", type=int, metavar="N", help="--on slurm, ray: of a job (1)")
    parser.add_argument("--time", metavar="T", help="--on slurm: of a job (12:00:00)")
    parser.add_argument("--max-jobs", type=int, metavar="N", help="--on slurm, ray: at once (64)")
    parser.add_argument(
        "--images-per-job", type=int, metavar="N",
        help="a larger set is encoded by several jobs, where they share --cache (200,000)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", type=Path, metavar="FILE.toml", help="these flags as a file; others of sbatch"
    )


def _add_models(parser: argparse.ArgumentParser, what: str) -> None:
    """Models one by one, or by a search of the Hub."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help=what)
    parser.add_argument("--author", metavar="ORG", help="all models of an author of the Hub")
    parser.add_argument("--collection", metavar="C", help="all models of a collection of the Hub")
    parser.add_argument(
        "--filter", nargs="+", action="extend", metavar="TAG",
        help="models of the Hub with all these tags, for example objective:supcon",
    )  # fmt: skip


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Which tasks, how, and where to: all of a run but the models."""
    parser.add_argument(
        "--suite", nargs="+", action="extend", metavar="S",
        help="mini, transfer12, subsets, detection (no --suite and no --task: mini)",
    )  # fmt: skip
    parser.add_argument(
        "--task", nargs="+", action="extend", metavar="T",
        help="a declared task (NAME or NAME@SPLIT), FILE.toml, parquet:DIR, imagefolder:DIR, "
        "csv:FILE or hub:org/name?image=..&label=..; with boxes coco:DIR, voc:DIR or yolo:DIR; "
        "with masks masks:DIR or voc-seg:DIR",
    )  # fmt: skip
    parser.add_argument(
        "--test-on", metavar="T", help="score what was fitted on each --task on the test images of "
        "this one, which has the same classes (T&map=FILE.csv maps their names)",
    )  # fmt: skip
    parser.add_argument("--split", metavar="S", help="study or clean (default: a task's first)")
    parser.add_argument(
        "--protocol", nargs="+", action="extend", metavar="P",
        help="fewshot, knn, linear (default: these three), attentive, linear-sgd, finetune, "
        "retrieval, multilabel, low-level; boxes: detection; masks: segment, segment-knn",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", action="extend", metavar="P.NAME=V",
        help="a protocol's setting, for example finetune.epochs=10 (list protocols --verbose)",
    )  # fmt: skip
    parser.add_argument(
        "--pool", nargs="+", action="extend", metavar="P",
        help="what is read off a layer: cls, mean, cls+mean, cls+last-mean or default; several "
        "come from one pass",
    )  # fmt: skip
    parser.add_argument(
        "--layer", nargs="+", action="extend", metavar="L",
        help="NAME, NAME+NAME, last-N (together), auto (chosen on part of train); default: the end",
    )  # fmt: skip
    parser.add_argument(
        "--preset", metavar="NAME",
        help="somebody's readout and settings: " + ", ".join(PRESETS) + " (list presets)",
    )  # fmt: skip
    parser.add_argument(
        "--schedule", metavar="S",
        help="detection: voc-24k, coco-1x, coco-2x or short:N (default: the task's)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="refuse data of your own that deserve a warning"
    )
    parser.add_argument(
        "--keep-model", action="store_true",
        help="detection: the detector, finetune: the network for timm, beside its result",
    )  # fmt: skip
    parser.add_argument("--grid", choices=("full", "small"), help="of linear-sgd and finetune")
    parser.add_argument("--views", type=int, metavar="V", help="linear-sgd: cached views an image")
    parser.add_argument(
        "--train-fraction", nargs="+", type=float, metavar="F",
        help="also score on these parts of train (linear, attentive, linear-sgd, finetune)",
    )  # fmt: skip
    parser.add_argument("--train-per-class", nargs="+", type=int, metavar="N", help="or on these")
    parser.add_argument(
        "--data", metavar="DIR",
        help="DIR/<task>/train-*.parquet, or hub:OWNER (TRANSFERZOO_DATA; else known Hub copies)",
    )  # fmt: skip
    _add_results(parser)
    parser.add_argument("--shots", nargs="+", type=int, metavar="K", help="default: 1 5 20")
    parser.add_argument("--n-way", type=int, metavar="N", help="classes an episode (default 5)")
    parser.add_argument("--queries", type=int, metavar="Q", help="queries a class (default 15)")
    parser.add_argument("--episodes", type=int, metavar="E", help="episodes (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="of episodes, splits and bootstrap")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images of each split")
    parser.add_argument("--img-size", type=int, metavar="PX", help="override the model's own")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest there is)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp32-channels_last", "bf16-channels_last"),
        default="auto", help="default: fp32; on CUDA with bf16 that, where it agrees with fp32",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, metavar="B", help="images a forward pass")
    parser.add_argument("--debug", action="store_true", help="tracebacks of failed cells")
    _add_cache(parser)


def _add_analysis(parser: argparse.ArgumentParser, *, picture: bool = True) -> None:
    """What all analyses take."""
    if picture:
        parser.add_argument("--out", type=Path, metavar="FILE", help="also draw it: .png or .svg")
    parser.add_argument("--data", metavar="DIR", help="as for run")
    parser.add_argument("--img-size", type=int, metavar="PX", help="override the models' own")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest there is)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images of each split")
    _add_results(parser)
    _add_cache(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=folder_of, default=Path("results"), metavar="DIR",
        help="a directory, or an address that fsspec opens: s3://BUCKET/FOLDER",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_shelf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        default="results",
        metavar="DIR",
        help="a directory, s3://BUCKET/FOLDER or hub:ORG/NAME[@rev]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        type=folder_of,
        metavar="DIR",
        help="features and memos (TRANSFERZOO_CACHE); of an address, features are shared",
    )
