"""Model string -> identity -> backbone.

Three steps, each needing more than the one before: ``parse_model`` is pure, ``resolve`` pins what
the string means (a commit, a weight hash) without importing torch, ``load`` builds the network.
So a run whose results exist never pays for the third.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.common.errors import UserError, did_you_mean, one_line
from eval.common.files import sha256_file, write_json
from eval.common.text import slug
from eval.hub import client
from zoo.names import OBJECTIVES

if TYPE_CHECKING:
    import torch
    from PIL import Image

Kind = Literal["hub", "local", "zoo", "timm", "random"]

ZOO_ORG = "transferzoo"
# Beside the packages in a checkout; an installed package is told where its checkpoints lie.
ZOO_FOLDER = Path(
    os.environ.get("TRANSFERZOO_ZOO") or Path(__file__).resolve().parent.parent / "model_cards"
)
_PREFIXES: dict[str, Kind] = {
    "hf-hub": "hub",
    "hf_hub": "hub",  # timm's older spelling
    "local-dir": "local",
    "zoo": "zoo",
    "random": "random",
}
_FORMS = "hf-hub:org/name[@rev], local-dir:PATH, zoo:NAME, random:ARCH or a timm name"
_MODEL_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class ModelName:
    """A parsed model string. ``revision`` is what stood behind ``@``, not yet resolved."""

    kind: Kind
    name: str
    revision: str | None = None


@dataclass(frozen=True)
class ResolvedModel:
    """A model string that now means one thing: the same weights tomorrow and on another machine.

    ``spec`` reproduces it, ``id`` names it on the board, ``revision`` is a commit sha (Hub), a
    content hash (folder) or the seed (random).
    """

    kind: Kind
    name: str
    spec: str
    id: str
    revision: str
    folder: Path | None = None  # where config.json and model.safetensors lie, for local and zoo
    repo: str | None = None  # the Hub repository, for hub and timm
    img_size: int | None = None

    @property
    def slug(self) -> str:
        """The model's folder under the results directory."""
        size = f"@{self.img_size}px" if self.img_size else ""
        return slug(self.id.partition("@")[0]) + size


@dataclass(frozen=True)
class Backbone:
    """A network ready to encode: ``net`` maps normalised [B, 3, H, W] float32 to [B, dim].

    ``transform`` stops at 8-bit pixels: normalising a whole batch on the device is cheaper, and
    a quarter of the bytes travel there.
    """

    resolved: ResolvedModel
    net: torch.nn.Module
    transform: Callable[[Image.Image], Any]  # RGB image -> [3, H, W] uint8, array or tensor
    input_config: dict[str, Any]  # timm's data config: input_size, mean, std, crop, interpolation
    dim: int
    params: int
    weights_sha256: str
    layer: str = "pooled"  # which features ``net`` gives: part of a bank's key


def parse_model(text: str) -> ModelName:
    """Split a model string into kind, name and revision.

    Raises UserError when the string is empty, its prefix is unknown, or it looks like a path or a
    repository without a prefix: guessing there would silently score other weights.
    """
    if not text or text != text.strip():
        raise UserError(f"model {text!r} is empty or has spaces round it; use {_FORMS}")
    prefix, colon, rest = text.partition(":")
    if not colon or len(prefix) == 1:  # one letter is a Windows drive
        if any(c in text for c in "/\\:"):
            raise UserError(
                f"model {text!r} has no prefix; use 'hf-hub:{text}' for the Hub "
                f"or 'local-dir:{text}' for a folder"
            )
        if "@" in text:
            raise UserError(
                f"model {text!r} is a timm name, which takes no @revision; use 'hf-hub:timm/{text}'"
            )
        return ModelName("timm", text)
    kind = _PREFIXES.get(prefix.lower())
    if kind is None:
        raise UserError(
            f"model {text!r} has an unknown prefix {prefix!r}"
            + did_you_mean(prefix.lower(), _PREFIXES, f"use {_FORMS}")
        )
    if not rest:
        raise UserError(f"model {text!r} has nothing behind the prefix; use {_FORMS}")
    if kind == "local":
        return ModelName(kind, rest)  # a path may hold '@'
    name, at, revision = rest.partition("@")
    if at and not revision:
        raise UserError(f"model {text!r} ends in '@' without a revision")
    if not name:
        raise UserError(f"model {text!r} has no name before '@'; use {_FORMS}")
    if ".." in revision or revision.startswith("/"):  # it becomes part of a path in the cache
        raise UserError(f"model {text!r}: no revision has '..' in its name or begins with '/'")
    if kind == "hub" and (not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name):
        raise UserError(f"model {text!r} names no Hub repository; use hf-hub:org/name[@rev]")
    if kind == "zoo" and not re.fullmatch(r"[\w.+-]+", name):
        raise UserError(f"model {text!r} names no zoo model; use zoo:NAME, see list models")
    if kind == "random" and revision and not re.fullmatch(r"\d{1,18}", revision):
        raise UserError(
            f"model {text!r}: the seed behind '@' must be a number of at most 18 digits, "
            f"got {revision!r}"
        )
    return ModelName(kind, name, revision or None)


def zoo_names() -> list[str]:
    """Checkpoints that ship with this repository, in the order of the study's objectives."""
    return sorted((p.parent.name for p in ZOO_FOLDER.glob("*/config.json")), key=study_order)


def study_order(name: str) -> tuple[str, int, str]:
    """Sorts checkpoint names: by backbone, then as the study's tables order the objectives."""
    backbone, _, tag = name.partition(".")
    slugs = [text.replace("+", "_") for text in OBJECTIVES]
    fits = [i for i, slug in enumerate(slugs) if tag.startswith(f"{slug}_")]
    return backbone, max(fits, key=lambda i: len(slugs[i]), default=len(slugs)), tag


def expand(text: str) -> list[str]:
    """``zoo:all`` as the strings of all shipped checkpoints; anything else as it is."""
    return [f"zoo:{name}" for name in zoo_names()] if text == "zoo:all" else [text]


def resolve(text: str, cache: Path, img_size: int | None = None) -> ResolvedModel:
    """Pin a model string. Reads the Hub's metadata or hashes a folder; never imports torch
    except the first time a timm architecture is named (its registry is memoised in ``cache``).

    Raises UserError for everything that can be known to fail before weights are loaded.
    """
    parsed = parse_model(text)
    if parsed.kind == "random":
        _timm_facts(parsed.name, cache, weights=False)
        seed = int(parsed.revision or 0)
        shown = f"random:{parsed.name}" + (f"@{seed}" if seed else "")
        return ResolvedModel("random", parsed.name, shown, shown, f"seed{seed}", img_size=img_size)
    if parsed.kind == "zoo":
        folder = ZOO_FOLDER / parsed.name
        if parsed.revision is None and (folder / "config.json").is_file():
            return _resolve_folder(folder, "zoo", f"zoo:{parsed.name}", parsed.name, img_size)
        return _resolve_zoo_on_hub(parsed, img_size)
    if parsed.kind == "local":
        folder = Path(parsed.name).expanduser()
        spec = f"local-dir:{folder.resolve()}"
        return _resolve_folder(folder, "local", spec, folder.resolve().name, img_size)
    if parsed.kind == "timm":
        repo = _timm_facts(parsed.name, cache, weights=True)["repo"]
        pinned = _resolve_repo(repo, None, f"timm name {parsed.name!r}", img_size)
        return ResolvedModel(
            "timm", parsed.name, pinned.spec, parsed.name, pinned.revision, repo=pinned.repo,
            img_size=img_size,
        )  # fmt: skip
    return _resolve_repo(parsed.name, parsed.revision, f"model {text!r}", img_size)


def _resolve_zoo_on_hub(parsed: ModelName, img_size: int | None) -> ResolvedModel:
    try:
        return _resolve_repo(
            f"{ZOO_ORG}/{parsed.name}", parsed.revision, f"model 'zoo:{parsed.name}'", img_size
        )
    except UserError as error:
        names = zoo_names()
        shipped = f"shipped are {', '.join(names)}" if names else "none ships with this version"
        raise UserError(
            f"zoo model {parsed.name!r} is not in {ZOO_FOLDER} ({shipped}); {error}"
            + did_you_mean(parsed.name, names)
        ) from None


def _resolve_folder(
    folder: Path, kind: Kind, spec: str, name: str, img_size: int | None
) -> ResolvedModel:
    if not folder.is_dir():
        raise UserError(f"model folder {str(folder)!r} does not exist or is no directory")
    files = {p.name for p in folder.iterdir()}
    _check_model_files(files, f"folder {str(folder)!r}", lambda: folder / "config.json")
    shown = spec if kind == "zoo" else f"local-dir:{name}"
    return ResolvedModel(
        kind, name, spec, shown, folder_revision(folder), folder=folder, img_size=img_size
    )


def folder_revision(folder: Path) -> str:
    """What stands for a commit where there is none: a hash of config.json and the weights."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    digest.update(sha256_file(folder / "model.safetensors").encode())
    return digest.hexdigest()[:40]


def _check_model_files(files: Set[str], where: str, config_path: Callable[[], Path]) -> bytes:
    """The bytes of a config.json that is timm's, in a place that has safetensors weights."""
    if "model.safetensors" not in files:
        pickles = sorted(f for f in files if f.endswith((".bin", ".pth", ".pt", ".ckpt", ".pkl")))
        if pickles:
            raise UserError(
                f"{where} offers only pickled weights ({', '.join(pickles[:3])}), which can run "
                "code when loaded; model.safetensors is needed"
            )
        raise UserError(f"{where} has no model.safetensors")
    if "config.json" not in files:
        raise UserError(f"{where} has no config.json, so its architecture is unknown")
    raw = config_path().read_bytes()
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError):
        raise UserError(f"config.json of {where} is no JSON") from None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        kind = config.get("model_type") if isinstance(config, dict) else None
        seen = f" (it is of model_type {kind[:40]!r})" if isinstance(kind, str) else ""
        raise UserError(
            f"config.json of {where} is not timm's{seen}: it has no 'architecture' name"
        )
    if not isinstance(config.get("pretrained_cfg", {}), dict):
        raise UserError(f"config.json of {where} is not timm's: 'pretrained_cfg' is no object")
    return raw


def _resolve_repo(
    repo: str, revision: str | None, what: str, img_size: int | None
) -> ResolvedModel:
    """Pin a Hub repository to a commit and check that timm can load it safely."""
    pinned = client.pin(repo, revision, "model", what, _MODEL_FILES)
    now = pinned.repo
    _check_model_files(
        frozenset(_MODEL_FILES) if pinned.files is None else pinned.files,
        f"Hub repository {now!r}",
        lambda: client.fetch(now, pinned.sha, ("config.json",), what) / "config.json",
    )
    client.remember(now, revision, pinned.sha)
    return ResolvedModel(
        "hub", now, f"hf-hub:{now}@{pinned.sha}", f"hf-hub:{now}", pinned.sha, repo=now,
        img_size=img_size,
    )  # fmt: skip


def _timm_facts(name: str, cache: Path, *, weights: bool) -> dict[str, str]:
    """The Hub repository of a timm name's weights ('' without any), memoised per timm version.

    Raises UserError for an unknown name, or one without weights where ``weights`` are needed.
    """
    from importlib.metadata import version

    memo_file = cache / "models" / f"timm-{version('timm')}.json"
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
        raise UserError(
            f"timm has no Hub weights for {name!r}; use 'random:{name}' for the untrained one"
            + did_you_mean(name, memo[name]["tags"].split())
        )
    return memo[name]


def _ask_timm(name: str) -> dict[str, str]:
    import timm

    arch = name.partition(".")[0]
    if not timm.is_model(arch):
        raise UserError(
            f"unknown model {name!r}"
            + did_you_mean(arch, timm.list_models(), "see timm.list_models(), or use " + _FORMS)
        )
    tags = timm.list_pretrained(f"{arch}.*")
    if "." in name and name not in tags:
        raise UserError(f"timm knows {arch!r} but not {name!r}" + did_you_mean(name, tags))
    config = timm.get_pretrained_cfg(name)
    repo = ""
    if config is not None and config.hf_hub_id:
        repo = config.hf_hub_id
        if repo.endswith("/"):
            full = name if "." in name else f"{arch}.{config.tag}" if config.tag else name
            repo += full
    return {"repo": repo, "tags": " ".join(tags[:20])}


def load(model: ResolvedModel) -> Backbone:
    """Build the network in eval mode on the CPU, its classifier removed.

    Weights are loaded strictly with the classifier in place and it is dropped afterwards: timm
    loads loosely when the head differs, and a backbone with missing weights must not score.
    Raises UserError when the weights do not fit the architecture.
    """
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    from eval.pooling import PooledFeatures

    kwargs: dict[str, Any] = {}
    if model.kind == "random":
        config = timm.get_pretrained_cfg(model.name)
        if model.img_size and config is not None and config.fixed_input_size:
            kwargs["img_size"] = model.img_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(model.revision.removeprefix("seed")))
            try:
                net = timm.create_model(model.name, pretrained=False, **kwargs)
            except Exception as error:
                at = f" at {model.img_size} px" if model.img_size else ""
                raise UserError(f"{model.id} cannot be built{at}: {one_line(error)}") from None
        drop_classifier(net)
        weights_sha256 = _state_sha256(net)
    else:
        folder = model.folder or client.fetch(
            str(model.repo), model.revision, _MODEL_FILES, f"model {model.id!r}"
        )
        if model.img_size and _wants_img_size(folder):
            kwargs["img_size"] = model.img_size
        try:
            with torch.random.fork_rng(devices=[]):  # the weights are drawn, then overwritten
                net = timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs)
        except Exception as error:
            raise UserError(
                f"the weights of {model.id} do not load into its architecture: {one_line(error)}"
            ) from None
        drop_classifier(net)
        weights_sha256 = sha256_file(folder / "model.safetensors")
    net.eval().requires_grad_(False)

    args = {"img_size": model.img_size} if model.img_size else {}
    data_config = resolve_data_config(args, model=net)
    if data_config["input_size"][0] != 3:
        raise UserError(f"{model.id} takes {data_config['input_size'][0]} channels, not RGB")
    pooled = PooledFeatures(net)
    with torch.inference_mode():
        try:
            out = pooled(torch.zeros(1, *data_config["input_size"]))
        except Exception as error:
            raise UserError(
                f"{model.id} does not run at {data_config['input_size'][1]} px: {one_line(error)}"
            ) from None
    return Backbone(
        resolved=model,
        net=pooled.eval(),
        transform=create_transform(**data_config, is_training=False, use_prefetcher=True),
        input_config={k: list(v) if isinstance(v, tuple) else v for k, v in data_config.items()},
        dim=out.shape[1],
        params=sum(p.numel() for p in net.parameters()),
        weights_sha256=weights_sha256,
    )


def stage_facts(net: object) -> list[dict[str, Any]]:
    """What timm tells of a network's stages or blocks, first to last; empty where it names none."""
    found = getattr(net, "feature_info", None)
    return list(getattr(found, "info", found) or [])


def drop_classifier(net: Any) -> None:
    """Make a timm model return features. Raises UserError where its class cannot."""
    if not callable(getattr(net, "reset_classifier", None)):
        raise UserError(f"{type(net).__name__} has no reset_classifier: not a timm classifier")
    net.reset_classifier(0)


def _wants_img_size(folder: Path) -> bool:
    """Whether the architecture is built for one input size (ViTs) rather than any (CNNs)."""
    import timm

    config = json.loads((folder / "config.json").read_text())
    fixed = config.get("pretrained_cfg", {}).get("fixed_input_size")
    if fixed is None:
        known = timm.get_pretrained_cfg(config["architecture"])
        fixed = bool(known is not None and known.fixed_input_size)
    return bool(fixed)


def _state_sha256(net: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
