"""``transfer-eval`` and ``python -m eval``: parse, call one public function, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eval.cli import analysis_commands
from eval.cli.data_commands import check_task_command, list_command, prepare_command
from eval.cli.engine_commands import status_command
from eval.cli.parser import build_parser
from eval.cli.result_commands import (
    compare_command,
    curves_command,
    export_command,
    leaderboard_command,
    merge_command,
    push_command,
    study_command,
    ties_command,
)
from eval.cli.run_commands import (
    cache_command,
    detect_command,
    plan_command,
    run_command,
    verify_command,
    worker_command,
)
from eval.common.command import dispatch

HANDLERS = {
    "run": run_command,
    "plan": plan_command,
    "status": status_command,
    "list": list_command,
    "leaderboard": leaderboard_command,
    "curves": curves_command,
    "reliability": analysis_commands.reliability_command,
    "compare": compare_command,
    "ties": ties_command,
    "study": study_command,
    "cka": analysis_commands.cka_command,
    "analyze": analysis_commands.analyze_command,
    "recommend": analysis_commands.recommend_command,
    "report": analysis_commands.report_command,
    "verify": verify_command,
    "detect": detect_command,
    "prepare": prepare_command,
    "check-task": check_task_command,
    "push": push_command,
    "merge": merge_command,
    "worker": worker_command,
    "export": export_command,
    "cache": cache_command,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 some cells failed or a result differs, 2 the user's mistake,
    3 a result is within tolerance, 130 Ctrl-C, 143 SIGTERM."""
    return dispatch(build_parser, HANDLERS, argv, "interrupted; the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
