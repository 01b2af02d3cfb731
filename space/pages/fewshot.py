"""Page 4: which model suits a visitor's own pictures, and what it says of others."""

from __future__ import annotations

import base64
import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from eval.common.errors import UserError
from eval.common.text import escaped
from eval.models.names import zoo_names
from eval.results.facts import facts_named
from space.demo.asked import Asked
from space.demo.backbones import Shelf
from space.demo.bounds import MODELS, QUERIES, SHOTS, WAYS
from space.demo.choice import choose
from space.demo.examples import TITLES, example_sets
from space.demo.kept import Kept
from space.demo.uploads import MAX_NAME, Picture, clean_text, read_pictures
from space.labels import facts_label, shown_objective
from space.pages.answer import predictions, ranks

_OPENING = """## Which model for my pictures?
Give a few pictures of each class. Every model is then asked for each of them by a classifier that
has not seen it (leave-one-out), and the best is used on the pictures to recognise. Your pictures
stay in this session. No pictures at hand? Take an example set."""


class FewShot:
    """The page's components, and the functions behind its events."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        names = [f"zoo:{name}" for name in zoo_names()]
        gr.Markdown(_OPENING)
        with gr.Row():
            titles = [(title, name) for name, title in TITLES.items()]
            self.example = gr.Dropdown(
                titles, label="Example set (optional)", value=None, scale=1, elem_id="example"
            )
            self.ways = gr.Slider(*WAYS, value=2, step=1, label="Classes", scale=1)
            self.models = gr.Dropdown(
                [(facts_label(n), n) for n in names], value=names, multiselect=True,
                max_choices=MODELS[1], allow_custom_value=True, scale=3,
                label="Models (all that ship here; add up to three others as hf-hub:org/name)",
            )  # fmt: skip
        self.names, self.supports, self.columns = [], [], []
        with gr.Row(elem_id="classes"):
            for i in range(WAYS[1]):
                with gr.Column(min_width=240, visible=i < 2) as column:
                    self.names.append(gr.Textbox(f"class {i + 1}", label=f"Name of class {i + 1}"))
                    self.supports.append(_gallery(f"Pictures {i + 1}", columns=4))
                self.columns.append(column)
        self.queries = _gallery("Pictures to recognise (may be empty)", columns=8,
                                elem_id="queries")  # fmt: skip
        self.button = gr.Button("Rank the models", variant="primary", elem_id="classify")
        with gr.Column(elem_id="answer"):
            self.stale = gr.Markdown(visible=False, elem_id="stale")
            self.said = gr.Markdown(elem_id="said")
            self.ranks = gr.HTML(elem_id="ranks")
            self.notes = gr.Markdown()
            with gr.Row(visible=False) as self.taking:
                self.chosen = gr.Dropdown([], label="Predictions of", scale=2, elem_id="chosen")
                self.take = gr.Button(
                    "Download this classifier", elem_id="take", elem_classes="beside"
                )
            self.answers = gr.HTML(elem_id="answers")
            self.code = gr.Code(
                language="python", visible=False, interactive=False,
                label="Use it: unpack the download, and in its folder",
            )  # fmt: skip
        self.file = gr.Textbox(visible="hidden", elem_id="head-file")
        self.kept: gr.State = gr.State(None)

    @property
    def inputs(self) -> list[Any]:
        """What an answer is made of."""
        return [self.models, self.ways, *self.names, *self.supports, self.queries]

    def wire(self) -> None:
        """Connect the events."""
        private: dict[str, Any] = {"api_visibility": "private"}
        self.ways.change(self.resize, self.ways, self.columns, show_progress="hidden", **private)
        self.example.change(
            self.load, self.example,
            [self.ways, *self.columns, *self.names, *self.supports, self.queries], **private,
        )  # fmt: skip
        self.button.click(
            self.ask, self.inputs,
            [self.stale, self.said, self.ranks, self.notes, self.taking, self.chosen, self.answers,
             self.code, self.kept],
            concurrency_limit=2, concurrency_id="fewshot", **private,
        )  # fmt: skip
        gr.on(
            [component.change for component in self.inputs], self.check, [self.kept, *self.inputs],
            self.stale, show_progress="hidden", trigger_mode="always_last", **private,
        )  # fmt: skip
        self.chosen.input(self.look, [self.kept, self.chosen], self.answers,
                          show_progress="hidden", **private)  # fmt: skip
        made = self.take.click(self.save, [self.kept, self.chosen], self.file, **private)
        made.then(None, self.file, None,
                  js="t => transferzoo.saveBytes('classifier.zip', t, 'application/zip')",
                  **private)  # fmt: skip

    # ------------------------------------------------------------------ behind the events

    def resize(self, ways: int) -> list[Any]:
        """As many classes as asked for."""
        return [gr.update(visible=i < ways) for i in range(WAYS[1])]

    def load(self, name: str | None) -> list[Any]:
        """The pictures of an example set."""
        if name not in TITLES:
            return [gr.skip()] * (2 + 3 * WAYS[1])
        each = example_sets()[name]
        ways = len(each.supports)
        padded = [*each.supports, *[(f"class {i + 1}", ()) for i in range(ways, WAYS[1])]]
        return [
            ways, *self.resize(ways), *(label for label, _ in padded),
            *([(p.image, p.name) for p in shots] for _, shots in padded),
            [(p.image, p.name) for p in each.queries],
        ]  # fmt: skip

    def ask(self, models: Sequence[str], ways: float, *rest: Any) -> list[Any]:
        """Rank the models on the pictures of each class, and predict the others by the best."""
        from space.demo.classify import classify
        from space.demo.head_file import USAGE

        names, shots, queries = rest[: WAYS[1]], rest[WAYS[1] : 2 * WAYS[1]], rest[-1]
        ways = _ways(ways)
        hidden = gr.update(visible=False)
        try:
            supports = [
                (str(name or ""), read_gallery(gallery, f"class {i + 1}", SHOTS[1]))
                for i, (name, gallery) in enumerate(zip(names, shots, strict=True))
                if i < ways
            ]
            pictures = read_gallery(queries, "the pictures to recognise", QUERIES[1])
            answer = classify(self.shelf, list(models or ()), supports, pictures)
        except UserError as why:
            return [hidden, f"**{escaped(str(why))}**", "", "", hidden, hidden, "", hidden, None]
        asked = Asked.of(models, ways, names, shots, queries)
        called = model_names([m.model for m in answer.models])
        choice = choose(answer.models, supports, called)
        kept = Kept.of(asked, answer, choice, called, supports, pictures)
        order = [(kept.names[row.model], row.model) for row in choice.rows]
        return [
            hidden, escaped(choice.sentence), ranks(kept),
            "\n".join(f"- {escaped(note)}" for note in kept.notes),
            gr.update(visible=True),
            gr.update(choices=order, value=choice.taken, visible=True),
            predictions(kept, choice.taken), gr.update(value="\n".join(USAGE), visible=True), kept,
        ]  # fmt: skip

    def check(self, kept: Kept | None, models: Any, ways: float, *rest: Any) -> Any:
        """Whether the answer is still one to what the page holds; if not, what has changed."""
        if kept is None:
            return gr.update(visible=False)
        names, shots, queries = rest[: WAYS[1]], rest[WAYS[1] : 2 * WAYS[1]], rest[-1]
        changed = kept.asked.changed(Asked.of(models, _ways(ways), names, shots, queries))
        said = f"**Out of date.** Changed since: {escaped(changed)}. Rank the models again."
        return gr.update(value=said, visible=bool(changed))

    def look(self, kept: Kept | None, model: str) -> Any:
        """Another model's predictions."""
        return gr.skip() if kept is None else predictions(kept, model)

    def save(self, kept: Kept | None, model: str) -> str:
        """A zip, in base64, with the head's weights, what it needs, and the lines that use it.

        The browser makes the file: none stays here."""
        if kept is None:
            return ""
        from space.demo.head_file import save_head

        model = model if model in kept.heads else kept.choice.taken
        buffer = io.BytesIO()
        with tempfile.TemporaryDirectory(prefix="transferzoo-head-") as place:
            paths = save_head(kept.heads[model], self.shelf.get(model), Path(place))
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in paths:
                    archive.write(path, path.name)
        return base64.b64encode(buffer.getvalue()).decode()


def model_names(models: Sequence[str]) -> list[str]:
    """The objectives where they tell the models apart, else the models with what is known."""
    objectives = [facts_named(model).objective for model in models]
    told = all(objectives) and len(set(objectives)) == len(objectives) > 1
    if told and "untrained" not in objectives:
        return [shown_objective(name) for name in objectives]
    return [facts_label(model) for model in models]


def _ways(ways: Any) -> int:
    """The number of classes, within its bounds."""
    return max(WAYS[0], min(int(ways or 0), WAYS[1]))


def _gallery(label: str, **options: Any) -> gr.Gallery:
    return gr.Gallery(
        label=label, interactive=True, type="filepath", format="png", height=190,
        sources=["upload", "webcam", "clipboard"], file_types=["image"], object_fit="contain",
        elem_classes="pictures", **options,
    )  # fmt: skip


def read_gallery(gallery: Any, subject: str, most: int) -> list[Picture]:
    """The gallery's files; captions, where there are any, are better names than the server's.

    Raises UserError for what is no picture among the uploaded files."""
    items = [item if isinstance(item, tuple | list) else (item, None) for item in gallery or ()]
    found = read_pictures(
        [path for path, _ in items],
        subject=subject,
        most=most,
        allowed_root=Path(get_upload_folder()),
    )
    captions = [clean_text(str(caption or ""), MAX_NAME) for _, caption in items]
    return [replace(p, name=name or p.name) for p, name in zip(found, captions, strict=True)]
