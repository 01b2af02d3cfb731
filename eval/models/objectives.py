"""Names of objectives: what the command line, file names and boards call them. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from eval.common.errors import BadInput, NotFound, did_you_mean


@dataclass(frozen=True)
class TermFacts:
    """What is known of a single objective before it is built."""

    shown: str  # as in the paper
    needs_labels: bool
    strong: bool  # trained on the strong augmentation, alone too
    contrastive: bool  # on two views, with a key encoder and a queue
    family: str  # learning rates are tuned by family
    formula: str  # of one image; h feature, W b classifier, q k normalised projections, u queue


_CE = "-log softmax(W h + b)[y]"
_CE_MLP = "-log softmax(cos(w_c, g(h)) / t)[y]"
_SUPCON = "-1/|P| sum_{p in P} log( e^{q.u_p/t} / sum_j e^{q.u_j/t} )"
_SELFSUPCON = "-log( e^{q.k/t} / (e^{q.k/t} + sum_j e^{q.u_j/t}) )"
_NSCL = "-log( e^{q.k/t} / (e^{q.k/t} + sum_{j not of class y} e^{q.u_j/t}) )"
# In the order in which a sum names them.
TERMS = {
    "ce": TermFacts("CE", True, False, False, "classification", _CE),
    "ce-strong": TermFacts("CE (strong aug)", True, True, False, "classification", _CE),
    "ce-mlp": TermFacts("CE-MLP", True, True, False, "classification", _CE_MLP),
    "supcon": TermFacts("SupCon", True, True, True, "contrastive", _SUPCON),
    "nscl": TermFacts("NSCL", True, True, True, "contrastive", _NSCL),
    "selfsupcon": TermFacts("SelfSupCon", False, True, True, "contrastive", _SELFSUPCON),
}

# The study's five objectives and its augmentation control, in the order of its tables.
STUDY = ("ce", "ce-strong", "selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon")

# What later papers set against them: a projector before the classifier (Wang et al. 2022;
# Sariyildiz et al. 2023), and supervised contrast by its negatives alone (Luthra et al. 2025).
EXTENSIONS = ("ce-mlp", "ce-mlp+selfsupcon", "nscl")
OBJECTIVES = (*STUDY, *EXTENSIONS)

# What joining a self-supervised term changes: the comparisons the study is about.
PAIRS = (("ce+selfsupcon", "ce"), ("supcon+selfsupcon", "supcon"))
# These with their controls, and the plain terms: what pages and reports compare.
COMPARED = (
    *PAIRS,
    ("ce-strong", "ce"),
    ("ce+selfsupcon", "ce-strong"),
    ("supcon", "ce"),
    ("selfsupcon", "ce"),
)


@dataclass(frozen=True)
class ObjectiveName:
    """A parsed objective: its terms, and the weights that were written out (None: the recipe's)."""

    terms: tuple[tuple[str, float | None], ...]

    @property
    def name(self) -> str:
        """Without weights: ``ce+selfsupcon``."""
        return "+".join(term for term, _ in self.terms)

    @property
    def shown(self) -> str:
        """As in the paper: ``CE+SelfSupCon``."""
        return "+".join(TERMS[term].shown for term, _ in self.terms)

    @property
    def slug(self) -> str:
        """For file and Hub names, which take no plus sign: ``ce_selfsupcon``."""
        return self.name.replace("+", "_")

    @property
    def needs_labels(self) -> bool:
        return any(TERMS[term].needs_labels for term, _ in self.terms)

    @property
    def contrastive(self) -> bool:
        """Whether a second view, a key encoder and a queue are needed."""
        return any(TERMS[term].contrastive for term, _ in self.terms)

    @property
    def views(self) -> str:
        """What a training step sees of an image."""
        if self.contrastive:
            return "two strong"
        return "strong" if any(TERMS[term].strong for term, _ in self.terms) else "weak"

    @property
    def family(self) -> str:
        return TERMS[self.terms[0][0]].family if len(self.terms) == 1 else "joint"


def parse_objective(text: str) -> ObjectiveName:
    """``ce``, ``ce+selfsupcon``, ``ce+0.5*selfsupcon``: terms, some with weights.

    Raises UserError for an unknown or repeated term, or a weight that is not a positive number.
    """
    terms: list[tuple[str, float | None]] = []
    for part in text.lower().split("+"):
        weight, star, name = part.rpartition("*")
        name = name.strip()
        if name not in TERMS:
            raise NotFound(
                f"unknown objective {name!r}"
                + (f" in {text!r}" if name != text else "")
                + did_you_mean(
                    name,
                    dict.fromkeys((*TERMS, *OBJECTIVES)),
                    f"objectives are {', '.join(OBJECTIVES)}",
                )
            )
        if any(name == known for known, _ in terms):
            raise BadInput(f"objective {text!r} names {name!r} twice")
        terms.append((name, _weight(weight.strip(), text) if star else None))
    if len(terms) > 1 and any(name == "ce-strong" for name, _ in terms):
        raise BadInput(
            f"objective {text!r}: 'ce-strong' is the control of 'ce' alone; a joint objective "
            "takes 'ce', which sees strong views there anyway"
        )
    # One name for one objective, however it was written.
    terms.sort(key=lambda term: list(TERMS).index(term[0]))
    return ObjectiveName(tuple(terms))


def _weight(text: str, objective: str) -> float:
    # An exponent's sign would have been cut at the plus.
    value = float(text) if re.fullmatch(r"\d*\.?\d+(e-?\d+)?", text) else math.nan
    if not (0 < value < math.inf):
        raise BadInput(
            f"objective {objective!r}: weight {text!r} is not a positive number; "
            "write ce+0.5*selfsupcon"
        )
    return value
