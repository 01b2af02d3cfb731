"""What is trained on what, for how long: a validated TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean, one_line
from eval.models.objectives import TERMS, ObjectiveName, parse_objective

RECIPES = Path(__file__).parents[1] / "recipes"

Triple = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("must be two positive numbers, the smaller first")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Share = Annotated[float, Field(ge=0, le=1)]
Hue = Annotated[float, Field(ge=0, le=1 / 6)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackboneRecipe(_Section):
    """A timm architecture, and the name its checkpoints carry."""

    architecture: str
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    model_args: dict[str, Any] = {}


class ImageRecipe(_Section):
    """Pixels: the stored square, the network's input, and the study's augmentations."""

    px: int = Field(ge=8)
    store_px: int = Field(ge=8)
    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    scale: Range = (0.2, 1.0)
    jitter: tuple[Share, Share, Share, Hue] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: Share = 0.8
    grey_p: Share = 0.2
    blur_p: Share = 0.5
    blur_sigma: Range = (0.1, 2.0)
    crop_pct: float = Field(default=224 / 257, gt=0, le=1)  # of evaluation: the study's 224 of 257


class TrainRecipe(_Section):
    """Optimisation: SGD with momentum 0.9, linear warm-up, then one of two schedules.

    ``cosine`` falls to zero over all epochs. ``wsd`` (warm-up, stable, decay; Hägele et al. 2024)
    stays at the peak and falls linearly over the last ``cooldown`` of the epochs, so that one run
    gives several budgets: at each of ``branches`` a copy cools down and is exported, and is to the
    bit what a run of that many epochs would have been.
    """

    epochs: int = Field(ge=1)
    schedule: Literal["cosine", "wsd"] = "cosine"
    cooldown: float = Field(default=0.1, gt=0, le=1)  # of wsd: a share of the epochs
    branches: tuple[Annotated[int, Field(ge=1)], ...] = ()  # of wsd: fewer epochs, too
    batch_size: int = Field(ge=2)  # of all processes and accumulated steps together
    accumulate: int = Field(default=1, ge=1)
    warmup_epochs: float = Field(default=5.0, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    clip_norm: float = Field(default=0.0, ge=0)  # 0: gradients are not clipped
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _branches_leave_the_trunk(self) -> TrainRecipe:
        ends = (*self.branches, self.epochs)
        if self.branches and self.schedule != "wsd":
            raise ValueError('branches need schedule = "wsd": a cosine is never constant')
        if any(a >= b for a, b in pairwise(ends)):
            raise ValueError(f"branches {[*self.branches]} must rise and stay below {self.epochs}")
        if self.schedule == "wsd" and self.warmup_epochs > (1 - self.cooldown) * ends[0]:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs} does not end before the cool-down of "
                f"{ends[0]} epochs begins"
            )
        return self


class RateRecipe(_Section):
    """Learning rate for 256 images, by family of objective; it scales with the batch."""

    classification: float = Field(gt=0)
    contrastive: float = Field(gt=0)
    joint: float = Field(gt=0)


class ContrastiveRecipe(_Section):
    """The queue, the heads and the key encoder of the contrastive terms."""

    temperature: float = Field(default=0.07, gt=0)
    queue: int = Field(default=64000, ge=1)
    momentum: float = Field(default=0.999, ge=0, le=1)
    head_depth: int = Field(default=2, ge=1)
    head_hidden: int = Field(default=0, ge=0)  # width between the layers; 0: that of the features
    head_dim: int = Field(default=128, ge=1)
    same_class_negatives_only: bool = False


class ProjectorRecipe(_Section):
    """The projector before the classifier, in objectives with ``ce-mlp``."""

    hidden_layers: int = Field(default=1, ge=1, le=3)
    hidden_dim: int = Field(default=2048, ge=1)
    bottleneck_dim: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.1, gt=0)


class ProbeRecipe(_Section):
    """k nearest neighbours on the validation split while training; 0 epochs: never."""

    every_epochs: int = Field(default=5, ge=0)
    k: int = Field(default=20, ge=1)
    bank: int = Field(default=10_000, ge=1)  # training images to choose neighbours among


class SaveRecipe(_Section):
    """When the state is saved, and how the finished weights are stored."""

    every_epochs: int = Field(default=1, ge=1)
    every_minutes: float = Field(default=0.0, ge=0)  # as well; 0: at ends of epochs alone
    dtype: Literal["float32", "float16"] = "float32"


class Recipe(_Section):
    """One recipe for every objective: only the objective and its family's rate differ."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    tag: str = Field(pattern=r"^[a-z0-9_]+$")  # of the data, ends the checkpoint's name
    backbone: BackboneRecipe
    image: ImageRecipe
    train: TrainRecipe
    rate: RateRecipe
    contrastive: ContrastiveRecipe = ContrastiveRecipe()
    projector: ProjectorRecipe = ProjectorRecipe()
    probe: ProbeRecipe = ProbeRecipe()
    save: SaveRecipe = SaveRecipe()
    weights: dict[str, dict[str, Positive]] = {}  # of terms, by objective

    @model_validator(mode="after")
    def _weights_name_terms(self) -> Recipe:
        for objective, terms in self.weights.items():
            try:
                known = [t for t, _ in parse_objective(objective).terms]
            except UserError as error:
                raise ValueError(str(error)) from None
            for term in terms:
                if term not in known:
                    raise ValueError(f"weights of {objective!r} name {term!r}, no term of it")
        return self

    def learning_rate(self, objective: ObjectiveName) -> float:
        """The peak rate: the family's rate for 256 images, scaled to the batch."""
        return getattr(self.rate, objective.family) * self.train.batch_size / 256

    def branch(self, epochs: int) -> Recipe:
        """This recipe for one of its branches: what a run of that many epochs alone would have."""
        train = self.train.model_copy(update={"epochs": epochs, "branches": ()})
        return self.model_copy(update={"train": train})

    def term_weights(self, objective: ObjectiveName) -> dict[str, float]:
        """The recipe's weights of the objective's terms, by term; a term it leaves out weighs 1."""
        for text, weights in self.weights.items():
            if parse_objective(text).name == objective.name:
                return dict(weights)
        return {}


def recipe_names() -> list[str]:
    """Recipes that ship, sorted."""
    return sorted(p.stem for p in RECIPES.glob("*.toml"))


def load_recipe(text: str, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name or any TOML file by path, with ``section.key=value`` overrides.

    Raises UserError naming the file, the key and the value seen.
    """
    path = RECIPES / f"{text}.toml" if text in recipe_names() else Path(text)
    if not path.is_file():
        raise NotFound(
            f"recipe {text!r} is neither shipped nor a file"
            + did_you_mean(text, recipe_names(), f"shipped are {', '.join(recipe_names())}")
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} is not valid TOML: {one_line(error)}") from None
    tree.pop("run", None)  # of a finished checkpoint's recipe.toml: what happened, not what to do
    for override in overrides:
        _override(tree, override)
    return validate(tree, f"recipe {text!r}")


def validate(tree: dict[str, Any], subject: str) -> Recipe:
    """A tree of plain values as a Recipe. Raises UserError with the first thing wrong."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise BadInput(_sentence(error, subject)) from None


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text!r} is not a setting; write --set train.epochs=10")
    *sections, last = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise BadInput(f"--set {text!r}: {section!r} is not a section of the recipe")
    try:
        tree[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        tree[last] = value.strip()  # a bare word is a string


def _sentence(error: ValidationError, subject: str) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        known = list(_fields_at(place[:-1]))
        return f"{subject} has an unknown key {key!r}" + did_you_mean(
            place[-1], known, f"known here are {', '.join(known)}"
        )
    if first["type"] == "missing":
        return f"{subject} lacks {key!r}"
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    return f"{subject}: {key} = {first['input']!r}: {reason}" if key else f"{subject}: {reason}"


def _fields_at(place: Sequence[str]) -> dict[str, Any]:
    model: Any = Recipe
    for part in place:
        model = model.model_fields[part].annotation
    return model.model_fields


def completed(tree: dict[str, Any]) -> dict[str, Any]:
    """Plain values of a recipe with what they leave out at its default, so that a recipe written
    before a setting was known equals one of today; what is not a recipe comes back as it is."""
    try:
        return json.loads(Recipe.model_validate(tree).model_dump_json())
    except ValidationError:
        return tree


def decisive(tree: dict[str, Any]) -> dict[str, Any]:
    """Plain values of a recipe without how often a run is probed and its state saved, on which no
    weight and no number hangs: a run may go on with others."""
    return {
        section: {k: v for k, v in values.items() if not k.startswith("every_")}
        if section in ("probe", "save") and isinstance(values, dict)  # a file may hold anything
        else values
        for section, values in tree.items()
    }


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """``train.epochs was 10, is 12`` for every value that differs, in sorted order."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(was, dict) and isinstance(now, dict):
            found += differences(was, now, f"{prefix}{key}.")
        elif was != now:
            found.append(f"{prefix}{key} was {was!r}, is {now!r}")
    return found


def needs_labels(recipe: Recipe, objective: ObjectiveName) -> bool:
    """Whether training reads labels: by the objective, or by the same-class ablation."""
    return objective.needs_labels or (
        recipe.contrastive.same_class_negatives_only
        and any(TERMS[term].contrastive for term, _ in objective.terms)
    )
