"""The sentences of a page that stand for no single picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.models.objectives import PAIRS
from eval.models.objectives import TERMS as KNOWN
from eval.protocols import PROTOCOLS
from eval.report.blocks import Section
from eval.report.boards import short_leader
from eval.report.pairs import Pair, Row, mean_difference
from eval.results.compare import Comparison
from eval.results.leaderboard import Table, score_title
from eval.results.schema import Result

MOST = 12  # sentences of the summary
TERMS = {
    "ce": "CE is cross-entropy: a classifier of labelled images",
    "ce-strong": "CE (strong aug) is the same with the heavier augmentation of the contrastive "
    "objectives, a control",
    "supcon": "SupCon is supervised contrastive: images of one label are drawn together",
    "selfsupcon": "SelfSupCon is self-supervised contrastive: two views of one image are drawn "
    "together, without labels",
}  # fmt: skip


def in_short(
    tables: Sequence[Table], pairs: Sequence[Pair], names: dict[Row, str], found: Sequence[Section]
) -> list[str]:
    """Who is best, what the objectives change, and what the analyses found."""
    said = []
    # boards of changed settings only where there is no other
    main = [t for t in tables if not t.setting] or list(tables)
    leaders = [text for t in main if (text := short_leader(t))]
    if leaders:
        said.append(f"Best on the mean: {'; '.join(leaders[:6])}.")
    study = [p for p in pairs if p.objectives in PAIRS]
    said += [verdict(pair, names) for pair in study[:3]]
    rest = [p for p in pairs if p.objectives not in PAIRS]
    if rest:
        brief = [_brief(p, names) for p in rest[:6]]
        more = f"; {len(rest) - 6} more below" if len(rest) > 6 else ""
        scores = " and ".join(dict.fromkeys(_score(c) for p in rest for c in main_comparisons(p)))
        said.append(f"Mean differences of the other pairs in {scores}: {'; '.join(brief)}{more}.")
    for section in found[: max(0, MOST - len(said))]:
        text = section.summary or section.blocks[-1].sentence
        said.append(f"{section.title}: {text}" if text else section.title)
    return said


def verdict(pair: Pair, names: dict[Row, str]) -> str:
    """What a pair's main scores say, in words."""
    head = f"{names[pair.a]} against {names[pair.b]}"
    return f"{head}: {'; '.join(map(_said, main_comparisons(pair)))}."


def _said(comparison: Comparison) -> str:
    mean, half = mean_difference(comparison)
    won, lost, undecided = (
        [t.task for t in comparison.tasks if t.verdict == side] for side in ("A", "B", "tie")
    )
    return (
        f"in {_score(comparison)} better on {len(won)} of {len(comparison.tasks)} tasks"
        f"{_named(won)}, worse on {len(lost)}{_named(lost)}, undecided on {len(undecided)}, mean "
        f"difference {100 * mean:+.1f} ±{100 * half:.1f} points"
    )


def _score(comparison: Comparison) -> str:
    setting = f" ({comparison.setting})" if comparison.setting else ""
    return f"{comparison.protocol} {score_title(comparison.score)}{setting}"


def _named(tasks: Sequence[str], most: int = 4) -> str:
    """The few of them by name; the picture shows more."""
    return f" ({', '.join(tasks)})" if 0 < len(tasks) <= most else ""


def main_comparisons(pair: Pair) -> list[Comparison]:
    """A score of the trained or linear protocols, and 5-shot; else the first."""
    plain = [c for c in pair.comparisons if not c.setting] or list(pair.comparisons)
    whole = [c for c in plain if c.protocol != "fewshot"]
    shots = [c for c in plain if c.score == "top1_5shot"]
    linear = [c for c in whole if c.protocol == "linear"]
    return [*(linear or whole)[:1], *shots[:1]] or plain[:1]


def _brief(pair: Pair, names: dict[Row, str]) -> str:
    numbers = []
    for c in main_comparisons(pair):
        mean, half = mean_difference(c)
        numbers.append(f"{100 * mean:+.1f} ±{100 * half:.1f}")
    return f"{names[pair.a]} against {names[pair.b]} {' and '.join(numbers)}"


def glossary(results: Sequence[Result], models: Mapping[str, str]) -> list[str]:
    """The protocols and objectives on the page, in words; ``models`` are id -> objective."""
    protocols = dict.fromkeys(r.protocol.name for r in results)
    said = [f"{name}: {PROTOCOLS[name].summary}" for name in PROTOCOLS if name in protocols]
    objectives = [name for name in models.values() if set(name.split("+")) <= KNOWN.keys()]
    terms = {term for name in objectives for term in name.split("+")}
    said += [text for term, text in TERMS.items() if term in terms]
    if any("+" in name for name in objectives):
        said.append("A plus joins two objectives: their losses are added in one training")
    if any(m.startswith("random:") for m in models):
        said.append("random:ARCH is an untrained network, the floor of every board")
    return said
