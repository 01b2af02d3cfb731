"""Whether the weights that results name are those that the Hub, or this package, has.

Metadata alone is asked: no weights are downloaded, unless they are so small that the Hub keeps them
beside the text files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.hub.client import gated, with_retries
from eval.hub.commits import refusal
from eval.models.names import zoo_folder
from eval.models.resolve import folder_revision
from eval.results.schema import ModelInfo, Result

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WEIGHTS = "model.safetensors"


def unlike_weights(api: HfApi, results: Mapping[str, Result]) -> str:
    """The first sentence on a result (by path) whose model is not what it says; empty for none.

    Models in folders of others, and untrained ones, are nowhere to be asked for: recomputing alone
    tells of them. Raises UserError where the Hub does not answer.
    """
    said: dict[tuple[str, str], str] = {}
    for path, result in results.items():
        model = result.model
        key = model.spec, model.weights_sha256
        if key not in said:
            said[key] = _unlike(api, model)
        if said[key]:
            return f"{path} {said[key]}"
    return ""


def _unlike(api: HfApi, model: ModelInfo) -> str:
    kind, _, name = model.spec.partition(":")
    if kind == "zoo":
        return _unlike_zoo(model, name)
    if kind != "hf-hub":
        return ""
    repo, _, sha = name.partition("@")
    there = weights_at(api, repo, sha)
    if there.startswith("has "):
        return f"is of a model that {there}"
    return _compared(model, there, f"{repo!r} at {sha[:7]}")


def _unlike_zoo(model: ModelInfo, name: str) -> str:
    folder = zoo_folder(name)
    if not (folder / "config.json").is_file():
        return f"is of {model.spec!r}, which does not ship with this version"
    if not (folder / _WEIGHTS).is_file():
        return ""  # an installation without weights
    if folder_revision(folder) != model.revision:
        return f"is of {model.spec!r} at {model.revision[:7]}, which is not the one shipped"
    return _compared(model, sha256_file(folder / _WEIGHTS), repr(model.spec))


def _compared(model: ModelInfo, there: str, where: str) -> str:
    if there == model.weights_sha256:
        return ""
    return (
        f"names weights of sha256 {model.weights_sha256[:12]} where those of {where} have "
        f"{there[:12]}"
    )


def weights_at(api: HfApi, repo: str, sha: str) -> str:
    """The sha256 of a model repository's weights at a commit, or what it lacks: ``has no ...``.

    Raises UserError where the Hub refuses or does not answer.
    """
    from huggingface_hub import RepoFile, hf_hub_download
    from huggingface_hub import errors as hub_errors

    try:
        found = with_retries(lambda: api.get_paths_info(repo, [_WEIGHTS], revision=sha))
        file = next((f for f in found if isinstance(f, RepoFile)), None)
        if file is None:
            return f"has no {_WEIGHTS} at {sha[:7]} of {repo!r}"
        if file.lfs is not None:
            return file.lfs.sha256
        path = with_retries(lambda: hf_hub_download(repo, _WEIGHTS, revision=sha))
    except hub_errors.GatedRepoError:
        raise UserError(gated(repo, "model")) from None
    except hub_errors.RepositoryNotFoundError:
        return f"has no repository {repo!r} on the Hub, or a private one"
    except (hub_errors.RevisionNotFoundError, hub_errors.HFValidationError):
        return f"has no commit {sha[:12]} in {repo!r}"
    except Exception as error:
        raise refusal(error, "model", repo) from None
    return sha256_file(Path(path))
