"""A study's plan: arms, budgets, seeds, contrasts and predictions, read from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean, one_line
from eval.models.objectives import ObjectiveName, parse_objective
from zoo.train.recipe import Recipe, load_recipe

PLANS = Path(__file__).parent / "plans"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([-_.][a-z0-9]+)*$")]
Epochs = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Budget(_Section):
    """A length of training, and the seeds that are trained for so long."""

    epochs: Epochs
    seeds: tuple[Seed, ...] = Field(min_length=1)


class Arm(_Section):
    """One way of pretraining: an objective, and a name for it within the study."""

    name: Name
    objective: str
    wave: int = Field(default=1, ge=1)  # at each budget arms of an earlier wave are trained first
    rate: Annotated[float, Field(gt=0)] | None = None  # for 256 images; None: tuned
    epochs: tuple[Epochs, ...] = ()  # of which budgets; none: of all

    def has(self, budget: Budget) -> bool:
        return not self.epochs or budget.epochs in self.epochs

    @property
    def parsed(self) -> ObjectiveName:
        return parse_objective(self.objective)


class Tuning(_Section):
    """How each arm's learning rate is chosen: the best validation kNN among the same rates."""

    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)  # for 256 images
    epochs: Epochs
    seed: Seed  # of no run that counts


class Contrast(_Section):
    """A difference between arms that will be tested at every budget, and what we expect of it."""

    name: str
    arms: dict[str, float]  # factors, which add up to 0
    prediction: str

    @model_validator(mode="after")
    def _is_a_difference(self) -> Contrast:
        if abs(sum(self.arms.values())) > 1e-9 or not any(self.arms.values()):
            raise ValueError(f"the factors of contrast {self.name!r} must add up to 0")
        return self


class Evaluation(_Section):
    """What each checkpoint is scored on."""

    tasks: tuple[str, ...] = Field(min_length=1)
    shots: tuple[int, ...] = (5,)
    # {a level of content: tasks that ask for it}: linear scores that explain, and count in no other
    content: dict[Name, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def content_tasks(self) -> tuple[str, ...]:
        return tuple(task for tasks in self.content.values() for task in tasks)


class Plan(_Section):
    """All that is fixed before the first run."""

    name: Name
    question: str
    statistics: str
    notes: tuple[str, ...] = ()  # what was changed after the first run, when and why
    recipe: str  # shipped, by name
    settings: tuple[str, ...] = ()  # KEY=VALUE on the recipe, for every arm
    tuning: Tuning
    evaluation: Evaluation
    budgets: tuple[Budget, ...] = Field(min_length=1)
    arms: tuple[Arm, ...] = Field(min_length=1)
    contrasts: tuple[Contrast, ...] = ()

    @model_validator(mode="after")
    def _belongs_together(self) -> Plan:
        epochs = [b.epochs for b in self.budgets]
        if epochs != sorted(set(epochs)):
            raise ValueError(f"budgets {epochs} must rise")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"an arm is named twice in {names}")
        for contrast in self.contrasts:
            for name in contrast.arms:
                if name not in names:
                    raise ValueError(
                        f"contrast {contrast.name!r} names {name!r}"
                        + did_you_mean(name, names, f"arms are {', '.join(names)}")
                    )
        if self.tuning.seed in self.seeds:
            raise ValueError(f"tuning.seed = {self.tuning.seed} is the seed of a run that counts")
        for arm in self.arms:
            if unknown := sorted(set(arm.epochs) - set(epochs)):
                raise ValueError(f"arm {arm.name!r} has epochs {unknown}; budgets are {epochs}")
            try:
                arm.parsed  # noqa: B018
            except UserError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order in which they are first named."""
        return tuple(dict.fromkeys(s for b in self.budgets for s in b.seeds))

    def budgets_of(self, arm: Arm, seed: int) -> tuple[int, ...]:
        """Epochs at which this seed's run of an arm is exported, ascending."""
        return tuple(b.epochs for b in self.budgets if seed in b.seeds and arm.has(b))

    def training(self, arm: Arm, seed: int, rate: float) -> Recipe:
        """The recipe of a run that counts: one for all its budgets."""
        *branches, epochs = self.budgets_of(arm, seed)
        return load_recipe(
            self.recipe,
            [
                *self.settings,
                "train.schedule=wsd",
                f"train.epochs={epochs}",
                f"train.branches={branches}",
                f"train.seed={seed}",
                f"rate.{arm.parsed.family}={rate}",
            ],
        )

    def trial(self, arm: Arm, rate: float) -> Recipe:
        """The recipe of a tuning run."""
        return load_recipe(
            self.recipe,
            [
                *self.settings,
                "train.schedule=wsd",
                f"train.epochs={self.tuning.epochs}",
                f"train.seed={self.tuning.seed}",
                f"rate.{arm.parsed.family}={rate}",
            ],
        )


def plan_names() -> list[str]:
    """Plans that ship, sorted."""
    return sorted(p.stem for p in PLANS.glob("*.toml"))


def load_plan(text: str) -> Plan:
    """A shipped plan by name or any TOML file by path. Raises UserError with the first mistake."""
    path = PLANS / f"{text}.toml" if text in plan_names() else Path(text)
    if not path.is_file():
        raise NotFound(
            f"plan {text!r} is neither shipped nor a file"
            + did_you_mean(text, plan_names(), f"shipped are {', '.join(plan_names())}")
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"plan {path} is not valid TOML: {one_line(error)}") from None
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"plan {path}: {f'{place}: ' if place else ''}{reason}") from None
