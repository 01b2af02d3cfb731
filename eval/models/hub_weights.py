"""Whether downloaded weights are the ones that the Hub has at that commit.

A cache is a folder like any other: a file in it may be of another commit, cut, or somebody's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from eval.common.errors import BadInput
from eval.hub import client
from eval.models.resolve import ResolvedModel

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_bytes(model: ResolvedModel, folder: Path, computed: dict[str, str]) -> None:
    """Compare SHA-256 by file name, as computed here, with what the Hub said of the commit.

    It said so when the model was resolved or, for a commit that was in the cache already, when the
    file was downloaded: the Hub's client names its bytes by that hash. Only where neither is known
    is it asked again. Raises UserError for a difference.
    """
    repo, commit = str(model.repo), str(model.commit)
    said = dict(model.hub_sha256)
    for name in computed:
        if name not in said and (link := folder / name).is_symlink():
            blob = link.readlink().name
            if _SHA256.fullmatch(blob):
                said[name] = blob
    if not said.keys() >= computed.keys():
        said = client.lfs_sha256(repo, commit) | said
    for name, digest in computed.items():
        if said.get(name, digest) != digest:
            raise BadInput(
                f"{name} of {repo!r} at commit {commit[:12]} is not the Hub's: sha256 "
                f"{digest[:12]} in {folder}, {said[name][:12]} there; remove it there and run again"
            )
