"""Transfer evaluation: score any vision backbone on real image data.

    import eval

    results = eval.evaluate("zoo:all", "digits", protocols=["linear"])
    mine = eval.backbone(net, transform, name="mine")      # any nn.Module of yours
    results += eval.evaluate(mine, "digits", protocols=["linear"])
    results.to_frame()                                     # or print(results): the boards

The names below are imported on first use. Importing the package imports neither torch nor timm, so
that ``transfer-eval --help`` and a run that finds everything done answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.api import evaluate, leaderboard, load_model, load_task, read_results, ties
    from eval.common.errors import UserError
    from eval.models.in_memory import backbone
    from eval.probe.training_probe import TrainingProbe
    from eval.results.compare import compare
    from eval.run.execute import execute
    from eval.run.plan import Request, plan

    __version__: str

__all__ = [
    "Request",
    "TrainingProbe",
    "UserError",
    "__version__",
    "backbone",
    "compare",
    "evaluate",
    "execute",
    "leaderboard",
    "load_model",
    "load_task",
    "plan",
    "read_results",
    "ties",
]

_MODULES = {  # where each name is made
    "Request": "eval.run.plan",
    "TrainingProbe": "eval.probe.training_probe",
    "UserError": "eval.common.errors",
    "backbone": "eval.models.in_memory",
    "compare": "eval.results.compare",
    "evaluate": "eval.api",
    "execute": "eval.run.execute",
    "leaderboard": "eval.api",
    "load_model": "eval.api",
    "load_task": "eval.api",
    "plan": "eval.run.plan",
    "read_results": "eval.api",
    "ties": "eval.api",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for the first time, and keep it."""
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The installed distribution's version; "unknown" where the packages lie beside a script, as in
    a private Space."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("transferzoo")
    except PackageNotFoundError:
        return "unknown"
