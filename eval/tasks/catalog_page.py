"""The page about the declared data sets, made of their declarations.

``python -m eval.tasks.catalog_page`` writes it to ``eval/catalog/README.md``.
"""

from __future__ import annotations

from collections.abc import Iterator

from eval.common.files import atomic_file
from eval.common.text import text_table
from eval.tasks.declaration import CATALOG, SplitRule, Task
from eval.tasks.registry import SUITES, TASKS, TRANSFER12

PAGE = CATALOG / "README.md"
RULES = {
    "official": "the authors' parts",
    "per-class": "70 % of each class, by the study's rule",
    "groups": "whole groups, about 70 % of each class",
}
SHARE = {"yes": "yes", "private": "to a private repository", "no": "no"}

_INTRO = """# The data sets

Made of the declarations beside this page by `python -m eval.tasks.catalog_page`; a test keeps them
equal.

`transfer-eval run MODEL --suite transfer12 --data DIR` scores the twelve downstream sets of the
study that are under DIR, names those that are not with what to do, and leaves them out. How they
come there:

```bash
transfer-eval prepare eurosat --source downloads --out DATA   # the official files -> DATA/eurosat
transfer-eval run MODEL --task eurosat --data DATA            # or TRANSFERZOO_DATA=DATA
transfer-eval prepare eurosat --out DATA --push-to ORG/eurosat
transfer-eval run MODEL --task eurosat --data hub:ORG         # the same split hash
transfer-eval run MODEL --task eurosat                        # a known copy on the Hub
transfer-eval run MODEL --suite detection --data DATA         # sets with boxes
```

**Splits.** `TASK@study` is the split of the study: the authors' parts where there are some, else
70 % of each class, shuffled by one `RandomState(0)` that runs through the classes in the order in
which they first appear. Where images belong together (photographs of one lesion, of one patient)
that rule puts them on both sides, and a model is tested on what it has seen: there `TASK@clean`
keeps groups whole, and is the default. Who is in train and who in test is frozen in
`manifest.json` beside the data, and for sets with numbered files in the declaration itself; data
that differ are refused, with what differs.

**Smaller copies** that are known by their hash run under the same name, with a split of their
own; their results are marked as on a subset (`*` on a board) and share no column with the whole
set.

**Boxes.** Other people's copies of a detection set are not used, as the form of their boxes is not
checked. A box is cut to its image and left out where nothing of it is left, where it has no area,
or where a side is shorter than a pixel; each result counts them.

**A label a pixel.** Masks are scored at their own size by `--protocol segment segment-knn`; 255 is
void.
"""


def page() -> str:
    """The whole page in Markdown."""
    real = [task for task in TASKS.values() if not task.embedded]
    study = [TASKS[name] for name in TRANSFER12]
    boxes = [TASKS[name] for name in SUITES["detection"]]
    masks = [task for task in real if task.kind == "segmentation"]
    others = [task for task in real if task not in (*study, *boxes, *masks)]
    parts = [_INTRO]
    for title, tasks in (
        ("Suite transfer12", study), ("Suite detection", boxes), ("A label a pixel", masks),
        ("Others", others),
    ):  # fmt: skip
        parts += [f"## {title}\n", _table(tasks), ""]
    parts += [_section(task) for task in (*study, *boxes, *masks, *others)]
    return "\n".join(parts)


def _table(tasks: list[Task]) -> str:
    header = ["task", "domain", "classes", "images", "train", "test", "licence", "may be uploaded"]
    lines = [
        [
            f"[{task.name}](#{task.name})", task.domain, f"{task.classes:,}", f"{task.images:,}",
            f"{task.train:,}" if task.train else "-", f"{task.test:,}" if task.test else "-",
            task.licence, SHARE[task.share],
        ]
        for task in tasks
    ]  # fmt: skip
    return text_table(header, lines, markdown=True)


def _section(task: Task) -> str:
    return "\n".join([f"## {task.name}\n", *_facts(task), ""])


def _facts(task: Task) -> Iterator[str]:
    yield f"**{task.title}**, {task.classes:,} classes, {task.images:,} images. {task.note}\n"
    if task.stand_in_for:
        yield f"- Stands in for [{task.stand_in_for}](#{task.stand_in_for}); it is not that set."
    yield f"- Get it: {task.download}."
    for split in task.splits:
        yield f"- `{task.name}@{split.name}`{_default(task, split)}: {_split(split)}"
    if copy := task.hub:
        how = "" if copy.name or copy.train else "; it names no files, so its order decides"
        yield (
            f"- On the Hub: [{copy.repo}](https://huggingface.co/datasets/{copy.repo}) at "
            f"`{copy.revision[:7]}`, confidence {copy.confidence}{how}."
        )
    elif task.on_hub:
        yield f"- On the Hub, for reference alone: {task.on_hub}."
    if known := task.subset:
        yield (
            f"- Known smaller copy: {known.classes} classes, {known.train:,} train and "
            f"{known.test:,} test images; {known.note}."
        )
    why = f": {task.share_why}" if task.share_why else ""
    yield f"- Licence: {task.licence}. A copy may be uploaded: {SHARE[task.share]}{why}."
    yield f"- Cite: {task.citation}. Home: <{task.home}>."


def _default(task: Task, split: SplitRule) -> str:
    return " (default)" if len(task.splits) > 1 and split is task.splits[0] else ""


def _split(split: SplitRule) -> str:
    counts = f"{split.train:,} train, {split.test:,} test; " if split.train else ""
    why = f"; {split.why}" if split.why else ""
    frozen = " Frozen by the official names." if split.members else ""
    return f"{counts}{RULES[split.rule]}{why}.{frozen}"


def main() -> None:
    with atomic_file(PAGE) as file:
        file.write(page().encode())


if __name__ == "__main__":
    main()
