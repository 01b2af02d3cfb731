"""What a card says in words and tables: each fact from a file of the checkpoint or a sibling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.common.errors import UserError
from eval.common.text import escaped, text_table
from eval.metrics.estimates import KINDS
from eval.metrics.scores import Score
from eval.models.objectives import PAIRS, TERMS
from eval.results.compare import compare
from eval.results.estimates import stated
from eval.results.leaderboard import score_text
from eval.results.schema import Result
from eval.tasks.registry import TASKS
from zoo.card.metadata import ARXIV, setting, tabled, training_data
from zoo.checkpoint import CURVE, Checkpoint

# (protocol, score, title, whether it is folded away): one table each
_BOARDS = (
    ("linear", "top1", "Linear evaluation on cached features", False),
    ("fewshot", "top1_5shot", "Few-shot, 5-way 5-shot", False),
    ("fewshot", "top1_1shot", "Few-shot, 5-way 1-shot", True),
    ("fewshot", "top1_20shot", "Few-shot, 5-way 20-shot", True),
    ("knn", "top1", "k nearest neighbours", True),
)
_COMPARED = (("linear", "top1"), ("fewshot", "top1_5shot"))


def facts(checkpoint: Checkpoint, family: Sequence[Checkpoint], repo: str) -> dict[str, Any]:
    """Everything the template prints."""
    data, objective = training_data(checkpoint), checkpoint.objective
    boards = [b for b in (_board(*which, checkpoint, family) for which in _BOARDS) if b]
    probed = f"{checkpoint.recipe.probe.k}-nearest-neighbour" if checkpoint.recipe else "kNN"
    knn = "".join(
        f"{probed} top-1 on the validation images while training (`log.jsonl`): {value:.1f} % "
        f"(epoch {epoch:g})."
        for epoch, value in checkpoint.knn[-1:]
    )
    return {
        "name": escaped(checkpoint.name),
        "repo": repo,
        "architecture_sentence": _architecture(checkpoint),
        "formula": _formula(checkpoint),
        "symbols": _symbols(checkpoint),
        "features": checkpoint.config.get("num_features") or "all",
        "classes": checkpoint.classes,
        "label_names": "label_names" in checkpoint.config,
        "data_title": data.title if data else escaped(checkpoint.data or "its training set"),
        "data_citation": data.citation if data else "",
        "trained": checkpoint.recipe is not None,
        "facts": _training(checkpoint) if checkpoint.recipe else _origin(checkpoint),
        "curve": CURVE if checkpoint.log else "",
        "knn": knn,
        "boards": boards,
        "columns": len(family),
        "starred": any(r.task.subset for c in family for _, r in c.results),
        "comparisons": _comparisons(checkpoint, family) if boards and objective else [],
        "limits": _limits(checkpoint),
        "licence_text": _licence(checkpoint),
        "megabytes": f"{(checkpoint.folder / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "weights_sha256": checkpoint.weights_sha256,
        "source_file": _code(checkpoint.source.file) if checkpoint.source else "",
        "source_sha256": checkpoint.source.sha256 if checkpoint.source else "",
    }


def _architecture(checkpoint: Checkpoint) -> str:
    config, objective, data = checkpoint.config, checkpoint.objective, training_data(checkpoint)
    args = config.get("model_args") or {}
    call = ", ".join([config["architecture"], *(f"{key}={value}" for key, value in args.items())])
    sentence = (
        f"A timm {_code(call)} with "
        f"{checkpoint.params / 1e6:.1f} M parameters for {checkpoint.px} px images"
    )
    if objective:
        sentence += f", pretrained with **{objective.shown}**"
    where = data.title if data else escaped(checkpoint.data)
    sentence += f" on {where}." if where else "."
    if checkpoint.recipe:
        sentence += (
            " One of a family that differs in the pretraining objective alone, made to ask which "
            "objective gives features that transfer, after *A Broad Study on the Transferability "
            f"of Visual Representations with Contrastive Learning* (Islam et al., ICCV 2021, "
            f"[arXiv {ARXIV}](https://arxiv.org/abs/{ARXIV}))."
        )
    return sentence


def _formula(checkpoint: Checkpoint) -> str:
    """The loss of one image in one line."""
    out = ""
    for term, weight in checkpoint.weights.items():
        loss = TERMS[term].formula
        factor = "" if weight == 1 else f"{weight:g} * "
        if not out:
            out = f"L = {factor and f'{factor}( '}{loss}{factor and ' )'}"
        else:
            out += f"  +  {factor}( {loss} )" if factor else f"  +  ( {loss} )"
    return out


def _symbols(checkpoint: Checkpoint) -> str:
    """What stands in the formula."""
    terms = checkpoint.weights
    said = []
    if "ce" in terms or "ce-strong" in terms:
        said.append("h the feature and W, b a linear classifier of the label y")
    if "ce-mlp" in terms:
        said.append(
            "g a projector (the feature at length 1, hidden layers with batch norm and GELU, a "
            "bottleneck) and w_c a vector a class, both dropped after training"
            + (
                f", the cosine at t = {checkpoint.recipe.projector.temperature:g}"
                if checkpoint.recipe
                else ""
            )
        )
    if any(TERMS[t].contrastive for t in terms):
        said.append(
            "q and k the normalised projections of two views, k by the momentum encoder, "
            "u the queue of earlier keys"
        )
    if "supcon" in terms:
        said.append("P the queue's entries of the same class, the own key among them")
    if checkpoint.recipe and any(TERMS[t].contrastive for t in terms):
        said.append(f"t = {checkpoint.recipe.contrastive.temperature:g}")
    return "; ".join(said)


def _training(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    recipe, run = checkpoint.recipe, checkpoint.run
    assert recipe is not None
    assert run is not None
    data, objective = training_data(checkpoint), checkpoint.objective
    assert objective is not None
    train, image = recipe.train, recipe.image
    views = {
        "weak": "one weak view",
        "strong": "one strong view",
        "two strong": "two independent strong views",
    }[objective.views]
    strong = (
        f"random crop of {image.scale[0]:g} to {image.scale[1]:g} of the area, flip, colour jitter "
        f"(p {image.jitter_p:g}), grey (p {image.grey_p:g}), blur (p {image.blur_p:g})"
    )
    weak = f"random crop of {image.scale[0]:g} to {image.scale[1]:g} of the area, flip"
    said = [
        (
            "Data",
            f"{run.images:,} images of {run.classes} classes of "
            f"{data.title if data else escaped(run.data)}"
            f"{', a subset' if data and run.images < data.train else ''}, at {image.px} px"
            + ("" if objective.needs_labels else "; the labels were not used"),
        ),
        ("Views", f"{views}: {strong if 'strong' in views else weak}"),
        (
            "Schedule",
            f"{train.epochs} epochs, {run.images_seen:,} images seen, batch {train.batch_size}, "
            f"SGD (momentum {train.momentum:g}, weight decay {train.weight_decay:g}), peak rate "
            f"{run.learning_rate:g}, {train.warmup_epochs:g} epochs of warm-up, cosine to zero, "
            f"seed {train.seed}",
        ),
    ]
    if objective.contrastive:
        c = recipe.contrastive
        said.append(
            (
                "Contrastive",
                f"queue of {c.queue:,} keys, key momentum {c.momentum:g}, projection head of "
                f"{c.head_depth} layers to {c.head_dim} dimensions",
            )
        )
    seconds = run.seconds
    took = f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
    versions = ", ".join(f"{escaped(k)} {escaped(v)}" for k, v in run.versions.items())
    said += [
        ("Machine", f"{took} on {escaped(run.device)}, {escaped(run.precision)}; {versions}"),
        (
            "Again",
            f"`transfer-zoo pretrain recipe.toml --objective {objective.name} --data DIR --out "
            f"DIR` with the `recipe.toml` here; `log.jsonl` has every loss term",
        ),
    ]
    return said


def _origin(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    source = checkpoint.source
    if source is None:
        return []
    return [
        (
            "Converted",
            f"by {_code(f'transfer-zoo convert --source {source.kind}')} from "
            f"{_code(source.file)}; {source.keys_used} tensors used, {source.keys_dropped} dropped "
            "(`source.toml` says which)",
        )
    ]


@dataclass(frozen=True)
class _Board:
    title: str
    table: str
    folded: bool


def _board(
    protocol: str, name: str, title: str, folded: bool, checkpoint: Checkpoint,
    family: Sequence[Checkpoint],
) -> _Board | None:  # fmt: skip
    """One table: tasks down, objectives across, this checkpoint's column in bold."""
    found: dict[tuple[str, str], dict[str, Score]] = {}
    starred = set()
    shown = tabled(checkpoint)
    for member in family:
        for _, result in member.results:
            score = result.score(name)
            if result.protocol.name == protocol and score and setting(result) == shown:
                question = (result.task.name, result.task.split_hash)
                found.setdefault(question, {})[member.name] = stated(result, score)
                if result.task.subset:
                    starred.add(question)
    rows = [q for q in _in_order(found) if checkpoint.name in found[q]]
    if not rows:
        return None
    header = ["data set", *(_column(member, checkpoint) for member in family)]
    lines = [
        [
            escaped(q[0]) + ("*" if q in starred else ""),
            *(_bold(score_text(found[q].get(m.name)), m is checkpoint) for m in family),
        ]
        for q in rows
    ]
    seen = checkpoint.data
    common = [q for q in rows if len(found[q]) == len(family) and q[0] != seen]
    if len(common) > 1:
        means = [float(np.mean([found[q][m.name].value for q in common])) for m in family]
        label = f"mean of {len(common)}" + (
            f" without {escaped(seen)}" if seen in dict(rows) else ""
        )
        values = [
            _bold(f"{100 * mean:.1f}", m is checkpoint)
            for mean, m in zip(means, family, strict=True)
        ]
        lines.append([label, *values])
    title += f" ({shown})" if shown else ""
    kinds = dict.fromkeys(s.kind for q in rows for s in found[q].values())
    chances = "; ".join(KINDS[kind] for kind in kinds if kind in KINDS)
    return _Board(
        f"{title} (± 95 % over {chances})" if chances else title,
        text_table(header, lines, markdown=True), folded,
    )  # fmt: skip


def _in_order(questions: Mapping[tuple[str, str], object]) -> list[tuple[str, str]]:
    order = list(TASKS)
    return sorted(questions, key=lambda q: (order.index(q[0]) if q[0] in order else len(order), q))


def _column(member: Checkpoint, this: Checkpoint) -> str:
    label = member.objective.shown if member.objective else escaped(member.name)
    return _bold(label, member is this)


def _bold(text: str, really: bool) -> str:
    return f"**{text}**" if really else text


def _comparisons(checkpoint: Checkpoint, family: Sequence[Checkpoint]) -> list[str]:
    """Paired tests against the objective without (or with) the self-supervised term."""
    objective = checkpoint.objective
    assert objective is not None
    by_name = {m.objective.name: m for m in family if m.objective}
    rivals = [b for a, b in PAIRS if a == objective.name] + [
        a for a, b in PAIRS if b == objective.name
    ]
    said = []
    for rival in rivals:
        other = by_name.get(rival)
        if other is None:
            continue
        assert other.objective is not None
        shown = tabled(checkpoint)
        mine = _named(checkpoint, objective.shown, shown)
        theirs = _named(other, other.objective.shown, shown)
        try:
            found = compare(objective.shown, other.objective.shown, [*mine, *theirs])
        except UserError:  # they share no question
            continue
        said += [escaped(c.sentence) for c in found if (c.protocol, c.score) in _COMPARED]
    return said


def _named(checkpoint: Checkpoint, label: str, shown: str) -> list[Result]:
    """The results of the setting that the tables show, under a name that reads well in a
    sentence."""
    return [
        result.model_copy(update={"model": result.model.model_copy(update={"id": label})})
        for _, result in checkpoint.results
        if setting(result) == shown
    ]


def _limits(checkpoint: Checkpoint) -> list[str]:
    limits = []
    if checkpoint.recipe:
        limits.append(
            "For research on representations: to compare pretraining objectives under one recipe. "
            "For the best features of a task take a larger network trained for longer."
        )
        limits.append(
            f"One training run, seed {checkpoint.recipe.train.seed}: the intervals are over "
            "images, not over trainings of the backbone."
        )
        epochs = checkpoint.recipe.train.epochs
        if epochs < 100:
            limits.append(
                f"{epochs} epochs; the study trains 300 to 400 on larger data, which contrastive "
                "objectives need above all. What differs between the objectives here is about "
                "short trainings of small networks."
            )
    else:
        limits.append(
            "Converted, not trained here: what is said of its training is its authors' word."
        )
    if any(result.task.subset for _, result in checkpoint.results):
        limits.append("Scores on subsets (`*`) say how models compare, not where they would rank.")
    limits.append(
        "Not checked for fairness, safety or any use on people; its training images carry the "
        "biases of how they were collected."
    )
    return limits


def _licence(checkpoint: Checkpoint) -> str:
    data = training_data(checkpoint)
    if data is None:
        return (
            "The terms of the data these weights were trained on are not known to the tool: state "
            "`license` in the metadata above."
        )
    where = f" ([terms]({data.terms}))" if data.terms else ""
    return (
        f"The weights come under the terms of the data they were trained on, {data.title}: "
        f"{data.licence}{where}. The code of TransferZoo is Apache-2.0."
    )


def _code(value: object) -> str:
    """Foreign text as a code span, which shows all but its own quote as it is."""
    text = " ".join(str(value).replace("`", "'").replace("|", "/").split())
    return "`" + text.replace("<!--", "<! --") + "`"  # our own markers are comments
