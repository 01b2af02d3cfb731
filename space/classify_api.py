"""``/classify``: the few-shot demo for scripts. Pictures by class in, full probabilities out.

from gradio_client import Client, handle_file
Client(URL).predict(
    classes={"ash": [handle_file("a.jpg")], "birch": [handle_file("b.jpg")]},
    queries=[handle_file("leaf.jpg")], api_name="/classify",
)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder

from eval.common.errors import BadInput, UserError
from eval.models.names import zoo_names
from space.answers import ClassifyAnswer, ClassifyModel, schema
from space.api import latest_output
from space.demo.backbones import Shelf
from space.demo.bounds import MODELS, QUERIES, SHOTS, WAYS
from space.demo.choice import Choice, Ranked, choose
from space.demo.uploads import MAX_NAME, Picture, clean_text, read_pictures

if TYPE_CHECKING:
    from space.demo.classify import Answer, ModelAnswer

_FORM = 'give each class as "name": [handle_file(path), ...]'


class ClassifyApi:
    """The endpoint; a user's mistake is a sentence under ``error``."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def register(self) -> None:
        """Make it an endpoint of the app that is being built, in one queue with the page."""
        gr.api(self.classify, api_name="classify", api_description=self.classify.__doc__,
               concurrency_limit=2, concurrency_id="fewshot")  # fmt: skip
        latest_output()._api_info = schema(ClassifyAnswer)

    def classify(
        self,
        classes: dict[str, list[dict[str, Any]]],
        queries: list[dict[str, Any]] | None = None,
        models: list[str] | None = None,
    ) -> ClassifyAnswer:
        """Which model suits these pictures, and what each says of others. ``classes`` are lists of
        uploaded pictures by class name, ``queries`` uploaded pictures to recognise, ``models``
        names (by default all that ship). Answers with the models in order, each with its
        leave-one-out score, interval, places and the probabilities of every class."""
        from space.demo.classify import classify

        try:
            supports, pictures, asked = _read(classes, queries, models)
            answer = classify(self.shelf, asked, supports, pictures)
        except UserError as why:
            return {"error": str(why), "sentence": "", "take": "", "classes": [], "models": [],
                    "notes": []}  # fmt: skip
        return said(answer, choose(answer.models, supports, [m.model for m in answer.models]))


def said(answer: Answer, choice: Choice) -> ClassifyAnswer:
    """An answer as plain data."""
    by_name = {m.model: m for m in answer.models}
    return {
        "error": "",
        "sentence": choice.sentence,
        "take": choice.taken,
        "classes": list(answer.classes),
        "models": [_model(row, by_name[row.model]) for row in choice.rows],
        "notes": list(answer.notes),
    }


def _model(row: Ranked, answer: ModelAnswer) -> ClassifyModel:
    return {
        "model": row.model, "params": row.params, "right": row.right, "pictures": row.n,
        "low": row.low, "high": row.high, "places": row.places, "group": row.group,
        "log_me": row.log_me, "temperature": answer.head.temperature, "seconds": answer.seconds,
        "predictions": [{"picture": q.name, "probabilities": dict(q.classes)}
                        for q in answer.queries],
    }  # fmt: skip


def _read(
    classes: Any, queries: Any, models: Any
) -> tuple[list[tuple[str, list[Picture]]], list[Picture], list[str]]:
    """What `classify` takes. Raises UserError for anything of another form."""
    if not isinstance(classes, dict) or not all(isinstance(x, list) for x in classes.values()):
        raise BadInput(f"classes are not lists of pictures by name; {_FORM}")
    if not isinstance(queries or [], list):
        raise BadInput("queries are no list of pictures; give [handle_file(path), ...]")
    names = [f"zoo:{name}" for name in zoo_names()] if models is None else models
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("models are no list of names; leave them out for all that ship")
    for number, bounds, what in ((len(classes), WAYS, "classes"), (len(names), MODELS, "models")):
        if number > bounds[1]:  # before any picture is read
            raise BadInput(f"{number} {what} are given, at most {bounds[1]} are taken")
    supports = [
        (name, _pictures(files, f"class {name[:MAX_NAME]!r}", SHOTS[1]))
        for name, files in classes.items()
    ]
    return supports, _pictures(queries or [], "the queries", QUERIES[1]), names


def _pictures(files: list[Any], subject: str, most: int) -> list[Picture]:
    for file in files:
        if not isinstance(file, dict) or not isinstance(file.get("path"), str):
            raise BadInput(f"{subject}: an entry is no uploaded picture; {_FORM}")
    found = read_pictures([file["path"] for file in files], subject=subject, most=most,
                          allowed_root=Path(get_upload_folder()))  # fmt: skip
    called = [clean_text(str(file.get("orig_name") or ""), MAX_NAME) for file in files]
    return [replace(p, name=name or p.name) for p, name in zip(found, called, strict=True)]
