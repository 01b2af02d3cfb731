"""``python -m eval.analysis.evidence FINDING.json``: keep a finding as the evidence that ships.

The finding comes of ``transfer-eval run`` of the zoo and ``random:resnet18 --img-size 64`` on the
suites mini and subsets with the protocol linear, and then ``transfer-eval analyze predictors`` of
the same models on the same tasks with the same ``--results``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eval.analysis.finding import Finding, portable
from eval.common.files import write_json

PLACE = Path(__file__).with_name("evidence.json")


def main(path: str) -> None:
    finding = Finding.model_validate_json(Path(path).read_bytes())
    write_json(PLACE, portable(finding).model_dump(mode="json"))
    print(f"{len(finding.models)} models on {len(finding.tasks)} tasks: {PLACE}")


if __name__ == "__main__":
    main(*sys.argv[1:])
