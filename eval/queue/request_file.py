"""The file of a request: what it holds, and what is refused in one that somebody else wrote."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from eval.common.errors import UserError, without_token
from eval.common.files import dump_json
from eval.common.text import slug
from eval.hub.commits import check_repo_id
from eval.queue import request
from eval.queue.candidate import clean
from eval.queue.request import State, Submission, Ticket

_MOST_BYTES = 64_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,96}--[0-9a-f]{40}")
_SPEC = re.compile(r"hf-hub:([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)@([0-9a-f]{40})")


def request_id(spec: str) -> str:
    """The name of a pinned model's file, without ``.json``; other models have other names."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"{clean(spec, 80)!r} is not an hf-hub:org/name@sha")
    try:
        repo = check_repo_id(match[1], "model")
    except UserError as error:
        raise ValueError(str(error)) from None
    return f"{slug(repo)}--{match[2]}"


def _in_utc(when: datetime) -> datetime:
    try:
        return when.astimezone(UTC)
    except OverflowError:
        raise ValueError("this is not a time") from None


def _text(limit: int) -> AfterValidator:
    return AfterValidator(lambda text: clean(text, limit))


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Asker(BaseModel):
    """Who asked for a model, and when."""

    model_config = ConfigDict(frozen=True)

    user: Annotated[str, _text(100)]
    asked: Time


class Record(Asker):
    """The content of a request's file. Which state it is in, its folder says."""

    id: str
    spec: str
    licence: Annotated[str, _text(80)] = ""
    params: Annotated[int, Field(ge=0, le=10**15)] | None = None
    since: Time
    note: Annotated[str, _text(400)] = ""
    claim: Annotated[str, Field(pattern="^[0-9a-f]{0,32}$")] = ""
    beat: Time | None = None
    deaths: Annotated[int, Field(ge=0, le=1000)] = 0  # workers that went silent over it
    earlier: Annotated[tuple[Asker, ...], Field(max_length=100)] = ()  # asked before it failed

    @model_validator(mode="after")
    def _named_by_its_content(self) -> Record:
        if self.id != request_id(self.spec):
            raise ValueError("its id is not that of its model")
        return self

    def moved(self, note: str = "", claim: str = "") -> Record:
        """The same request as it enters another state now."""
        update = {
            "since": request.now(),
            "note": clean(without_token(note), 400),
            "claim": claim,
            "beat": request.now() if claim else None,
        }
        return self.model_copy(update=update)

    def ticket(self, state: State) -> Ticket:
        asked = self.asked.isoformat()
        ask = Submission(self.id, self.spec, self.user, asked, self.licence, self.params)
        return Ticket(ask, state, self.note, self.since.isoformat(), self.claim)

    def dump(self) -> bytes:
        return dump_json(self.model_dump(mode="json"))


class Broken(ValueError):
    """The file is not a request; the text says why."""


def is_name(name: str) -> bool:
    """Whether a file in a queue's folder is named as a request; such a name leads nowhere else."""
    return name.endswith(".json") and _NAME.fullmatch(name.removesuffix(".json")) is not None


def parse(name: str, raw: bytes) -> Record:
    """The request in the file ``name``. Raises Broken in one line."""
    if not is_name(name):
        raise Broken("its name is not that of a request")
    if len(raw) > _MOST_BYTES:
        raise Broken(f"it has {len(raw):,} bytes, no request has more than {_MOST_BYTES:,}")
    try:
        record = Record.model_validate(json.loads(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "content"
        raise Broken(clean(f"{where}: {first['msg']}", 200)) from None
    except (ValueError, RecursionError, OverflowError):
        raise Broken("it is not valid JSON") from None
    if f"{record.id}.json" != name:
        raise Broken("its name is not that of its model")
    return record
