"""Models of strangers: configs that ask for what no network is, safetensors files that are none.

Each lies in a repository on the Hub and goes the way of a queued model: by its metadata first, then
its weights are downloaded, compared and loaded. One sentence must come of it, and no memory.
"""

from __future__ import annotations

import json
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from tests.campaign.outcome import Outcome, Place
from tests.children import FORKS
from tests.models.checkpoints import Files, checkpoint
from tests.models.hostile_configs import HOSTILE

PATIENCE = 120.0  # seconds until a process counts as hanging
ROOM = 300  # MB beyond what a good model of this size needs
SECONDS = 30.0  # of processor time, of which building the largest that is allowed takes a few

Header = dict[str, Any]
State = dict[str, torch.Tensor]


def _file(header: Header | str, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand; ``length`` is what it says of its header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> Header:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _parts(good: bytes) -> tuple[Header, bytes]:
    size = int.from_bytes(good[:8], "little")
    return json.loads(good[8 : 8 + size]), good[8 + size :]


def _with(change: Callable[[Header], object]) -> Callable[[bytes], bytes]:
    def made(good: bytes) -> bytes:
        header, data = _parts(good)
        change(header)
        return _file(header, data)

    return made


def _state(change: Callable[[State], object]) -> Callable[[bytes], bytes]:
    def made(good: bytes) -> bytes:
        state = load(good)
        return save(changed if isinstance(changed := change(state), dict) else state)

    return made


def _one(header: Header, **fields: Any) -> None:
    header["layer1.0.conv1.weight"] |= fields


def _twice(good: bytes) -> bytes:
    """Two entries of one name, over the data of two tensors."""
    header, data = _parts(good)
    one, two = [n for n in header if n != "__metadata__"][:2]
    return _file(json.dumps(header).replace(f'"{two}"', f'"{one}"', 1), data)


# name -> (the file from a good one, words of the sentence)
WEIGHTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "cannot be read"),
    "seven bytes": (lambda good: good[:7], "cannot be read"),
    "a pickle under the name": (lambda good: b"\x80\x04\x95" + bytes(100), "cannot be read"),
    "a header of 2**63 bytes": (lambda good: _file("{}", length=2**63), "list of tensors of"),
    "a header longer than the file": (lambda good: _file("{}", length=9_999_999), "cannot be read"),
    "a header of 40 MB": (lambda good: _file("{" + " " * 40_000_000 + "}"), "of 40,000,002"),
    "a header of 300,000 tensors": (
        lambda good: _file({f"x{i}": _tensor([0], 0, 0) for i in range(300_000)}),
        "list of tensors of",
    ),
    "a header of 120,000 tensors": (
        lambda good: _file({f"model.x{i}": _tensor([0], 0, 0) for i in range(120_000)}),
        "are missing",
    ),
    "a header nested 100,000 deep": (lambda good: _file('{"a":' * 100_000), "cannot be read"),
    "a header that is a list": (lambda good: _file("[]"), "cannot be read"),
    "one name twice": (_twice, ""),
    "offsets that overlap": (
        _with(lambda h: [v.update(data_offsets=[0, 4]) for k, v in h.items() if k[0] != "_"]),
        "cannot be read",
    ),
    "offsets beyond the file": (
        _with(lambda h: _one(h, data_offsets=[0, 2**40], shape=[2**38])), "cannot be read",
    ),
    "offsets backwards": (_with(lambda h: _one(h, data_offsets=[8, 4])), "cannot be read"),
    "negative offsets": (_with(lambda h: _one(h, data_offsets=[-8, 4])), "cannot be read"),
    "bytes that belong to no tensor": (lambda good: good + bytes(1000), "cannot be read"),
    "cut off": (lambda good: good[:-1000], "cannot be read"),
    "a huge declared shape": (_with(lambda h: _one(h, shape=[2**40])), "cannot be read"),
    "a shape that overflows": (_with(lambda h: _one(h, shape=[2**32, 2**32])), "cannot be read"),
    "a shape of 10,000 sides": (_with(lambda h: _one(h, shape=[1] * 10_000)), ""),
    "a negative shape": (_with(lambda h: _one(h, shape=[-1])), "cannot be read"),
    "an unknown dtype": (_with(lambda h: _one(h, dtype="F33")), "cannot be read"),
    "a dtype of another width": (_with(lambda h: _one(h, dtype="F64")), "cannot be read"),
    "integers": (
        _state(lambda s: {k: v.to(torch.int8) for k, v in s.items()}), "no floating-point type",
    ),
    "integers that are declared": (_with(lambda h: _one(h, dtype="I32")), "no floating-point"),
    "no tensor": (lambda good: save({}), "are missing"),
    "one tensor called padding": (lambda good: save({"padding": torch.zeros(1000)}), "are missing"),
    "one tensor missing": (_state(lambda s: s.pop("layer1.0.conv1.weight")), "1 of its"),
    "two layers alone": (
        _state(lambda s: {k: v for k, v in s.items() if k.startswith("layer1.0")}), "are missing",
    ),
    "every name under another's prefix": (
        _state(lambda s: {f"student.{k}": v for k, v in s.items()}), "are missing",
    ),
    "two networks": (
        _state(lambda s: {p + k: v.clone() for k, v in s.items() for p in ("model.", "encoder.")}),
        "keep one of them",
    ),
    "another shape": (_state(lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(9, 9)})),
                      "has the shape (9, 9)"),
    "NaN": (_state(lambda s: s["layer1.0.conv1.weight"].fill_(np.nan)), "NaN or infinite"),
    "infinite": (_state(lambda s: s["layer1.0.conv1.weight"].fill_(np.inf)), "NaN or infinite"),
    "further blocks": (
        _state(lambda s: s.update({"layer1.7.conv1.weight": torch.zeros(3)})), "larger or another",
    ),
    "a name that steers the terminal": (
        _state(lambda s: s.update({"layer1.\x1b[2J\u202e": torch.zeros(3)})), "larger or another",
    ),
}  # fmt: skip


def _index(weight_map: Any) -> Files:
    return {"model.safetensors": None, "model.safetensors.index.json": json.dumps(weight_map)}


# name -> (files beside or in the place of the good ones, words of the sentence)
FOLDERS: dict[str, tuple[Files, str]] = {
    "an index that leads out": (_index({"weight_map": {"a": "../../../etc/passwd"}}),
                                "does not name safetensors files beside it"),
    "an index of 5,000 files": (
        _index({"weight_map": {str(i): f"m{i}.safetensors" for i in range(5000)}}),
        "does not name safetensors files beside it"),
    "an index of files that are not there": (_index({"weight_map": {"a": "b.safetensors"}}),
                                             "lacks 'b.safetensors'"),
    "an index that is a list": (_index([1, 2]), "has no 'weight_map'"),
    "pickles alone": ({"model.safetensors": None, "pytorch_model.bin": b"\x80\x04."},
                      "offers only pickled weights"),
    "no config": ({"config.json": None}, "has no config.json"),
    "a config that is no JSON": ({"config.json": "{"}, "is not valid JSON"),
    "a config nested 100,000 deep": ({"config.json": "[" * 100_000}, "is not valid JSON"),
    "a config of 3 MB": ({"config.json": json.dumps({"architecture": "x" * 3_000_000})},
                         "is larger than 1,000,000 bytes"),
    "a config that names a class of its own": (
        {"config.json": json.dumps({"auto_map": {"AutoModel": "evil.Net"}}), "evil.py": "boom"},
        "has no 'architecture' name"),
}  # fmt: skip


def campaign(place: Place, seed: int, least: int) -> Outcome:
    """All of them, or a sample of so many; a good model first, which must load."""
    outcome = Outcome()
    nets = {name: checkpoint(place.folder / name, name) for name in ("test_vit", "test_resnet")}
    content = {
        name: {p.name: p.read_bytes() for p in folder.iterdir()} for name, folder in nets.items()
    }
    good, vit = content["test_resnet"], content["test_vit"]
    cases: dict[str, tuple[Files, str]] = {}
    for number, (architecture, args, inner, says) in enumerate(HOSTILE):
        config = json.loads(vit["config.json"])
        config |= {
            "architecture": architecture, "model_args": args,
            "pretrained_cfg": config["pretrained_cfg"] | inner,
        }  # fmt: skip
        if "num_classes" in inner:
            del config["num_classes"]
        cases[f"config {number}"] = {**vit, "config.json": json.dumps(config)}, says
    for name, (make, says) in WEIGHTS.items():
        weights = make(good["model.safetensors"])
        cases[f"weights: {name}"] = {**good, "model.safetensors": weights}, says
    for name, (files, says) in FOLDERS.items():
        cases[name] = {**good, **files}, says
    names = list(cases)
    if least < len(names) and least < 20:
        names = random.Random(seed).sample(names, least)
    place.hub.add_model("org/good", good)
    usual = _tried("org/good", place)
    if usual is None or usual[0]:
        outcome.note("a good model", f"is refused: {usual}")
        return outcome
    for number, name in enumerate(names):
        files, says = cases[name]
        place.hub.add_model(f"eve/net{number}", files)
        outcome.note(name, _wrong(_tried(f"eve/net{number}", place), says, usual[1]))
    return outcome


def _wrong(found: tuple[str, float, float] | None, says: str, usual: float) -> str:
    """'' or what is wrong with what came of a hostile model."""
    if found is None:
        return "the process died or hangs"
    said, megabytes, seconds = found
    if not said:
        return "is loaded"
    if not said.isprintable() or len(said) > 600 or "Traceback" in said:
        return f"not one printable sentence: {said[:300]!r}"
    if says not in said:
        return f"does not say {says!r}: {said}"
    if megabytes > usual + ROOM:
        return f"takes {megabytes:.0f} MB where a good one takes {usual:.0f}: {said}"
    return f"takes {seconds:.0f} s: {said}" if seconds > SECONDS else ""


def _tried(repo: str, place: Place) -> tuple[str, float, float] | None:
    """(the sentence or '', MB at most, seconds of processor time), None where it died."""
    ours, theirs = FORKS.Pipe(duplex=False)
    home = place.folder / "home"
    process = FORKS.Process(target=_try, args=(repo, str(home / "cache"), theirs))
    process.start()
    theirs.close()
    found = None
    try:
        if ours.poll(PATIENCE):
            found = ours.recv()
    except EOFError:
        pass
    process.kill()
    process.join()
    return found


def _try(repo: str, cache: str, answer: Any) -> None:
    """In a child: as the worker does it."""
    from eval.common.errors import UserError
    from eval.models.backbone import load as load_backbone
    from eval.models.resolve import resolve
    from eval.queue.candidate import check

    said = ""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    try:
        found = check(repo, Path(cache))
        load_backbone(resolve(found.spec, Path(cache)))
    except UserError as error:
        said = str(error)
    except Exception as error:  # Python's own words are no sentence
        said = f"Traceback: {error!r}"
    used = resource.getrusage(resource.RUSAGE_SELF)
    answer.send((said, used.ru_maxrss / 1024, used.ru_utime - before))
