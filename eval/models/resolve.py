"""Model string -> identity -> backbone.

Three steps, each needing more than the one before: ``parse_model`` is pure, ``resolve`` pins what
the string means (a commit, a weight hash) without importing torch, ``load`` builds the network.
So a run whose results exist never pays for the third.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean
from eval.common.files import write_json
from eval.hub import client
from eval.models.formats import FROM_PYTHON, ModelFiles, format_of
from eval.models.names import (
    _FORMS,
    ZOO_ORG,
    Kind,
    ModelName,
    parse_model,
    step_of,
    under_architecture,
    zoo_folder,
    zoo_names,
)
from eval.models.plugs import source
from eval.models.timm_config import read_json
from eval.models.weight_files import (
    CONFIG,
    INDEX,
    OPEN_CLIP,
    WEIGHTS,
    check_files,
    folder_files,
    is_open_clip,
    local_names,
    weight_names,
    weights_sha256,
)


@dataclass(frozen=True)
class ResolvedModel:
    """A model string that now means one thing: the same weights tomorrow and on another machine.

    ``spec`` reproduces it, ``id`` names it on the board, ``revision`` is a commit sha (Hub; with
    ``architecture`` a hash of both), a content hash (folder) or the seed (random).
    """

    kind: Kind
    name: str
    spec: str
    id: str
    revision: str
    folder: Path | None = None  # where config.json and model.safetensors lie, for local and zoo
    repo: str | None = None  # the Hub repository, for hub and timm
    commit: str | None = None  # of that repository
    architecture: str | None = None  # timm's name of the network, where config.json has another
    img_size: int | None = None
    weights: tuple[str, ...] = (WEIGHTS,)  # names of the safetensors files
    config: str = CONFIG
    beside: tuple[str, ...] = ()  # names of further files that say what the model is
    format: str = "timm"  # whose network it is; of others, only features are known
    step: int | None = None  # of the training that it is a checkpoint of
    # What these hash to, by name, where the Hub was asked.
    hub_sha256: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def resolve(text: str, cache: Path, img_size: int | None = None) -> ResolvedModel:
    """Pin a model string. Reads the Hub's metadata or hashes a folder; never imports torch
    except the first time a timm architecture is named (its registry is memoised in ``cache``).

    Raises UserError for everything that can be known to fail before weights are loaded.
    """
    parsed = parse_model(text)
    if parsed.kind == "source":
        return source(text).resolve(text, cache, img_size)
    if parsed.kind == "random":
        _timm_facts(parsed.name, cache, weights=False)
        seed = int(parsed.revision or 0)
        shown = f"random:{parsed.name}" + (f"@{seed}" if seed else "")
        return ResolvedModel("random", parsed.name, shown, shown, f"seed{seed}", img_size=img_size)
    if parsed.kind == "zoo":
        folder = zoo_folder(parsed.name)
        if parsed.revision is None and (folder / "config.json").is_file():
            return _resolve_folder(folder, "zoo", f"zoo:{parsed.name}", parsed.name, img_size)
        return _resolve_zoo_on_hub(parsed, img_size)
    if parsed.kind == "local":
        folder = Path(parsed.name).expanduser()
        whole = folder.resolve()
        found = _resolve_folder(folder, "local", f"local-dir:{whole}", whole.name, img_size)
        step = step_of(whole)
        if step is None:
            return found
        # Checkpoints of one run are a series under its name, as readings during it are.
        return replace(found, id=f"local-dir:{whole.parent.name}@{step}", step=step)
    if parsed.kind == "timm":
        repo = _timm_facts(parsed.name, cache, weights=True)["repo"]
        architecture = parsed.name.partition(".")[0]
        pinned = _resolve_repo(repo, None, f"timm name {parsed.name!r}", img_size, architecture)
        return replace(pinned, kind="timm", name=parsed.name, id=parsed.name)
    if parsed.architecture is not None:
        _timm_facts(parsed.architecture, cache, weights=False)
    return _resolve_repo(
        parsed.name, parsed.revision, f"model {text!r}", img_size, parsed.architecture
    )


def _resolve_zoo_on_hub(parsed: ModelName, img_size: int | None) -> ResolvedModel:
    try:
        return _resolve_repo(
            f"{ZOO_ORG}/{parsed.name}", parsed.revision, f"model 'zoo:{parsed.name}'", img_size
        )
    except UserError as error:
        names = zoo_names()
        shipped = f"there are {', '.join(names)}" if names else "none ships with this version"
        raise NotFound(
            f"zoo model {parsed.name!r} does not ship here"
            + did_you_mean(parsed.name, names, shipped)
            + f" ({error})"
        ) from None


def _resolve_folder(
    folder: Path, kind: Kind, spec: str, name: str, img_size: int | None
) -> ResolvedModel:
    if not folder.is_dir():
        raise NotFound(f"model folder {str(folder)!r} does not exist or is not a directory")
    found = _check_files(
        folder_files(folder), f"folder {str(folder)!r}", lambda name: folder / name
    )
    shown = spec if kind == "zoo" else f"local-dir:{name}"
    return ResolvedModel(
        kind, name, spec, shown, _content_revision(folder, found), folder=folder,
        img_size=img_size, weights=found.weights, config=found.config, beside=found.beside,
        format=found.format,
    )  # fmt: skip


@dataclass(frozen=True)
class _Names:
    """Which files of a place are the model."""

    config: str
    weights: tuple[str, ...]
    beside: tuple[str, ...] = ()
    format: str = "timm"
    architecture: str = ""  # as config.json of timm's has it


def folder_revision(folder: Path) -> str:
    """What stands for a commit where there is none: a hash of config.json and the weights."""
    return _content_revision(folder, _Names(CONFIG, local_names(folder)))


def _content_revision(folder: Path, names: _Names) -> str:
    digest = hashlib.sha256((folder / names.config).read_bytes())
    for name in names.beside:
        digest.update((folder / name).read_bytes())
    digest.update(weights_sha256(folder, names.weights).encode())
    return digest.hexdigest()[:40]


def _check_files(
    files: Set[str], where: str, path: Callable[[str], Path], *, complete: bool = True
) -> _Names:
    """The files of the model, in a place whose config.json is of a format that is read.

    ``path`` gives a file of the place on this machine; ``complete``: there are no others.
    """
    own = OPEN_CLIP if is_open_clip(files) else None
    if own is None:
        check_files(files, where, f"; {FROM_PYTHON}")
    name = own[0] if own else CONFIG
    config = read_json(path(name).read_bytes(), where)
    kind = format_of(config, where)
    kind.loader().check(config, where)
    weights = (own[1],) if own else weight_names(files, where, lambda: path(INDEX))
    beside = [n for n in kind.beside if n in files]
    if not complete:
        for other in set(kind.beside) - files:
            with contextlib.suppress(UserError):
                path(other)
                beside.append(other)
    if kind.beside and not beside:
        raise NotFound(
            f"{where} has no {kind.beside[0]}, so how its images are prepared is unknown; save its "
            "AutoImageProcessor into the folder"
        )
    architecture = config["architecture"] if kind.name == "timm" else ""
    return _Names(name, weights, tuple(sorted(beside)), kind.name, architecture)


def _read(model: ResolvedModel, *more: str) -> ModelFiles:
    folder = model.folder or client.fetch(
        str(model.repo), str(model.commit), (model.config, *model.beside, *more),
        f"model {model.id!r}",
    )  # fmt: skip
    config, *beside = (
        read_json((folder / name).read_bytes(), model.id) for name in (model.config, *model.beside)
    )
    notes: tuple[str, ...] = ()
    if model.architecture is not None:
        notes = (
            f"the network is timm's {model.architecture}, as was asked for; config.json of "
            f"{model.repo} names {config['architecture']!r}",
        )
        config |= {"architecture": model.architecture}
    return ModelFiles(
        folder, config, model.weights, model.id, model.img_size,
        dict(zip(model.beside, beside, strict=True)), notes,
    )  # fmt: skip


def model_files(model: ResolvedModel) -> ModelFiles:
    """The files of a model that has any, downloaded where they are not here yet."""
    return _read(model, *model.weights)


def model_config(model: ResolvedModel) -> ModelFiles:
    """What a model's files say it is, its weights not downloaded."""
    return _read(model)


def _resolve_repo(
    repo: str,
    revision: str | None,
    subject: str,
    img_size: int | None,
    architecture: str | None = None,
) -> ResolvedModel:
    """Pin a Hub repository to a commit and check that it can be loaded safely. ``architecture`` is
    the timm network that its weights are wanted in; None: as config.json has it."""
    pinned = client.pin(
        repo, revision, "model", subject, (CONFIG, WEIGHTS), (CONFIG, INDEX), OPEN_CLIP
    )
    now, where = pinned.repo, f"Hub repository {pinned.repo!r}"

    def path(name: str) -> Path:
        return client.fetch(now, pinned.sha, (name,), subject) / name

    files = pinned.files
    if files is None:  # nobody was asked: what the cache has of the commit
        files = folder_files(client.cached_folder(now, pinned.sha))
    names = _check_files(files, where, path, complete=pinned.files is not None)
    client.remember(now, revision, pinned.sha)
    said = tuple((name, pinned.sha256[name]) for name in names.weights if name in pinned.sha256)
    found = ResolvedModel(
        "hub", now, f"hf-hub:{now}@{pinned.sha}", f"hf-hub:{now}", pinned.sha, repo=now,
        commit=pinned.sha, img_size=img_size, weights=names.weights, config=names.config,
        beside=names.beside, format=names.format, hub_sha256=said,
    )  # fmt: skip
    if architecture in (None, names.architecture):
        return found
    if names.format != "timm":
        raise BadInput(
            f"{subject}: {where} holds a network of {names.format}'s, which is not timm's "
            f"{architecture!r}; use 'hf-hub:{now}' for the one that it holds"
        )
    asked = f"?arch={architecture}"
    return replace(
        found, spec=found.spec + asked, id=found.id + asked, architecture=architecture,
        revision=under_architecture(pinned.sha, architecture),
    )  # fmt: skip


def _timm_facts(name: str, cache: Path, *, weights: bool) -> dict[str, str]:
    """The Hub repository of a timm name's weights ('' without any), memoised per timm version.

    Raises UserError for an unknown name, or one without weights where ``weights`` are needed.
    """
    memo_file = cache / "models" / f"timm-{_timm_version()}.json"
    memo: dict[str, dict[str, str]] = {}
    if memo_file.is_file():
        try:
            memo = json.loads(memo_file.read_text())
        except ValueError:
            memo = {}  # a damaged memo is rebuilt
    if name not in memo:
        memo[name] = _ask_timm(name)
        # A memo is a convenience: a read-only cache is reported by who must write there.
        with contextlib.suppress(OSError):
            write_json(memo_file, memo)
    if weights and not memo[name]["repo"]:
        tags = memo[name]["tags"].split()
        raise NotFound(
            f"timm has no Hub weights for {name!r}; use 'random:{name}' for the untrained one"
            + did_you_mean(name, tags, f"timm also has {tags[0]!r}" if tags else "")
        )
    return memo[name]


@lru_cache(maxsize=1)
def _timm_version() -> str:
    """Read from a file of the installation: once, not for each of a thousand models."""
    from importlib.metadata import version

    return version("timm")


def timm_repo(name: str) -> str:
    """The Hub repository of a timm name's weights. Imports torch. Raises UserError for a name that
    timm has not, or has no weights of."""
    found = _ask_timm(name)["repo"]
    if not found:
        raise NotFound(f"timm has no Hub weights for {name!r}")
    return found


def _ask_timm(name: str) -> dict[str, str]:
    import timm

    arch = name.partition(".")[0]
    if not timm.is_model(arch):
        if name in zoo_names():
            raise NotFound(f"timm has no model {name!r}; did you mean 'zoo:{name}'?")
        raise NotFound(
            f"unknown model {name!r}"
            + did_you_mean(arch, timm.list_models(), "see timm.list_models(), or use " + _FORMS)
        )
    tags = timm.list_pretrained(f"{arch}.*")
    if renamed := timm.models.get_deprecated_models().get(name):
        tags = [renamed]
    if "." in name and name not in tags:
        raise NotFound(f"timm knows {arch!r} but not {name!r}" + did_you_mean(name, tags))
    config = timm.get_pretrained_cfg(name)
    repo = ""
    if config is not None and config.hf_hub_id:
        repo = config.hf_hub_id
        if repo.endswith("/"):
            full = name if "." in name else f"{arch}.{config.tag}" if config.tag else name
            repo += full
    return {"repo": repo, "tags": " ".join(tags[:20])}


def stage_facts(net: object) -> list[dict[str, Any]]:
    """What timm tells of a network's stages or blocks, first to last; empty where it names none."""
    found = getattr(net, "feature_info", None)
    return list(getattr(found, "info", found) or [])
