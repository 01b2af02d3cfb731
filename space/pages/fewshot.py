"""Page 4: a visitor's own pictures, a few a class, against up to three backbones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from eval.common.errors import UserError
from eval.common.text import escaped
from eval.models.names import zoo_names
from space import downloads
from space.demo.backbones import Shelf
from space.demo.classifier import Head
from space.demo.classify import MODELS, QUERIES, SHOTS, WAYS, Answer, ModelAnswer, classify
from space.demo.examples import example_sets
from space.demo.head_file import save_head
from space.demo.uploads import MAX_NAME, Picture, clean_text, read_pictures
from space.labels import facts_label
from space.pages.leaderboard import fetch_file

_START = "resnet18_narrow.ce_tin100"


@dataclass(frozen=True)
class Kept:
    """What a session keeps of an answer: no backbone, so that the shelf alone decides on memory."""

    models: tuple[str, ...]
    heads: tuple[Head, ...]
    labels: tuple[tuple[dict[str, float], ...], ...]  # [models][queries] class -> probability
    near: tuple[tuple[tuple[tuple[str, int, float], ...], ...], ...]  # [models][queries][k]


class FewShot:
    """The page's components, and the functions behind its events."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        names = [f"zoo:{name}" for name in zoo_names()]
        start = [n for n in names if n == f"zoo:{_START}"] or names[:1]
        gr.Markdown(
            "Give a few pictures of each class, then pictures to recognise. Take an example set "
            "to see how it works; your pictures stay in this session."
        )
        with gr.Row():
            self.models = gr.Dropdown(
                [(facts_label(n), n) for n in names], value=start, multiselect=True,
                max_choices=MODELS[1], allow_custom_value=True, scale=3,
                label="Models (one to three; or type hf-hub:org/name)",
            )  # fmt: skip
            titles = [(each.title, name) for name, each in example_sets().items()]
            self.example = gr.Dropdown(titles, label="Example set", value=None, scale=1)
            self.ways = gr.Slider(*WAYS, value=2, step=1, label="Classes", scale=1)
        self.names, self.supports, self.columns = [], [], []
        with gr.Row(elem_id="classes"):
            for i in range(WAYS[1]):
                with gr.Column(min_width=240, visible=i < 2) as column:
                    self.names.append(gr.Textbox(f"class {i + 1}", label=f"Name of class {i + 1}"))
                    self.supports.append(_gallery(f"Pictures {i + 1}", columns=4))
                self.columns.append(column)
        self.queries = _gallery("Pictures to recognise", columns=8, elem_id="queries")
        self.button = gr.Button("Classify", variant="primary", elem_id="classify")
        self.said = gr.Markdown(elem_id="said")
        self.table = gr.Dataframe(
            interactive=False, visible=False, wrap=True, elem_id="answers", show_label=False
        )
        self.chosen = gr.Slider(1, 2, value=1, step=1, label="Look at picture", visible=False)
        self.panels, self.labels, self.nearest, self.heads = [], [], [], []
        with gr.Row():
            for _ in range(MODELS[1]):
                with gr.Column(min_width=260, visible=False) as panel:
                    self.labels.append(gr.Label(label="Probability", num_top_classes=5))
                    self.nearest.append(
                        gr.Gallery(
                            label="Nearest pictures",
                            columns=3,
                            height=170,
                            format="png",
                            object_fit="contain",
                            elem_classes="pictures",
                        )
                    )
                    self.heads.append(gr.Button("Download this classifier", size="sm"))
                self.panels.append(panel)
        self.files = [
            gr.DownloadButton(visible="hidden", elem_id=f"head-file-{i}") for i in range(MODELS[1])
        ]
        self.kept: gr.State = gr.State(None)

    def wire(self) -> None:
        """Connect the events."""
        self.ways.change(self.resize, self.ways, self.columns, show_progress="hidden",
                         api_visibility="private")  # fmt: skip
        self.example.input(
            self.load, self.example,
            [self.ways, *self.columns, *self.names, *self.supports, self.queries],
            api_visibility="private",
        )  # fmt: skip
        answer = [self.said, self.table, self.chosen, *self.panels, self.kept]
        look = [*self.labels, *self.nearest]
        self.button.click(
            self.classify, [self.models, self.ways, *self.names, *self.supports, self.queries],
            answer, concurrency_limit=2, concurrency_id="fewshot", api_name="classify",
            api_description="Models, number of classes, ten class names, ten galleries of support "
            "pictures, a gallery of queries; the first output says what each model is worth.",
        ).then(self.look, [self.kept, self.chosen, *self.supports], look,
               show_progress="hidden", api_visibility="private")  # fmt: skip
        self.chosen.change(self.look, [self.kept, self.chosen, *self.supports], look,
                           show_progress="hidden", api_visibility="private")  # fmt: skip
        for i, (button, file) in enumerate(zip(self.heads, self.files, strict=True)):
            made = button.click(self._saver(i), self.kept, file, api_visibility="private")
            made.then(None, None, None, js=fetch_file(str(file.elem_id)))

    # ------------------------------------------------------------------ behind the events

    def resize(self, ways: int) -> list[Any]:
        """As many classes as asked for."""
        return [gr.update(visible=i < ways) for i in range(WAYS[1])]

    def load(self, name: str) -> list[Any]:
        """The pictures of an example set."""
        each = example_sets()[name]
        ways = len(each.supports)
        padded = [*each.supports, *[(f"class {i + 1}", ()) for i in range(ways, WAYS[1])]]
        return [
            ways, *self.resize(ways), *(label for label, _ in padded),
            *([(p.image, p.name) for p in shots] for _, shots in padded),
            [(p.image, p.name) for p in each.queries],
        ]  # fmt: skip

    def classify(self, models: Sequence[str], ways: float, *rest: Any) -> list[Any]:
        """Fit a head a model on the pictures of each class, and predict the others."""
        names, shots, queries = rest[: WAYS[1]], rest[WAYS[1] : 2 * WAYS[1]], rest[-1]
        ways = max(WAYS[0], min(int(ways or 0), WAYS[1]))
        try:
            supports = [
                (str(name or ""), _read(gallery, f"class {i + 1}", SHOTS[1]))
                for i, (name, gallery) in enumerate(zip(names, shots, strict=True))
                if i < ways
            ]
            pictures = _read(queries, "the pictures to recognise", QUERIES[1])
            answer = classify(self.shelf, list(models or ()), supports, pictures)
        except UserError as why:
            hidden = gr.update(visible=False)
            return [f"**{escaped(str(why))}**", hidden, hidden, *[hidden] * MODELS[1], None]
        count = len(answer.models)
        return [
            summary(answer), gr.update(value=_table(answer), visible=True),
            gr.update(visible=len(pictures) > 1, maximum=max(len(pictures), 2), value=1),
            *(gr.update(visible=i < count) for i in range(MODELS[1])), _kept(answer),
        ]  # fmt: skip

    def look(self, kept: Kept | None, chosen: float, *shots: Any) -> list[Any]:
        """One query's probabilities and nearest support pictures, for each model."""
        if kept is None:
            return [gr.skip()] * (2 * MODELS[1])
        q = max(0, min(int(chosen) - 1, len(kept.labels[0]) - 1))
        labels, nearest = [], []
        for m in range(MODELS[1]):
            if m >= len(kept.models):
                labels.append(gr.skip())
                nearest.append(gr.skip())
                continue
            labels.append(gr.update(value=kept.labels[m][q], label=facts_label(kept.models[m])))
            classes = list(kept.heads[m].classes)
            nearest.append([
                (shots[classes.index(name)][i][0], f"{name} {similarity:.2f}")
                for name, i, similarity in kept.near[m][q]
            ])  # fmt: skip
        return [*labels, *nearest]

    def _saver(self, i: int) -> Any:
        def save(kept: Kept | None) -> str | None:
            """A zip with the head's weights, what it needs, and the three lines that use it."""
            if kept is None or i >= len(kept.models):
                return None
            place = downloads.folder()
            save_head(kept.heads[i], self.shelf.get(kept.models[i]), place / "head")
            return shutil.make_archive(str(place / "classifier"), "zip", place / "head")

        return save


def _gallery(label: str, **options: Any) -> gr.Gallery:
    return gr.Gallery(
        label=label, interactive=True, type="filepath", format="png", height=190,
        sources=["upload", "webcam", "clipboard"], file_types=["image"], object_fit="contain",
        elem_classes="pictures", **options,
    )  # fmt: skip


def _read(gallery: Any, subject: str, most: int) -> list[Picture]:
    """The gallery's files; captions, where there are any, are better names than the server's."""
    items = [item if isinstance(item, tuple | list) else (item, None) for item in gallery or ()]
    found = read_pictures(
        [path for path, _ in items],
        subject=subject,
        most=most,
        allowed_root=Path(get_upload_folder()),
    )
    captions = [clean_text(str(caption or ""), MAX_NAME) for _, caption in items]
    return [replace(p, name=name or p.name) for p, name in zip(found, captions, strict=True)]


def _kept(answer: Answer) -> Kept:
    return Kept(
        tuple(m.model for m in answer.models),
        tuple(m.head for m in answer.models),
        tuple(tuple(dict(q.classes) for q in m.queries) for m in answer.models),
        tuple(
            tuple(tuple((n.label, n.index, n.similarity) for n in q.neighbours) for q in m.queries)
            for m in answer.models
        ),
    )


def summary(answer: Answer) -> str:
    """How good each model is on the pictures it was given, and what looks odd."""
    lines = [f"- **{escaped(facts_label(m.model))}**: {_worth(m)}" for m in answer.models]
    return "\n".join([*lines, *(f"- {escaped(note)}" for note in answer.notes)])


def _worth(answer: ModelAnswer) -> str:
    took = f"answered in {answer.seconds:.2f} s"
    head = answer.head
    if head.loo_top1 is None or head.loo_interval is None:
        return f"{took}; with one picture in a class its accuracy cannot be estimated"
    low, high = head.loo_interval
    return (
        f"{took}; leave-one-out accuracy on your own pictures {100 * head.loo_top1:.0f} % "
        f"(95 % over other pictures of the kind: {100 * low:.0f} to {100 * high:.0f})"
    )


def _table(answer: Answer) -> dict[str, Any]:
    """One row a query, one column a model."""
    headers = ["picture", *(facts_label(m.model) for m in answer.models)]
    rows = []
    for i, query in enumerate(answer.models[0].queries):
        best = [m.queries[i].classes[0] for m in answer.models]
        rows.append([f"{i + 1}: {query.name}", *(f"{name} ({100 * p:.0f} %)" for name, p in best)])
    return {"headers": headers, "data": rows}
