"""Who computed a result again: small JSON files beside the results, one each.

A sign-off is of a result's content, not of its file: one that says other numbers tomorrow is
self-reported again. Only `transfer-eval verify --sign-off` and the board's worker write them, and a
pull request may not bring its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from eval.common.files import dump_json, write_json
from eval.results.names import earlier, number_format
from eval.results.schema import Result

FOLDER = ".verified"  # of a results directory; no model's folder begins with a dot
VERIFIED, SELF_REPORTED = "verified", "self-reported"


class SignOff(BaseModel):
    """The file's content: ``result`` is the path of the result, ``content`` its `content_of`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signoff_version: Literal[1]
    result: str
    content: str
    verdict: Literal["equal", "within tolerance"]
    by: str = Field(max_length=100)
    when: datetime
    tool: str = Field(max_length=100)

    @field_validator("by", "tool")
    @classmethod
    def _a_name(cls, text: str) -> str:
        """No line breaks, no control characters, no marks that turn the text around."""
        if not text.isprintable() or text.strip() != text or not text:
            raise ValueError("not printable")
        return text

    @property
    def text(self) -> str:
        """``ada, 2026-11-29``."""
        return f"{self.by}, {self.when:%Y-%m-%d}"


SignOffs = Mapping[str, SignOff]  # by `content_of` the result


def content_of(result: Result) -> str:
    """A digest of what a verification is about: the question, the network's size, the scores and
    their samples.

    Where the data lay, on what machine and when it was computed is no part of it.
    """
    facts = {
        "model": [result.model.id, result.model.revision, result.model.weights_sha256],
        "img_size": result.model.img_size,
        "params": result.model.params,
        "task": [result.task.name, result.task.split_hash],
        "protocol": [result.protocol.name, result.protocol.config | earlier(result.protocol)],
        "asked": [result.seed, result.limit, number_format(result)],
        "scores": [score.model_dump(mode="json") for score in result.scores],
        "samples": {k: v.model_dump(mode="json") for k, v in result.samples.items()},
        "confidence": result.confidence,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def signed(
    result: Result, path: str, verdict: Literal["equal", "within tolerance"], by: str
) -> SignOff:
    """The sign-off of a result that was just computed again; ``path`` is below its directory."""
    try:
        tool = f"transferzoo {version('transferzoo')}"
    except PackageNotFoundError:  # run from a checkout that was not installed
        tool = "transferzoo"
    return SignOff(
        signoff_version=1, result=path, content=content_of(result), verdict=verdict, by=by,
        when=datetime.now(UTC).replace(microsecond=0), tool=tool,
    )  # fmt: skip


def write_sign_off(root: Path, sign_off: SignOff) -> Path:
    """Write it below a results directory; the path of its file."""
    path = root / file_of(sign_off.result)
    write_json(path, sign_off.model_dump(mode="json"))
    return path


def file_of(result: str) -> str:
    """Where the sign-off of the result at this path lies, below the same directory."""
    return f"{FOLDER}/{result}"


def as_bytes(sign_off: SignOff) -> bytes:
    return dump_json(sign_off.model_dump(mode="json"))


def parse(data: bytes) -> SignOff | None:
    """None for what is no sign-off."""
    try:
        return SignOff.model_validate(json.loads(data))
    except (ValueError, RecursionError, ValidationError):
        return None


def sign_offs(root: Path) -> dict[str, SignOff]:
    """Those of a results directory, by the content that they are of; files that are none do not
    count."""
    found = {}
    for path in sorted((root / FOLDER).rglob("*.json")):
        if not path.is_file():  # a FIFO or a device would never end
            continue
        try:
            one = parse(path.read_bytes())
        except OSError:
            continue
        if one is not None:
            found[one.content] = one
    return found
