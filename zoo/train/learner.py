"""A backbone, its slow copy where the objective needs keys, and the objective: what is trained."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from eval.common.errors import BadInput, NotFound, did_you_mean, one_line
from eval.models.objectives import ObjectiveName
from zoo.train.momentum import MomentumCopy, encode_shuffled
from zoo.train.objectives import ContrastiveOptions, Objective, ProjectorOptions, build
from zoo.train.recipe import BackboneRecipe, Recipe


class Learner(nn.Module):
    """images [N, 3, H, W] (and a second view of them) -> the objective's terms."""

    def __init__(self, backbone: nn.Module, objective: Objective, momentum: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.momentum = momentum
        self.key_backbone = MomentumCopy(backbone) if objective.contrastive else None

    def update_key_encoder(self) -> None:
        """Move the key encoder: once an optimiser step, before its keys are computed."""
        if self.key_backbone is not None:
            self.key_backbone.move_towards(self.backbone, self.momentum)
            self.objective.update_key_heads(self.momentum)

    def forward(
        self, view: Tensor, key_view: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        key_features = None
        if self.key_backbone is not None:
            assert key_view is not None
            key_features = encode_shuffled(self.key_backbone, key_view)
        return self.objective(self.backbone(view), key_features, labels)


def build_learner(recipe: Recipe, objective: ObjectiveName, classes: int) -> Learner:
    """The learner of a recipe, its weights drawn from the recipe's seed.

    Backbones are equal across objectives: they are drawn first. Raises UserError for a backbone
    that timm does not know or that does not take the arguments.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        backbone = create_backbone(recipe.backbone)
        dim = feature_dim(backbone, recipe.image.px)
        settings = recipe.contrastive
        options = ContrastiveOptions(
            temperature=settings.temperature,
            queue=settings.queue,
            head_depth=settings.head_depth,
            head_hidden=settings.head_hidden,
            head_dim=settings.head_dim,
            same_class_negatives_only=settings.same_class_negatives_only,
        )
        projector = ProjectorOptions(**recipe.projector.model_dump())
        loss = build(objective, dim, classes, options, recipe.term_weights(objective), projector)
        return Learner(backbone, loss, settings.momentum)


def create_backbone(recipe: BackboneRecipe, classes: int = 0) -> nn.Module:
    """The untrained timm model, with a classifier of that many classes. Raises UserError."""
    if not timm.is_model(recipe.architecture):
        raise NotFound(
            f"backbone.architecture: timm has no model {recipe.architecture!r}"
            + did_you_mean(recipe.architecture, timm.list_models(), "see timm.list_models()")
        )
    try:
        return timm.create_model(
            recipe.architecture, pretrained=False, num_classes=classes, **recipe.model_args
        )
    except Exception as error:  # whatever an architecture raises for arguments it does not take
        raise BadInput(
            f"backbone {recipe.architecture!r} cannot be built with {recipe.model_args}: "
            f"{one_line(error)}"
        ) from None


@torch.no_grad()
def feature_dim(backbone: nn.Module, px: int) -> int:
    """D of the features [N, D] at this input size. Raises UserError where it does not run."""
    was_training = backbone.training
    try:
        out = backbone.eval()(torch.zeros(1, 3, px, px))
    except Exception as error:
        raise BadInput(f"the backbone does not run at {px} px: {one_line(error)}") from None
    finally:
        backbone.train(was_training)
    if out.ndim != 2:
        raise BadInput(f"the backbone gives features of shape {[*out.shape]}, not [N, D]")
    return out.shape[1]
