"""Whether the weights that results name are those that the Hub, or this package, has.

Metadata alone is asked: no weights are downloaded, unless they are so small that the Hub keeps them
beside the text files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.hub.client import fetch, gated, with_retries
from eval.hub.commits import refusal
from eval.models.names import split_architecture, zoo_folder
from eval.models.resolve import folder_revision, timm_repo
from eval.models.weight_files import INDEX, WEIGHTS, combined, weight_names
from eval.results.schema import ModelInfo, Result

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling


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
    repo, _, sha = split_architecture(name)[0].partition("@")
    there = weights_at(api, repo, sha)
    if there.startswith("has "):
        return f"is of a model that {there}"
    if ":" not in model.id and (why := _unlike_timm(api, model.id, repo)):
        return why
    return _compared(model, there, f"{repo!r} at {sha[:7]}")


def _unlike_timm(api: HfApi, name: str, repo: str) -> str:
    """Why a repository's weights are not timm's of that name."""
    from huggingface_hub import errors as hub_errors

    try:
        theirs = timm_repo(name)
        if theirs == repo or with_retries(lambda: api.model_info(theirs).id) == repo:  # renamed
            return ""
    except UserError as error:
        return f"is called {name!r}, which is no name of timm's ({error})"
    except hub_errors.RepositoryNotFoundError:
        pass
    except Exception as error:
        raise refusal(error, "model", theirs) from None
    return f"is called {name!r}, which is of {theirs!r}, but its weights are of {repo!r}"


def _unlike_zoo(model: ModelInfo, name: str) -> str:
    folder = zoo_folder(name)
    if not (folder / "config.json").is_file():
        return f"is of {model.spec!r}, which does not ship with this version"
    if not (folder / WEIGHTS).is_file():
        return ""  # an installation without weights
    if folder_revision(folder) != model.revision:
        return f"is of {model.spec!r} at {model.revision[:7]}, which is not the one shipped"
    return _compared(model, sha256_file(folder / WEIGHTS), repr(model.spec))


def _compared(model: ModelInfo, there: str, where: str) -> str:
    if there == model.weights_sha256:
        return ""
    return (
        f"names weights of sha256 {model.weights_sha256[:12]} where those of {where} have "
        f"{there[:12]}"
    )


def weights_at(api: HfApi, repo: str, sha: str) -> str:
    """The sha256 of a model repository's weights at a commit (of several files `combined`), or what
    it lacks: ``has no ...``.

    Raises UserError where the Hub refuses or does not answer.
    """
    from huggingface_hub import errors as hub_errors

    try:
        held = _digests(api, repo, sha, (WEIGHTS, INDEX))
        if WEIGHTS in held:
            return held[WEIGHTS]
        if INDEX not in held:
            return f"has no {WEIGHTS} at {sha[:7]} of {repo!r}"
        index = fetch(repo, sha, (INDEX,), f"model {repo!r}") / INDEX
        files = {f.rfilename for f in _files(api, repo, sha)}
        names = weight_names(files, f"model repository {repo!r}", lambda: index)
        return combined(_digests(api, repo, sha, names))
    except hub_errors.GatedRepoError:
        raise UserError(gated(repo, "model")) from None
    except hub_errors.RepositoryNotFoundError:
        return f"has no repository {repo!r} on the Hub, or a private one"
    except (hub_errors.RevisionNotFoundError, hub_errors.HFValidationError):
        return f"has no commit {sha[:12]} in {repo!r}"
    except UserError:
        raise
    except Exception as error:
        raise refusal(error, "model", repo) from None


def _files(api: HfApi, repo: str, sha: str) -> Sequence[RepoSibling]:
    return with_retries(lambda: api.model_info(repo, revision=sha)).siblings or ()


def _digests(api: HfApi, repo: str, sha: str, names: Sequence[str]) -> dict[str, str]:
    """sha256 by name, of those files that are there."""
    from huggingface_hub import RepoFile

    found = with_retries(lambda: api.get_paths_info(repo, list(names), revision=sha))
    return {
        file.path: file.lfs.sha256 if file.lfs is not None else _of_small(repo, sha, file.path)
        for file in found
        if isinstance(file, RepoFile)
    }


def _of_small(repo: str, sha: str, name: str) -> str:
    """sha256 of a file that the Hub keeps beside the text files."""
    from huggingface_hub import hf_hub_download

    return sha256_file(Path(with_retries(lambda: hf_hub_download(repo, name, revision=sha))))
