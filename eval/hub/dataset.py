"""A data set of the Hub at one commit, through ``datasets``, and at no other commit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, Refused, Unreachable, one_line
from eval.hub import client


def load_at(repo: str, config: str | None, sha: str, split: str | None = None) -> Any:
    """The table of a split (a sum such as train+test is one), or all splits by name.

    What was read once needs no network again. Raises UserError where the data set is gone, gated,
    or not in the cache while the Hub is out of reach.
    """
    what = f"data set {repo!r}"
    try:
        builder = _builder(repo, config, sha)
        if builder is not None:
            client.with_retries(builder.download_and_prepare)
            return builder.as_dataset(split)
    except Exception as error:
        if "gated" in str(error):  # its cause is not handed on
            raise Refused(client.gated(repo, what)) from None
        if "cannot be accessed" in str(error) or "NotFound" in type(error).__name__:
            client.pin(repo, None, "dataset", what)  # says why
        raise BadInput(f"{what} does not load: {one_line(error)}") from None
    raise Unreachable(
        f"{what}: the Hub cannot be reached and commit {sha[:12]} is not in the local cache"
    )


def split_names(repo: str, config: str | None, sha: str) -> tuple[str, ...]:
    """The splits that it has; () where that cannot be found out without loading it."""
    try:
        builder = _builder(repo, config, sha)
        files = builder.config.data_files if builder is not None else None
        return tuple(map(str, files or builder.info.splits or ()))
    except Exception:  # what is wrong is said when it is loaded
        return ()


def _builder(repo: str, config: str | None, sha: str) -> Any:
    from datasets import load_dataset_builder
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import HfApi, constants

    reached = False
    if not constants.HF_HUB_OFFLINE:
        try:  # datasets does not wait for a busy Hub: it takes what it has
            client.with_retries(lambda: HfApi().dataset_info(repo, revision=sha, timeout=30))
            reached = True
        except Exception as error:
            reached = getattr(error, "response", None) is not None  # it answered, if only with no
    with contextlib.nullcontext() if reached else _offline():
        builder = load_dataset_builder(repo, config, revision=sha)
    if builder.hash == sha:
        return builder
    # Without the Hub it takes the latest commit of its cache, whichever was asked for.
    cached = Cache(
        dataset_name=builder.dataset_name, repo_id=repo, config_name=builder.config.name,
        version=str(builder.config.version), hash=sha,
    )  # fmt: skip
    return cached if Path(cached.cache_dir).is_dir() else None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let the client ask nobody: without a network it tries for half a minute before the cache."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
