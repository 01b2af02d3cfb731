"""The study's objectives (Islam et al., ICCV 2021): what is pulled together, what apart.

    objective = build("ce+0.5*selfsupcon", dim=512, classes=1000)
    terms = objective(features, key_features, labels)   # {"ce": .., "selfsupcon": .., "total": ..}
    terms["total"].backward()

Shapes: N images, D backbone features, C classes, d = 128 projected dimensions, K queue slots.
A new objective is one class below, entered in `_TERMS` and in `eval.models.objectives.TERMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.models.objectives import ObjectiveName, parse_objective
from zoo.train.momentum import MomentumCopy, Queue, gather, own_rows


@dataclass(frozen=True)
class ContrastiveOptions:
    """Settings of the contrastive terms; the defaults are the study's for ImageNet."""

    temperature: float = 0.07
    queue: int = 64000  # keys
    head_depth: int = 2  # linear layers of the projection head, ReLU between them
    head_hidden: int = 0  # width between them; 0: that of the features, D
    head_dim: int = 128
    same_class_negatives_only: bool = False  # the study's intra_all='false' ablation


@dataclass(frozen=True)
class ProjectorOptions:
    """The projector before the classifier of `ce-mlp`; the defaults are t-ReX's (naver/trex)."""

    hidden_layers: int = 1
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    temperature: float = 0.1


# --------------------------------------------------------------------------- losses


def info_nce(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    temperature: float,
    negatives: Tensor | None = None,
) -> Tensor:
    """The mean over i of -log( e^{q_i.k_i/t} / (e^{q_i.k_i/t} + sum_j e^{q_i.u_j/t}) ).

    queries, keys: [N, d]; queue: [K, d]; all unit vectors. negatives: [N, K] bool, the slots that
    count for each query (None: all). Gradients flow into the queries alone. van den Oord et al.
    2018; He et al. 2020.
    """
    positive = (queries * keys).sum(1, keepdim=True)
    against = queries @ queue.t()
    if negatives is not None:
        against = against.masked_fill(~negatives, -torch.inf)
    logits = torch.cat([positive, against], 1) / temperature
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def sup_con(queries: Tensor, queue: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """The mean over i of -1/(|P(i)| + 1e-5) sum_{p in P(i)} log(e^{q_i.u_p/t} / Z_i).

    Z_i = sum_{j=1..K} e^{q_i.u_j/t}: the whole queue, positives included; the sum over positives
    stands outside the logarithm. queries: [N, d]; queue: [K, d]; unit vectors; positives: [N, K]
    bool, P(i) as rows. Khosla et al. 2020, with a labelled queue instead of in-batch pairs.
    """
    logits = queries @ queue.t() / temperature
    count = positives.sum(1)
    # sum_p (l_p - lse) = sum_p l_p - |P| lse: no [N, K] log-probabilities are formed
    chosen = (logits * positives).sum(1) - count * logits.logsumexp(1)
    return -(chosen / (count + 1e-5)).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log softmax(logits [N, C])[y] over labelled images; 0 where there are none."""
    # As a sum: a batch without any label is then 0, not 0 / 0.
    loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return loss / (labels >= 0).sum().clamp(min=1)


def same_class(labels: Tensor, queue_labels: Tensor) -> Tensor:
    """[N, K] bool: slots under the query's label. Label -1 (none) matches nothing."""
    return (labels[:, None] == queue_labels[None]) & (labels[:, None] >= 0)


# --------------------------------------------------------------------------- modules


def projection_head(dim: int, depth: int, out: int, hidden: int = 0) -> nn.Sequential:
    """Linear and ReLU, ``depth`` - 1 times, then Linear to ``out``; no batch norm.

    ``hidden`` is the width between the layers; 0 takes D.
    """
    widths = [dim, *[hidden or dim] * (depth - 1)]
    layers = [x for a, b in pairwise(widths) for x in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))


class UnitNorm(nn.Module):
    """Rows [N, d] scaled to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


def classifier_projector(dim: int, options: ProjectorOptions) -> nn.Sequential:
    """Rows to length 1; Linear, batch norm and GELU, once or more; Linear to the bottleneck.

    Weights are drawn from a truncated normal of deviation 0.02, biases begin at 0, as in t-ReX
    (Sariyildiz et al. 2023).
    """
    widths = [dim, *[options.hidden_dim] * options.hidden_layers]
    layers = [
        layer
        for a, b in pairwise(widths)
        for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.GELU())
    ]
    head = nn.Sequential(
        UnitNorm(), *layers, nn.Linear(widths[-1], options.bottleneck_dim, bias=False)
    )
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head


_VIEWS = ("weak", "strong", "two strong")  # from least to most; a sum takes the most of its terms


class Objective(nn.Module):
    """A loss with the heads it needs. ``views`` says which augmentation it is trained with.

    ``forward(features, key_features, labels)``: features [N, D] of the query view with gradient;
    key_features [N, D] of the other view from the key encoder, None unless ``contrastive``;
    labels [N] int, -1 for an image without one, or None. Returns named scalars, their weighted
    sum under ``total``.
    """

    views = "weak"  # weak | strong | two strong
    contrastive = False

    def forward(
        self, features: Tensor, key_features: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        raise NotImplementedError

    def update_key_heads(self, momentum: float) -> None:
        """Move the key heads, where there are any, towards the query heads."""

    @property
    def queue_fill(self) -> float | None:
        """The share of the queue that holds real keys; None without a queue."""
        return None

    @property
    def classifier(self) -> nn.Linear | None:
        """The classifier of the backbone's features, where the objective trains one."""
        return None


class CrossEntropy(Objective):
    """CE: the mean over i of -log softmax(W h_i + b)[y_i]; images under label -1 are left out."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, classes)

    def forward(
        self, features: Tensor, key_features: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        assert labels is not None
        loss = cross_entropy(_full(self.head(features)), labels)
        return {"ce": loss, "total": loss}

    @property
    def classifier(self) -> nn.Linear:
        return self.head


class StrongCrossEntropy(CrossEntropy):
    """CE on the contrastive objectives' augmentation: the control that tells loss from views."""

    views = "strong"


class ProjectedCrossEntropy(Objective):
    """CE-MLP: the mean over i of -log softmax(cos(w_c, g(h_i)) / t)[y_i].

    g: `classifier_projector`, dropped after training with the class vectors w_c, so that the
    backbone ends before what is specific to these classes (Wang et al., CVPR 2022: the projector
    alone makes supervised features transfer; recipe of t-ReX, Sariyildiz et al., ICLR 2023). On
    strong views, to be compared with ``ce-strong``. Images under label -1 are left out.
    """

    views = "strong"

    def __init__(self, dim: int, classes: int, options: ProjectorOptions) -> None:
        super().__init__()
        self.projector = classifier_projector(dim, options)
        self.classes = nn.Linear(options.bottleneck_dim, classes, bias=False)
        self.temperature = options.temperature

    def forward(
        self, features: Tensor, key_features: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        assert labels is not None
        projected = F.normalize(_full(self.projector(features)), dim=1)
        with _no_autocast(projected):
            cosines = projected @ F.normalize(self.classes.weight, dim=1).t()
            loss = cross_entropy(cosines / self.temperature, labels)
        return {"ce-mlp": loss, "total": loss}


class Contrastive(Objective):
    """What both contrastive objectives share: projection heads g and g', and a queue of keys.

    q = norm(g(h)), k = norm(g'(h')); the keys of all processes are enqueued.
    """

    views = "two strong"
    contrastive = True

    def __init__(self, dim: int, options: ContrastiveOptions) -> None:
        super().__init__()
        self.options = options
        self.head = projection_head(dim, options.head_depth, options.head_dim, options.head_hidden)
        self.key_head = MomentumCopy(self.head)
        self.queue = Queue(options.queue, options.head_dim)

    def update_key_heads(self, momentum: float) -> None:
        self.key_head.move_towards(self.head, momentum)

    @property
    def queue_fill(self) -> float:
        return self.queue.fill

    def project(self, features: Tensor, key_features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unit queries and keys [N, d], float32: a temperature of 0.07 is too sharp for bf16."""
        assert key_features is not None
        queries = F.normalize(_full(self.head(features)), dim=1)
        keys = F.normalize(_full(self.key_head(key_features)), dim=1)
        return queries, keys


class SelfSupCon(Contrastive):
    """SelfSupCon: InfoNCE of each query against its own key and the queue as it was before.

    L(i) = -log( e^{q_i.k_i/t} / (e^{q_i.k_i/t} + sum_{j=1..K} e^{q_i.u_j/t}) ); see `info_nce`.
    Labels are not used, so that same-class keys stay negatives, also in the joint objectives;
    ``same_class_negatives_only`` keeps only those.
    """

    term = "selfsupcon"

    def __init__(self, dim: int, options: ContrastiveOptions) -> None:
        super().__init__(dim, options)
        self._waiting: tuple[Tensor, Tensor | None] | None = None
        self.register_state_dict_pre_hook(lambda module, *_: module.enqueue_waiting())

    def forward(
        self, features: Tensor, key_features: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        self.enqueue_waiting()
        queries, keys = self.project(features, key_features)
        negatives = self.negatives(labels)
        with _no_autocast(queries):
            loss = info_nce(queries, keys, self.queue.keys, self.options.temperature, negatives)
        self._waiting = gather(keys), None if labels is None else gather(labels)
        return {self.term: loss, "total": loss}

    def negatives(self, labels: Tensor | None) -> Tensor | None:
        """[N, K] bool: the slots that count against each query; None: all."""
        if not self.options.same_class_negatives_only:
            return None
        assert labels is not None
        return same_class(labels, self.queue.labels)

    def enqueue_waiting(self) -> None:
        """Enqueue the last batch's keys.

        Not in its own forward: the backward pass still reads the queue the loss was taken
        against, and a copy of it every step would cost more than the loss. So neither this nor
        ``state_dict`` may be called between the two.
        """
        if self._waiting is not None:
            self.queue.enqueue(*self._waiting)
            self._waiting = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._waiting = None  # keys of another past
        super()._load_from_state_dict(*args, **kwargs)

    @property
    def queue_fill(self) -> float:
        self.enqueue_waiting()
        return self.queue.fill


class NegativesOnlySupCon(SelfSupCon):
    """NSCL: SelfSupCon whose negatives are other classes' keys alone.

    L(i) = -log( e^{q_i.k_i/t} / (e^{q_i.k_i/t} + sum_{j: y_j != y_i} e^{q_i.u_j/t}) ). What
    self-supervised contrast approximates, by Luthra, Yang and Galanti (NeurIPS 2025; arXiv
    2510.08852). Slots without a label count, and all do for an image without one.
    """

    term = "nscl"

    def negatives(self, labels: Tensor | None) -> Tensor | None:
        assert labels is not None
        return ~same_class(labels, self.queue.labels)


class SupCon(Contrastive):
    """SupCon against a labelled queue; the batch's keys and labels are enqueued first.

    L(i) = -1/(|P(i)| + 1e-5) sum_{p in P(i)} log( e^{q_i.u_p/t} / sum_{j=1..K} e^{q_i.u_j/t} ),
    P(i) the slots under label y_i, the query's own other view among them; see `sup_con`. An image
    without label (-1) has its own key as its only positive.
    """

    def forward(
        self, features: Tensor, key_features: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        assert labels is not None
        queries, keys = self.project(features, key_features)
        slots = self.queue.enqueue(gather(keys), gather(labels))
        positives = same_class(labels, self.queue.labels)
        positives[torch.arange(len(labels), device=labels.device), slots[own_rows(len(labels))]] = (
            True
        )
        with _no_autocast(queries):
            loss = sup_con(queries, self.queue.keys, positives, self.options.temperature)
        return {"supcon": loss, "total": loss}


class Joint(Objective):
    """A weighted sum of objectives on one backbone, each with its own heads and queue.

    total = sum_t weight_t L_t. Every term gets the same query features; the named terms are
    unweighted. CE+SelfSupCon and SupCon+SelfSupCon are the study's, other sums work alike.
    """

    def __init__(self, parts: Mapping[str, Objective], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.weights = dict(weights)
        self.contrastive = any(p.contrastive for p in parts.values())
        self.views = max((p.views for p in parts.values()), key=_VIEWS.index)

    def forward(
        self, features: Tensor, key_features: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor]:
        terms = {
            name: part(features, key_features, labels)["total"] for name, part in self.parts.items()
        }
        total = torch.stack([self.weights[name] * loss for name, loss in terms.items()]).sum()
        return {**terms, "total": total}

    def _each(self) -> list[Objective]:
        return [p for p in self.parts.values() if isinstance(p, Objective)]

    def update_key_heads(self, momentum: float) -> None:
        for part in self._each():
            part.update_key_heads(momentum)

    @property
    def queue_fill(self) -> float | None:
        fills = [f for part in self._each() if (f := part.queue_fill) is not None]
        return min(fills) if fills else None

    @property
    def classifier(self) -> nn.Linear | None:
        return next((c for part in self._each() if (c := part.classifier) is not None), None)


@dataclass(frozen=True)
class _Given:
    """What a term can be built from."""

    dim: int
    classes: int
    contrastive: ContrastiveOptions
    projector: ProjectorOptions


_TERMS: dict[str, Callable[[_Given], Objective]] = {
    "ce": lambda x: CrossEntropy(x.dim, x.classes),
    "ce-strong": lambda x: StrongCrossEntropy(x.dim, x.classes),
    "ce-mlp": lambda x: ProjectedCrossEntropy(x.dim, x.classes, x.projector),
    "supcon": lambda x: SupCon(x.dim, x.contrastive),
    "nscl": lambda x: NegativesOnlySupCon(x.dim, x.contrastive),
    "selfsupcon": lambda x: SelfSupCon(x.dim, x.contrastive),
}


def build(
    objective: str | ObjectiveName,
    dim: int,
    classes: int,
    options: ContrastiveOptions | None = None,
    weights: Mapping[str, float] | None = None,
    projector: ProjectorOptions | None = None,
) -> Objective:
    """The objective of that name for D = ``dim`` features.

    A weight written in the name (``ce+0.5*selfsupcon``) wins over ``weights`` (by term name); a
    term in neither has weight 1. Raises UserError for an unknown name (`parse_objective`).
    """
    name = parse_objective(objective) if isinstance(objective, str) else objective
    built_from = _Given(
        dim, classes, options or ContrastiveOptions(), projector or ProjectorOptions()
    )
    parts = {term: _TERMS[term](built_from) for term, _ in name.terms}
    given = {
        term: weight if weight is not None else (weights or {}).get(term, 1.0)
        for term, weight in name.terms
    }
    if len(parts) == 1 and set(given.values()) == {1.0}:
        return next(iter(parts.values()))
    return Joint(parts, given)


def _full(x: Tensor) -> Tensor:
    """Half precisions to float32; float64 stays."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)
