"""``python -m tests.campaign [KIND ...] [--seed N] [--least N]``: a table, and exit code 1 unless
everything went as it must."""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from eval.common.text import text_table
from tests.hub import LoopbackHub

# name -> (module with `campaign`, what is counted, tries at least)
KINDS: dict[str, tuple[str, str, int]] = {
    "kills": ("tests.campaign.kills", "kills survived", 100),
    "uploads": ("tests.campaign.uploads", "kills within an upload survived", 80),
    "signals": ("tests.campaign.signals", "SIGTERM answered by 143, state saved", 33),
    "hub": ("tests.campaign.hub_faults", "Hub faults survived", 20),
    "forgeries": ("tests.campaign.forgeries", "forged results refused, or told and caught", 20),
    "engines": ("tests.campaign.engines", "kills of workers, nodes and drivers survived", 120),
    "hostile": ("tests.campaign.hostile", "hostile models refused", 20),
    "inputs": ("tests.campaign.inputs", "bad inputs answered in one sentence", 100),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--least", type=int, help="tries of each kind; default: as many as count")
    args = parser.parse_args(argv)
    rows, good = [], True
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, LoopbackHub() as hub:
        # read once, when the Hub's client is imported: here and in the processes that are started
        home = Path(folder, "home")
        os.environ |= hub.settings(home) | {"OMP_NUM_THREADS": "1"}
        for name in ("TRANSFERZOO_DATA", "TRANSFERZOO_CACHE", "HF_TOKEN", "COLUMNS"):
            os.environ.pop(name, None)
        from tests.campaign.commands import PRELOAD
        from tests.campaign.outcome import Place, open_to_ada
        from tests.children import FORKS

        FORKS.set_forkserver_preload(PRELOAD)
        open_to_ada(hub)
        for kind in args.kinds or KINDS:
            module, counted, least = KINDS[kind]
            begin = time.monotonic()
            place = Place(Path(folder, kind), hub)
            place.folder.mkdir()
            found = importlib.import_module(module).campaign(place, args.seed, args.least or least)
            for failure in found.failures:
                print(f"{kind}: {failure}", file=sys.stderr)
            minutes = f"{(time.monotonic() - begin) / 60:.1f}"
            rows.append([counted, str(found.passed), str(found.tried), minutes])
            good = good and found.equal
            print(f"{counted}: {found.passed} of {found.tried}", file=sys.stderr, flush=True)
    print(f"seed {args.seed}\n")
    print(text_table(["what", "as it must", "tried", "minutes"], rows, markdown=True))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
