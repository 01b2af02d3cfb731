"""Command lines that cannot work: each ends with exit code 2 and one sentence, and connects to
nothing but the Hub."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tests.campaign.commands import Command, begin, fresh, in_child, make_inputs
from tests.campaign.outcome import TOKEN, Outcome, Place
from tests.children import FORKS
from tests.cli.bad_inputs import BAD, QUICK, command_line
from tests.cli.bad_inputs import Place as Shop

PATIENCE = 120.0  # seconds until a process counts as hanging
_SENTENCE = re.compile(r"transfer-(eval|zoo): \S.*")

# As they are typed; {secret} is an address that nobody may be led to, {file} a text file, {pipe} a
# pipe, {link} a link to a device.
LINES = """
eval
eval runn
eval list taskss
eval list tasks --data {file}
eval plan random:resnet18 --task digits --limit 0
eval plan random:resnet18 --suite none
eval leaderboard --results nowhere
eval leaderboard --results {file}
eval leaderboard --results {pipe}
eval leaderboard --results hub:nobody
eval leaderboard --results hub:{secret}
eval leaderboard --results hub:../../etc
eval leaderboard --results hub:lab/none
eval curves --results nowhere
eval reliability --results nowhere
eval compare a b --results nowhere
eval ties nowhere.csv
eval ties {file}
eval ties {pipe}
eval ties {link}
eval verify nowhere.json
eval verify {file}
eval verify {pipe}
eval verify {link}
eval export out --results nowhere
eval export out --results {file}
eval cka random:resnet18 random:resnet18 --task none
eval cka random:resnet18 random:resnet18 --task digits --kernel sorcery
eval analyze sorcery random:resnet18
eval analyze geometry random:resnet18 --task digits --set none=1
eval recommend random:resnet18 --task none
eval recommend random:resnet18 --task digits --by sorcery
eval report nowhere
eval report {file}
eval report hub:{secret}
eval detect nowhere {file}
eval detect {pipe} {file}
eval prepare sorcery --out out
eval prepare eurosat --out out
eval prepare eurosat --source nowhere --out out
eval prepare eurosat --source {file} --out out
eval prepare eurosat --source . --out {file}
eval prepare eurosat --out out --processes 0
eval check-task nowhere.toml
eval check-task {pipe}
eval check-task csv:{pipe}?image=a&label=b
eval check-task csv:{secret}/x.csv?image=a&label=b
eval check-task csv:{file}?image=a&label=b
eval check-task csv:urls.csv?image=a&label=b
eval check-task parquet:{secret}
eval check-task imagefolder:{secret}
eval check-task coco:{secret}
eval check-task hub:{secret}/x?image=a&label=b
eval check-task hub:org/../../x?image=a&label=b
eval check-task hub:org/name@../../x?image=a&label=b
eval run hf-hub:{secret}/name --task digits
eval run hf-hub:../../etc/passwd --task digits
eval run hf-hub:org/name@../../x --task digits
eval run local-dir:{pipe} --task digits
eval run local-dir:{secret} --task digits
eval run random:resnet18 --task digits --results {file}
eval run random:resnet18 --task digits --set knn.none=1
eval run random:resnet18 --task digits --set knn.ks=[0]
eval run random:resnet18 --task digits --protocol finetune --schedule sorcery
eval run --author {secret} --task digits
eval run --collection {secret} --task digits
eval push nowhere lab/results
eval push {file} lab/results
eval push . name
eval push . {secret}
eval merge lab/none 1
eval merge lab/none x
eval worker --queue {file} --once
eval worker --queue hub:{secret} --once
eval worker --queue hub:lab/none --once
eval cache rm --cache .
eval cache rm feed --cache .
zoo
zoo sorcery
zoo pretrain sorcery --objective ce --data . --out out
zoo pretrain tiny --objective sorcery --data . --out out
zoo pretrain tiny --objective ce --data nowhere --out out
zoo pretrain tiny --objective ce --data {pipe} --out out
zoo pretrain tiny --objective ce --data hub:{secret} --out out
zoo pretrain tiny --objective ce --data . --out out --limit 1
zoo pretrain tiny --objective ce --data . --out out --set train.epochs=0
zoo pretrain {pipe} --objective ce --data . --out out
zoo convert nowhere --source moco --out out
zoo convert {file} --source moco --out out
zoo convert {pipe} --source moco --out out
zoo card nowhere
zoo card {file}
zoo card . --repo {secret}
zoo publish nowhere lab/net
zoo publish . name
zoo publish . {secret}
zoo publish --all lab .
zoo study run --plan sorcery --out out
zoo study run --plan budget-projector --out out --data nowhere
zoo study status --plan {pipe} --out out
zoo study collect --plan budget-projector --out nowhere
""".strip().splitlines()


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """All of them, or a sample of so many."""
    outcome, inputs = Outcome(), make_inputs(place)
    # names that steer a terminal are bad inputs too
    lines = [*LINES, *(f"eval {verb} \x1b[2Ja\u202eb" for verb in ("list", "verify", "report"))]
    cases: list[str] = [*lines, *(f"BAD {name}" for name in BAD)]
    if least < 100:
        cases = random.Random(seed).sample(cases, least)
    shop = _shop(place, inputs)
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.setblocking(False)
        address = f"http://127.0.0.1:{secret.getsockname()[1]}"
        for number, case in enumerate(cases):
            folder = place.folder / "bad" / str(number)
            folder.mkdir(parents=True)
            if case.startswith("BAD "):
                argv = _made(case.removeprefix("BAD "), folder, inputs, shop, place)
                program = "eval"
            else:
                program, *argv = _typed(case, folder, address)
            token = None if case.startswith("BAD ") else TOKEN  # which may read private models
            why = _answer(program, argv, folder, place, token)
            try:
                secret.accept()
                why = f"{why}; it was led to a foreign address"
            except BlockingIOError:
                pass
            outcome.note(case, why)
    return outcome


def _shop(place: Place, inputs: Path) -> Path:
    """Good results, among which some bad input puts a bad one."""
    make = Command(
        "good results", "eval",
        lambda i, f: [
            "run", "random:test_resnet", "--task", "dtd", "--data", str(i / "data"), "--protocol",
            "knn", *QUICK, "--cache", str(f / "cache"), "--results", str(f / "results"),
        ],
        lambda place, folder: {},
    )  # fmt: skip
    folder = fresh(make, place.folder / "shop", place)
    process = begin(make, inputs, folder, place)
    process.join(PATIENCE)
    if process.exitcode != 0:
        raise RuntimeError((folder / "log").read_text())
    return folder / "results"


def _made(name: str, folder: Path, inputs: Path, shop: Path, place: Place) -> list[str]:
    make: Callable[[Shop], object] = BAD[name][0]
    model = folder / "good"
    model.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(inputs / "checkpoint" / "resnet_tiny.ce_made" / file, model)
    at = Shop(folder, inputs / "data", model, place.hub, folder / "results", shop)
    return command_line(make(at), at, folder / "cache")  # type: ignore[arg-type]


def _typed(line: str, folder: Path, secret: str) -> list[str]:
    (folder / "file").write_text("just a text, {")
    (folder / "urls.csv").write_text(f"a,b\n{secret}/x.png,one\n{secret}/y.png,two\n")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    words = {"secret": secret, **{n: str(folder / n) for n in ("file", "pipe", "link")}}
    return [word.format_map(words) for word in line.split(" ")]


def _answer(program: str, argv: list[str], folder: Path, place: Place, token: str | None) -> str:
    """'' or what is wrong with how the command ended."""
    settings = place.hub.settings(folder / "home", token) | {
        "TRANSFERZOO_CACHE": str(folder / "cache"),
        "HF_HUB_CACHE": str(folder / "home" / "hub"),
    }
    process = FORKS.Process(
        target=_at, args=(str(folder), program, argv, str(folder / "log"), settings)
    )
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        return "hangs"
    said = (folder / "log").read_text(errors="replace")
    lines = [line for line in said.splitlines() if not line.startswith("[")]  # of progress
    if process.exitcode != 2:
        return f"exit code {process.exitcode}: {said[-300:]}"
    if len(lines) != 1 or not _SENTENCE.fullmatch(lines[0]):
        return f"not one sentence: {said[-300:]}"
    if any(unicodedata.category(c) in ("Cc", "Cf") for c in lines[0]):
        return "steers the terminal"
    return "prints the token" if TOKEN in said else ""


def _at(folder: str, program: str, argv: list[str], log: str, settings: dict[str, str]) -> None:
    os.chdir(folder)
    in_child(program, argv, log, settings)
