"""The commands that a campaign disturbs: what they work on, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from eval.queue.candidate import Candidate
from eval.queue.open import open_queue
from eval.queue.request import STATES
from eval.results.store import write_result
from tests.campaign.outcome import TOKEN, Place
from tests.children import FORKS
from tests.data.boxes.make import SMALL as SMALL_DETECTOR
from tests.data.boxes.make import flags, write_set
from tests.factories import make_result, make_task
from tests.hub.store import Kind
from tests.prepare.official import make_eurosat
from tests.zoo.card.made import make as make_checkpoint
from tests.zoo.study.made import pictures, weights, written
from tests.zoo.train.runs import SMALL

PRELOAD = [
    __name__, "timm", "accelerate", "datasets", "huggingface_hub", "eval.run.execute",
    "eval.features.precision", "eval.protocols.fewshot", "eval.protocols.knn",
    "eval.protocols.linear", "eval.prepare.prepare", "eval.sharing.push", "eval.queue.worker",
    "zoo.train.pretrain", "zoo.card.publish",
]  # fmt: skip
LEASE = 0.5  # seconds until a killed worker's request is taken again
_TIMES = re.compile(rb'"created": "[^"]*"|"seconds": \{[^}]*\}')
_REPO = {"publish": "lab/net", "push": "lab/results", "offer": "lab/results"}

State = dict[str, bytes]


def files_of(folder: Path, pattern: str) -> State:
    """Whole files by name, without the times in them."""
    return {
        str(path.relative_to(folder)): _TIMES.sub(b"", path.read_bytes())
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and not any(part.startswith(".") for part in path.parts)
    }


def _answers(folder: Path) -> State:
    """Scores and answers of results that tell, beside them, how long each part took."""
    found = {}
    for name in files_of(folder, "*.json"):
        result = json.loads((folder / name).read_bytes())
        found[name] = json.dumps([result["scores"], result["samples"]]).encode()
    return found


@dataclass(frozen=True)
class Command:
    """``argv(inputs, folder)`` is the command line, ``state(place, folder)`` what is to be equal
    after it, whole or absent at any time; ``reset`` makes folder and Hub as before."""

    name: str
    program: str
    argv: Callable[[Path, Path], list[str]]
    state: Callable[[Place, Path], State]
    reset: Callable[[Place, Path], None] = lambda place, folder: None


def make_inputs(place: Place) -> Path:
    """What the commands read, once for all. The processes they run in can be started at once
    afterwards: what is timed is the command."""
    first = FORKS.Process(target=os.getpid)
    first.start()
    first.join()
    inputs = place.folder / "inputs"
    for seed, task in enumerate(("eurosat", "dtd")):
        make_task(inputs / "data" / task, seed=seed)
    make_task(inputs / "images", classes=3, train=12, test=4)
    write_set(inputs / "boxes", tall=0)
    (inputs / "study").mkdir()
    written(inputs / "study")
    pictures(inputs / "study" / "data")
    make_eurosat(inputs / "download")
    make_checkpoint(inputs / "checkpoint" / "resnet_tiny.ce_made")
    for model in "abcdef":
        result = make_result(f"random:{model}", "photos")  # on data of one's own
        write_result(inputs / "results" / f"{model}.json", result)
    content = {
        name: (inputs / "checkpoint" / "resnet_tiny.ce_made" / name).read_bytes()
        for name in ("config.json", "model.safetensors")
    }
    for number in range(2):
        place.hub.add_model(f"org/net{number}", {**content, "x.txt": str(number)})
    return inputs


def _scored(inputs: Path, folder: Path) -> list[str]:
    return [
        "--task", "eurosat", "dtd", "--data", str(inputs / "data"), "--cache",
        str(folder / "cache"), "--results", str(folder / "results"), "--img-size", "32",
        "--protocol", "fewshot", "knn", "--episodes", "20", "--shots", "1", "5",
        "--precision", "fp32", "--batch-size", "8",
    ]  # fmt: skip


def _pretrained(inputs: Path, folder: Path) -> list[str]:
    sets = [word for setting in SMALL for word in ("--set", setting)]
    return [
        "pretrain", "tiny", "--objective", "ce+selfsupcon", "--data", str(inputs / "images"),
        "--out", str(folder / "run"), "--cache", str(folder / "cache"), "--device", "cpu", *sets,
        "--set", "train.batch_size=6", "--set", "probe.every_epochs=2", "--resume",
    ]  # fmt: skip


def _prepared(place: Place, folder: Path) -> State:
    found = files_of(folder / "out", "*.parquet")
    for name in found:
        pq.read_metadata(folder / "out" / name)
    path = folder / "out" / "eurosat" / "manifest.json"
    if path.is_file():
        manifest = json.loads(path.read_bytes())
        found["manifest"] = json.dumps(manifest | {"created": ""}).encode()
    return found


def _on_hub(kind: Kind, name: str) -> Callable[[Place, Path], State]:
    def state(place: Place, folder: Path) -> State:
        repo = place.hub.repos.get((kind, name))
        if repo is None:
            return {}
        history = list(repo.history(repo.head))[::-1]  # the first one first
        found = {f"commit {i}": c.title.encode() for i, c in enumerate(history)}
        found |= {p: blob.read() for p, blob in repo.head.files.items()}
        for number, talk in sorted(repo.discussions.items()):
            if talk.pull and (sha := repo.pulls.get(f"refs/pr/{number}")):
                found[f"request {number}"] = talk.title.encode()
                found |= {f"{number}/{p}": b.read() for p, b in repo.commits[sha].files.items()}
        return found

    return state


def _without(kind: Kind, name: str) -> Callable[[Place, Path], None]:
    def reset(place: Place, folder: Path) -> None:
        with place.hub.lock:
            place.hub.repos.pop((kind, name), None)
            if name == "lab/results":  # push offers to what is there
                place.hub.add_dataset(name, {"README.md": "# results"})

    return reset


def _asked(place: Place, folder: Path) -> None:
    queue = open_queue(str(folder / "queue"))
    for number in range(2):
        sha = place.hub.repos["model", f"org/net{number}"].head.sha
        spec = f"hf-hub:org/net{number}@{sha}"
        queue.add(
            Candidate(spec, f"org/net{number}", sha, "test_resnet", 7, 28, "mit", 32, False), "ada"
        )


def _served(place: Place, folder: Path) -> State:
    done = {
        f"{state}/{path.name}": b""
        for state in STATES
        if state in ("done", "failed")
        for path in (folder / "queue" / state).glob("*.json")
    }
    return files_of(folder / "results", "*.json") | done


COMMANDS = (
    Command(
        "run", "eval", lambda i, f: ["run", "random:test_resnet", *_scored(i, f)],
        lambda place, folder: files_of(folder / "results", "*.json"),
    ),
    Command(
        "pretrain", "zoo", _pretrained,
        lambda place, folder: {
            name: (folder / "run" / name).read_bytes()
            for name in ("model.safetensors", "config.json")
            if (folder / "run" / name).is_file()
        },
    ),
    Command(
        "prepare", "eval",
        lambda i, f: [
            "prepare", "eurosat", "--source", str(i / "download"), "--out", str(f / "out"),
            "--partial", "--decode",
        ],
        _prepared,
    ),
    Command(
        "publish", "zoo",
        lambda i, f: ["publish", str(i / "checkpoint" / "resnet_tiny.ce_made"), _REPO["publish"]],
        _on_hub("model", _REPO["publish"]), _without("model", _REPO["publish"]),
    ),
    Command(
        "push --direct", "eval",
        lambda i, f: ["push", str(i / "results"), "ada/results", "--direct"],
        _on_hub("dataset", "ada/results"), _without("dataset", "ada/results"),
    ),
    Command(
        "push", "eval", lambda i, f: ["push", str(i / "results"), _REPO["push"]],
        _on_hub("dataset", _REPO["push"]), _without("dataset", _REPO["push"]),
    ),
    Command(
        "worker", "eval",
        lambda i, f: ["worker", "--queue", str(f / "queue"), "--once", *_scored(i, f)],
        _served, _asked,
    ),
)  # fmt: skip

LONGER = (
    Command(
        "run of finetune", "eval",
        lambda i, f: [
            "run", "random:test_resnet", "--task", f"parquet:{i / 'images'}", "--cache",
            str(f / "cache"), "--results", str(f / "results"), "--protocol", "finetune",
            "--img-size", "24", "--precision", "fp32", "--device", "cpu", "--set",
            "finetune.lrs=[0.05]", "finetune.batch_sizes=[16]", "finetune.weight_decays=[0.0]",
            "finetune.tune_epochs=6", "finetune.epochs=20",
        ],
        lambda place, folder: _answers(folder / "results"),
    ),
    Command(
        "run of detection", "eval",
        lambda i, f: [
            "run", "random:test_resnet", "--task", f"parquet:{i / 'boxes'}",
            "--schedule", "short:30", "--set", *flags({**SMALL_DETECTOR, "lr": 0.02}), "--device",
            "cpu", "--precision", "fp32", "--cache", str(f / "cache"), "--results",
            str(f / "results"),
        ],
        lambda place, folder: _answers(folder / "results"),
    ),
    Command(
        "analyze", "eval",
        lambda i, f: [
            "analyze", "geometry", "random:test_resnet", "--task", f"parquet:{i / 'images'}",
            "--img-size", "32", "--cache", str(f / "cache"), "--results", str(f / "results"),
        ],
        lambda place, folder: files_of(folder / "results", "*.json"),
    ),
    Command(
        "study run", "zoo",
        lambda i, f: [
            "study", "run", "--plan", str(i / "study" / "plan.toml"), "--data",
            str(i / "study" / "data"), "--out", str(f / "out"), "--cache", str(f / "cache"),
            "--device", "cpu",
        ],
        lambda place, folder: weights(folder / "out"),
    ),
)  # fmt: skip


def in_child(
    program: str, argv: list[str], log: str, settings: Mapping[str, str], limits: Any = None
) -> None:
    """In a child: the command with its output in a file, and no patience with a busy Hub."""
    os.environ.update(settings)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from huggingface_hub import constants

    from eval.hub import client
    from eval.queue import request

    constants.HF_HUB_CACHE = settings["HF_HUB_CACHE"]  # read when it was imported, before the fork
    client.WAITS = (0.01, 0.02, 0.04)  # type: ignore[assignment]
    request.LEASE = LEASE
    if program == "eval":
        from eval.__main__ import main
    else:
        from zoo.__main__ import main  # type: ignore[assignment]
    sys.exit(main(argv))


def begin(command: Command, inputs: Path, folder: Path, place: Place) -> Any:
    """A process that carries the command out."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    settings = place.hub.settings(home, TOKEN) | {"HF_HUB_CACHE": str(home / "hub")}
    process = FORKS.Process(
        target=in_child,
        args=(command.program, command.argv(inputs, folder), str(folder / "log"), settings),
    )
    process.start()
    return process


def fresh(command: Command, folder: Path, place: Place) -> Path:
    """The folder, empty, and the Hub as before the command."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command.reset(place, folder)
    return folder
