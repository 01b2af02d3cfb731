"""What a model's own files say of its making: objective, architecture, pretraining data.

It is declared by whoever made the model, in the recipe of its training, config.json or the card's
metadata, and taken as said; what they do not say is unknown. The name of a folder or repository
says nothing here: anybody may call a model anything. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.common.errors import UserError
from eval.common.files import read_plain
from eval.hub import client
from eval.models.families import FINE_TUNED, family_of, of_timm
from eval.models.objectives import parse_objective
from eval.models.resolve import ResolvedModel, model_config

RECIPE, CARD = "recipe.toml", "README.md"
UNTRAINED = "untrained"  # the objective of a network that was never trained
_MOST_BYTES = 2_000_000  # of a recipe or card
_MOST_HEAD = 200_000  # letters of a card's metadata; ours have 40,000, of many scores
_MOST_TEXT, _MOST_DATA = 80, 8  # letters of a declared word; data sets of a model
# transformers' model_type -> family, where the type is that of a training too
_TYPES = {
    "dinov2": "dino",
    "dinov2_with_registers": "dino",
    "dinov3_vit": "dino",
    "dinov3_convnext": "dino",
    "vit_mae": "mae",
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
}


@dataclass(frozen=True)
class Facts:
    """Empty where nothing is declared. ``objective`` is a sum of terms (`ce+selfsupcon`), a family
    (`eval.models.families`) or ``untrained``; ``data`` are the data sets it was pretrained on, as
    the author calls them."""

    objective: str = ""
    architecture: str = ""
    data: tuple[str, ...] = ()
    recipe: str = ""  # equal for models that were trained alike but for their objective and seed
    seed: int | None = None  # of the training
    said_in: tuple[str, ...] = ()  # the files that say so

    def under(self, other: Facts) -> Facts:
        """With what another source says, where that says more of it than this one."""
        return Facts(
            other.objective or self.objective,
            other.architecture or self.architecture,
            other.data or self.data,
            other.recipe or self.recipe,
            self.seed if other.seed is None else other.seed,
            tuple(dict.fromkeys((*self.said_in, *other.said_in))),
        )


@lru_cache(maxsize=256)
def declared(model: ResolvedModel) -> Facts:
    """What is declared of a resolved model. Asks the Hub for the card of one that lies there, once
    a commit; a card that cannot be had says nothing."""
    if model.kind == "random":
        return Facts(UNTRAINED, model.name)
    if model.kind == "source":
        return _of_source(model.spec)
    if model.kind == "python":
        return Facts()
    found = Facts()
    with contextlib.suppress(UserError):
        found = of_config(model_config(model).config)
        found = replace(found, said_in=(model.config,) if found != Facts() else ())
    card = _beside(model, CARD)
    found = found.under(of_card(card))
    if model.folder is not None or "transferzoo" in _tags(_metadata(card)):
        found = found.under(of_recipe(_beside(model, RECIPE)))
    return found


@lru_cache(maxsize=256)
def of_folder(folder: Path) -> Facts:
    """What the recipe of a checkpoint's folder says."""
    return of_recipe(_read(folder / RECIPE))


# ------------------------------------------------------------------ the files, one by one


def of_recipe(text: str) -> Facts:
    """Of the recipe that a training of this project leaves; nothing for another text."""
    try:
        recipe = tomllib.loads(text)
        run = recipe.pop("run")
        objective = parse_objective(str(run["objective"])).name
        architecture, seed = str(recipe["backbone"]["name"]), recipe["train"].pop("seed")
    except (tomllib.TOMLDecodeError, RecursionError, LookupError, TypeError, AttributeError,
            UserError):  # fmt: skip
        return Facts()
    alike = [recipe, run.get("data_fingerprint"), run.get("images_seen")]
    digest = hashlib.sha256(json.dumps(alike, sort_keys=True, default=str).encode()).hexdigest()
    data = _words([run.get("data")])
    return Facts(
        objective, architecture[:_MOST_TEXT], data, f"{_word(recipe.get('name'))}-{digest[:8]}",
        seed if type(seed) is int else None, (RECIPE,),
    )  # fmt: skip


def of_card(text: str) -> Facts:
    """Of the metadata of a card: the tag ``objective:ce+selfsupcon`` or that of a family, and its
    data sets."""
    head = _metadata(text)
    tags = _tags(head)
    objective = ""
    for tag in tags:
        if tag.startswith("objective:"):
            with contextlib.suppress(UserError):
                objective = parse_objective(tag.partition(":")[2]).name
    datasets = head.get("datasets")
    many = datasets if isinstance(datasets, list) else [datasets]
    data, objective = _words(many), objective or family_of(tags)
    return Facts(objective, data=data, said_in=(CARD,) if objective or data else ())


def of_config(config: Mapping[str, Any]) -> Facts:
    """Of a config.json: timm's, with the tag of its pretrained_cfg; transformers', by its type;
    open_clip's."""
    architecture, kind = config.get("architecture"), config.get("model_type")
    if isinstance(architecture, str):
        inner = config.get("pretrained_cfg")
        tag = inner.get("tag") if isinstance(inner, dict) else config.get("tag")
        family, data = of_timm(architecture, _word(tag))
        return Facts(family, architecture[:_MOST_TEXT], data)
    if isinstance(kind, str):
        heads = config.get("architectures")
        last = str(heads[0]) if isinstance(heads, list) and heads else ""
        return Facts(_of_type(kind, last), _word(kind))
    inner = config.get("model_cfg")
    if isinstance(inner, dict):
        tower = inner.get("vision_cfg")
        name = tower.get("timm_model_name") if isinstance(tower, dict) else None
        # SigLIP's loss has a bias, CLIP's has none
        return Facts("siglip" if "init_logit_bias" in inner else "clip", _word(name) or "ViT")
    return Facts()


def _of_type(kind: str, head: str) -> str:
    family = _TYPES.get(kind, "")
    if head.endswith("WithTeacher"):
        return "distilled"
    if head.endswith("ForImageClassification"):
        return f"{family}{FINE_TUNED}" if family else "supervised"
    return family


def _of_source(spec: str) -> Facts:
    """torchvision names its weights by their data; a bare file says nothing."""
    prefix, _, rest = spec.partition(":")
    if prefix.lower() != "torchvision":
        return Facts()
    named, own, _ = rest.partition("?")
    name, _, weights = named.partition("@")
    on_imagenet = not own and weights.upper().startswith("IMAGENET1K")
    return Facts(
        "supervised" if on_imagenet else "", name, ("imagenet-1k",) if on_imagenet else (),
        said_in=("torchvision",),
    )  # fmt: skip


def _beside(model: ResolvedModel, name: str) -> str:
    """A file of the model's folder or commit; '' where there is none."""
    if model.folder is not None:
        return _read(model.folder / name)
    try:
        folder = client.fetch(str(model.repo), str(model.commit), (name,), f"model {model.id!r}")
    except UserError:
        return ""
    return _read(folder / name)


def _read(path: Path) -> str:
    try:
        return read_plain(path, _MOST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _metadata(text: str) -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    import yaml

    _, opened, rest = text.removeprefix("\ufeff").partition("---")
    if not opened:
        return {}
    head = rest.partition("\n---")[0]
    if len(head) > _MOST_HEAD:  # a parser in Python takes long for megabytes
        return {}
    try:
        found = yaml.safe_load(head)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tags(head: Mapping[str, Any]) -> list[str]:
    tags = head.get("tags")
    return [tag.lower() for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _words(values: list[Any]) -> tuple[str, ...]:
    """Data sets by name. A folder of the author's machine is called by its last part."""
    words = [_word(value) for value in values]
    named = [w.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if _is_place(w) else w
             for w in words]  # fmt: skip
    return tuple(dict.fromkeys(word for word in named if word))[:_MOST_DATA]


def _is_place(text: str) -> bool:
    return text.startswith(("/", "~", ".")) or "\\" in text or text.count("/") > 1


def _word(value: object) -> str:
    """A text on one line; '' for anything else."""
    if not isinstance(value, str):
        return ""
    plain = "".join(c if c.isprintable() else " " for c in value)
    return " ".join(plain.split())[:_MOST_TEXT]
