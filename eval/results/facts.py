"""What is known of a model's making, of a result: declared by its author, or unknown."""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache

from eval.common.errors import UserError
from eval.models.facts import UNTRAINED, Facts, of_folder
from eval.models.families import shown_family
from eval.models.names import zoo_folder
from eval.models.objectives import parse_objective
from eval.models.resolve import folder_revision
from eval.results.schema import ModelFacts, ModelInfo

UNKNOWN = "unknown"


def stated(facts: Facts) -> ModelFacts:
    """As a result file has them."""
    return ModelFacts.model_validate(
        {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(facts).items()}
    )


def facts_of(model: ModelInfo) -> ModelFacts:
    """What the result says. Older files do not say it: of a checkpoint that ships here its recipe
    is read, if the result is of just these weights; of others nothing is known."""
    if model.facts is not None:
        return model.facts
    kind, _, name = model.spec.partition(":")
    if kind == "random":
        return ModelFacts(objective=UNTRAINED, architecture=name.partition("@")[0])
    shipped = kind == "zoo" and re.fullmatch(r"[\w.+-]+", name)  # a result may call itself anything
    return _shipped(name, model.revision) if shipped else ModelFacts()


def facts_named(name: str) -> Facts:
    """Of a model that is known by its name alone: what the recipe says of a checkpoint that ships,
    and that ``random:`` networks are untrained; of all others nothing, whatever they are called.
    """
    kind, _, rest = name.partition(":")
    bare = re.sub(r"(@[0-9a-f]{7,40})?( @\d+px)?$", "", rest)
    if kind == "random":
        return Facts(UNTRAINED, bare.partition("@")[0])
    if kind != "zoo" or not re.fullmatch(r"[\w.+-]+", bare):
        return Facts()
    return of_folder(zoo_folder(bare))


def objective_named(name: str) -> str:
    """The objective by `facts_named`.

    >>> objective_named("zoo:resnet18_narrow.ce_selfsupcon_tin100")
    'ce+selfsupcon'
    >>> objective_named("hf-hub:somebody/resnet18_narrow.supcon_tin100")
    ''
    """
    return facts_named(name).objective


def shown_objective(name: str) -> str:
    """``ce+selfsupcon`` as the paper writes it, CE+SelfSupCon; a family as its authors do, MAE;
    anything else as it is."""
    if family := shown_family(name):
        return family
    try:
        return parse_objective(name).shown if name else ""
    except UserError:
        return name


def making(model: ModelInfo) -> str:
    """Equal for models that were trained alike but for objective and seed; '' where that is not
    known."""
    facts = facts_of(model)
    if facts.recipe:
        return facts.recipe
    return " on ".join([facts.architecture, "+".join(facts.data)]) if facts.data else ""


@lru_cache(maxsize=256)
def _shipped(name: str, revision: str) -> ModelFacts:
    folder = zoo_folder(name)
    try:
        same = folder_revision(folder) == revision
    except (OSError, UserError):
        return ModelFacts()
    return stated(of_folder(folder)) if same else ModelFacts()
