"""Libraries that come with an extra of the package: one sentence where they are missing.

Scoring needs none of them, so a plain install has neither a plotting library nor a web server.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from eval.common.errors import UserError

Extra = Literal[
    "space", "plots", "trackio", "wandb", "tensorboard", "lightning", "transformers", "s3", "ray",
    "slurm",
]  # fmt: skip

# The same as in pyproject.toml: a test holds the two together.
LIBRARIES: dict[Extra, tuple[str, ...]] = {
    "space": ("gradio", "plotly", "pandas"),
    "plots": ("matplotlib",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "lightning": ("lightning",),
    "transformers": ("transformers",),
    "s3": ("s3fs",),
    "ray": ("ray",),
    "slurm": ("submitit",),
}


def require(extra: Extra, purpose: str) -> None:
    """Raises UserError where a library of the extra is not installed; imports none of them.

    ``purpose`` begins the sentence: who needs the library. Ask before the work begins, not after
    an hour of it.
    """
    missing = [name for name in LIBRARIES[extra] if find_spec(name) is None]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise UserError(
            f"{purpose} needs {' and '.join(missing)}, which {verb} not installed; "
            f"run `pip install 'transferzoo[{extra}]'`"
        )
