"""A checkpoint's folder -> a Hub repository: one commit that holds everything, then proof."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, NotFound, UserError, one_line
from eval.hub import commits
from eval.hub.client import with_retries
from eval.hub.mirror import Mirrored, Say, Terms, begin, mirror, size_of
from eval.models.names import ZOO_FOLDER, zoo_names
from eval.results.names import portable
from eval.results.store import dump_result
from zoo.card import card
from zoo.checkpoint import contents, read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

TRAILER = "Published-by: transfer-zoo"  # in our commits' messages: who changed the repository last
COLLECTION = "TransferZoo: which pretraining objective transfers?"
_COLLECTION_ABOUT = "Backbones that differ in the pretraining objective alone, with their transfer"
_REGULAR_LIMIT = 10_000_000  # bytes; the Hub takes larger text only as LFS, which nobody can read
_LFS_LIMIT = 50_000_000_000


def publish(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    replace: str | None = None,
    say: Say = lambda text: None,
) -> Mirrored:
    """Check the folder, upload what the repository lacks in one commit, load it back and compare.

    As ``eval.hub.mirror.mirror`` does it. Raises UserError for a folder that is not fit to publish
    and for whatever the Hub refuses; the repository is then as it was.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    remote = begin(api, repo, "model", private=private, dry_run=dry_run, replace=replace)
    px = read_checkpoint(folder).px
    say(f"checking {folder}")
    files = stage(folder, repo)
    before = outputs(f"local-dir:{folder.resolve()}", px)
    terms = Terms(
        "model", TRAILER, frozenset({".gitattributes"}), title=f"Publish {repo.partition('/')[2]}",
        mend=f"take over into {folder} what should stay, then publish",
    )  # fmt: skip
    done = mirror(
        api, repo, files, remote, terms, private=private, dry_run=dry_run, replace=replace, say=say
    )
    if not dry_run:  # also where nothing changed: an earlier proof may have failed
        say(f"loading {repo}@{done.sha[:7]} back")
        _prove(before, repo, done.sha, folder, px)
    return done


def publish_all(
    org: str, *, private: bool = False, dry_run: bool = False, say: Say = lambda text: None
) -> Iterator[Mirrored]:
    """Publish every checkpoint that ships as ``ORG/NAME``, each told as it is done."""
    for name in zoo_names():
        yield publish(ZOO_FOLDER / name, f"{org}/{name}", private=private, dry_run=dry_run, say=say)


def collect(org: str, repos: Sequence[str], *, private: bool = False) -> str:
    """Make the organisation's collection, or add what it lacks; its address."""
    from huggingface_hub import HfApi

    api = HfApi()

    def gather() -> str:
        found = [c for c in api.list_collections(owner=org) if c.title == COLLECTION]
        made = found[0] if found else api.create_collection(
            COLLECTION, namespace=org, description=_COLLECTION_ABOUT, private=private,
            exists_ok=True,
        )  # fmt: skip
        held = {item.item_id for item in api.get_collection(made.slug).items}
        for repo in repos:
            if repo not in held:
                api.add_collection_item(made.slug, repo, "model", exists_ok=True)
        return f"{api.endpoint}/collections/{made.slug}"

    try:
        return with_retries(gather)
    except Exception as error:
        raise commits.refusal(error, "collection of", org) from None


def stage(folder: Path, repo: str) -> dict[str, bytes | Path]:
    """Path in the repository -> content, for a folder that is fit to publish.

    The card speaks of ``repo``, and results of no path of this machine. Raises UserError naming
    what is wrong with the folder.
    """
    checkpoint = read_checkpoint(folder)
    if wrong := card.out_of_step(folder):
        raise NotFound(
            f"the card of {folder} is not in step with its files ({', '.join(wrong[:3])}); run "
            f"`transfer-zoo card {folder}`"
        )
    files: dict[str, bytes | Path] = {name: folder / name for name in contents(folder)}
    files |= card.render(folder, repo)
    files |= {name: dump_result(portable(result)) for name, result in checkpoint.results}
    for name, content in files.items():
        limit = _LFS_LIMIT if name.endswith((".safetensors", ".png")) else _REGULAR_LIMIT
        if size_of(content) > limit:
            raise BadInput(
                f"{folder / name} has {size_of(content) / 1e6:.3f} MB, the Hub takes "
                f"{limit / 1e6:.0f} MB of such a file"
            )
    return files


def outputs(name: str, px: int, cache: Path | None = None) -> Tensor:
    """Features and, where there is a classifier, logits of four noise images, flat: what the model
    that timm loads under ``name`` makes of them.

    Raises UserError when it does not load, or gives numbers that are not finite.
    """
    import timm
    import torch

    try:
        with torch.random.fork_rng(devices=[]):  # the weights are drawn, then overwritten
            net = with_retries(
                lambda: timm.create_model(name, pretrained=True, cache_dir=cache and str(cache))
            ).eval()
        noise = torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            maps = net.forward_features(noise)  # type: ignore[operator]
            out = [net.forward_head(maps, pre_logits=pre) for pre in (True, False)]  # type: ignore[operator]
    except Exception as error:
        raise BadInput(f"timm cannot load {name!r}: {one_line(error)}") from None
    if not all(part.isfinite().all() for part in out):
        raise BadInput(f"{name!r} gives features that are not finite; its weights are broken")
    return torch.cat([part.flatten() for part in out])


def _prove(before: Tensor, repo: str, sha: str, folder: Path, px: int) -> None:
    """Download by the commit into an empty cache; the outputs must be the folder's, bit by bit."""
    import torch

    with tempfile.TemporaryDirectory(prefix="transferzoo-publish-") as empty:
        try:
            after = outputs(f"hf-hub:{repo}@{sha}", px, Path(empty))
        except UserError as why:
            raise BadInput(
                f"{repo!r} is published at {sha}, but loading it back failed ({why}); publish "
                "again to repeat the proof"
            ) from None
    if not torch.equal(before, after):
        raise BadInput(
            f"{repo!r} was published at {sha} but gives other features than {folder} "
            f"(up to {float((before - after).abs().max()):.2g} apart); do not use it"
        )
