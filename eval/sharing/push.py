"""Results in a data set repository of the Hub: one JSON file a result, and one table of all.

A push is a pull request unless its author may write and asks to. A pull request holds JSON files
alone: two of them never conflict over the table, which is rebuilt where main changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, Conflict, Unreachable, UserError
from eval.hub.client import with_retries
from eval.hub.commits import (
    Moved,
    Remote,
    account,
    changed,
    check_repo_id,
    check_rights,
    commit,
    create,
    is_private,
    look,
    refusal,
)
from eval.results.names import portable
from eval.results.parquet_table import flaw, table, table_bytes
from eval.results.schema import Result
from eval.results.signoff import SignOffs, content_of, file_of, parse, sign_offs
from eval.results.signoff import as_bytes as signoff_bytes
from eval.results.store import read_shelf
from eval.sharing.changes import Change, as_bytes, candidate_paths, changes_to_publish
from eval.sharing.read import WHAT, at, contents, fetch, held_at
from eval.sharing.recompute import Recompute, Sample
from eval.sharing.review import changed_files, check_pull_request, pull_request

if TYPE_CHECKING:
    from huggingface_hub import DiscussionWithDetails, HfApi

__all__ = ["TABLE", "Change", "Pushed", "fetch", "merge", "push", "table"]

TABLE = "results.parquet"
NONE_SIGNED: SignOffs = MappingProxyType({})
_TRIES = 5  # main may move under a push as often
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")

_CARD = f"""---
license: cc-by-4.0
pretty_name: TransferZoo results
tags:
- transferzoo
configs:
- config_name: default
  data_files: {TABLE}
---
# TransferZoo results

How well the features of frozen vision backbones transfer, one file a (model, task, protocol):
`model/revision/task.protocol.json`. `{TABLE}` holds all of them, one row a score.

Read them with `transfer-eval leaderboard --results hub:REPO`, add yours with
`transfer-eval push RESULTS_DIR REPO`.
"""


@dataclass(frozen=True)
class Pushed:
    """What came of a push or a merge; for a dry run, what would."""

    url: str
    sha: str  # the commit that holds the results; of main where there was nothing to do
    pull_request: str  # its address; empty when direct, or nothing to do
    added: tuple[str, ...]
    held: int  # results that were there already
    table: bool  # whether the table was rebuilt
    skipped: tuple[tuple[Path, str], ...] = ()  # local JSON files that are no results, and why
    sample: Sample | None = None  # what a merge computed again before it
    late: bool = False  # the pull request got other commits while it was merged, which were not


# --------------------------------------------------------------------------- push


def push(
    directory: Path,
    repo: str,
    *,
    direct: bool = False,
    replace: bool = False,
    private: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Add the results below ``directory`` to ``repo``: as a pull request, or ``direct``-ly.

    A repository that does not exist is made, where the account may. Pushing the same again adds
    nothing. Raises UserError where a result contradicts one that is there (unless ``replace``),
    and where the Hub refuses; then nothing was added.
    """
    from huggingface_hub import HfApi

    check_repo_id(repo, "results repository")
    local, skipped = _local(directory)
    api = HfApi()
    who = account(api)
    remote = look(api, repo, "dataset")
    if remote is None or direct:
        check_rights(who, repo)
    else:
        check_rights(who, f"{who.name}/any")  # a token that only reads opens no pull request
    if remote is not None and private and not is_private(api, repo, "dataset"):
        raise Conflict(f"{WHAT} {repo!r} is public already; leave --private out")
    if remote is None and not dry_run:
        create(api, repo, "dataset", private=private)
    if remote is None and dry_run:
        done = _nothing(api, repo, "", len(local), changes_to_publish(local, {}, repo))
    elif remote is None or direct:
        offs = sign_offs(directory)
        done = _land(api, repo, local, replaced=replace, dry_run=dry_run, signed=offs)
    else:
        done = _propose(api, repo, remote, local, replaced=replace, dry_run=dry_run)
    return dataclasses.replace(done, skipped=skipped)


def _local(
    directory: Path,
) -> tuple[list[tuple[Path, Result]], tuple[tuple[Path, str], ...]]:
    """(results fit to be published, the JSON files that are not and why)."""
    shelf = read_shelf(directory)
    flaws = {path: flaw(result) for path, result in shelf.results}
    fit = [(path, portable(r)) for path, r in shelf.results if not flaws[path]]
    skipped = [*shelf.foreign, *((path, why) for path, why in flaws.items() if why)]
    if not fit:
        why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise BadInput(
            f"no results to push in {str(directory)!r}{why}; make some with `transfer-eval run`"
        )
    return fit, tuple(skipped)


def _propose(
    api: HfApi,
    repo: str,
    remote: Remote,
    local: Sequence[tuple[Path, Result]],
    *,
    replaced: bool,
    dry_run: bool,
) -> Pushed:
    """A pull request with the JSON files that main lacks."""
    paths = {path for _, result in local for path in candidate_paths(result)}
    held = held_at(repo, remote, paths & remote.digests.keys())
    found = changes_to_publish(local, held, repo, replace=replaced)
    if not found or dry_run:
        return _nothing(api, repo, remote.sha, len(local), found)
    files = _files(found)
    landed = commit(api, repo, "dataset", files, (), remote.sha, _title(files), pull_request=True)
    # An open one is known by its title alone: it may have got other files since.
    there = look(api, repo, "dataset", landed.sha)
    if there is None or changed(files, there.digests):
        raise BadInput(
            f"{landed.pull_request} has the title of this push but other files; close it on its "
            "page, then push again"
        )
    added = tuple(files)
    return Pushed(
        _url(api, repo), landed.sha, landed.pull_request, added, len(local) - len(added), False
    )


def _land(
    api: HfApi,
    repo: str,
    local: Sequence[tuple[Path, Result]] = (),
    *,
    replaced: bool = False,
    dry_run: bool = False,
    signed: SignOffs = NONE_SIGNED,
) -> Pushed:
    """One commit on main: the JSON files it lacks, the table of all, the sign-offs of what is
    there, a card if there is none.

    Goes on from where main is when somebody else was faster.
    """
    added: tuple[str, ...] = ()
    for _ in range(_TRIES):
        remote = at(api, repo)
        held = held_at(repo, remote, remote.digests)
        found = changes_to_publish(local, held, repo, replace=replaced)
        added = added or tuple(o.path for o in found)  # an earlier try may have landed unheard
        if dry_run:
            return _nothing(api, repo, remote.sha, len(local), found)
        files = _files(found)
        everything = {p: r for p, r in held.items() if isinstance(r, Result)}
        everything |= {o.path: o.result for o in found}
        whole = {**files, TABLE: table_bytes(list(everything.items()))}
        news = _news(repo, remote, everything, signed)
        whole |= news
        if "README.md" not in remote.digests:
            whole.setdefault("README.md", _CARD.replace("REPO", repo).encode())
        todo = changed(whole, remote.digests)
        if not (found or news or TABLE in todo):
            return _nothing(api, repo, remote.sha, len(local), ())
        change = {path: whole[path] for path in todo}
        title = _title(files) if files else "Sign results off" if news else "Rebuild the table"
        try:
            landed = commit(api, repo, "dataset", change, (), remote.sha, title)
        except Moved:
            continue
        held_count = max(len(local) - len(added), 0)
        return Pushed(_url(api, repo), landed.sha, "", added, held_count, TABLE in todo)
    raise Unreachable(f"{WHAT} {repo!r} changes all the time; try again later")


def _news(
    repo: str, main: Remote, results: Mapping[str, Result], signed: SignOffs
) -> dict[str, bytes]:
    """The sign-offs of these results that main lacks, or has of what the results were before."""
    if not signed:
        return {}
    offs = {
        file_of(path): off.model_copy(update={"result": path})
        for path, result in results.items()
        if (off := signed.get(content_of(result)))
    }
    there = contents(repo, main, sorted(offs.keys() & main.digests.keys()))
    old = {path: parse(data) for path, data in there.items()}
    return {
        path: signoff_bytes(off)
        for path, off in offs.items()
        if (one := old.get(path)) is None or one.content != off.content
    }


def _nothing(api: HfApi, repo: str, sha: str, count: int, found: Sequence[Change]) -> Pushed:
    added = tuple(o.path for o in found)
    return Pushed(_url(api, repo), sha, "", added, count - len(added), False)


def _files(found: Sequence[Change]) -> dict[str, bytes]:
    """The files of a commit. Raises UserError where one holds a token."""
    from huggingface_hub import get_token

    files = as_bytes({o.path: o.result for o in found})
    own = (get_token() or "").encode()
    for path, data in files.items():
        if (own and own in data) or _TOKEN.search(data):
            raise BadInput(f"the result {path} holds a Hub token; take it out, then push again")
    return files


def _title(files: Mapping[str, bytes]) -> str:
    """The same for the same files: by it an open pull request is found again."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{hashlib.sha256(files[path]).hexdigest()}\0".encode())
    count = len(files)
    return f"Add {count} result{'s' if count > 1 else ''} ({digest.hexdigest()[:8]})"


def _url(api: HfApi, repo: str) -> str:
    return f"{api.endpoint}/datasets/{repo}"


# --------------------------------------------------------------------------- merge


def merge(repo: str, number: int, recompute: Recompute | None = None) -> Pushed:
    """Check pull request ``number``, commit what was checked with the table, and close it.

    ``recompute`` computes some of its results again before (`eval.sharing.recompute.sampler`); one
    that differs, or none that could be computed, and nothing is merged.

    Called again after it was cut off between the two, it closes it. Raises UserError, with nothing
    merged, for a pull request that does more than add valid results or scores.
    """
    from huggingface_hub import HfApi

    check_repo_id(repo, "results repository")
    name = f"pull request {number} of {repo!r}"
    api = HfApi()
    who = account(api)
    check_rights(who, repo)
    talk = pull_request(api, repo, number, name)
    if talk.status == "merged":  # by the button on the Hub, which leaves the table as it was
        done = _land(api, repo)
        if done.table:
            return dataclasses.replace(done, pull_request=talk.url)
        raise Conflict(f"{name} is merged already")
    theirs = at(api, repo, f"refs/pr/{number}")
    if talk.status == "closed" and _taken(api, repo, theirs, name):
        raise Conflict(f"{name} is merged already")
    if talk.status != "open":
        raise BadInput(f"{name} is {talk.status}; only an open one can be merged")
    done = _take(api, repo, talk, theirs, name, who.name, recompute)
    late = _close(api, repo, number, theirs, done.sha)
    return dataclasses.replace(done, pull_request=talk.url, late=late)


def _take(
    api: HfApi, repo: str, talk: DiscussionWithDetails, theirs: Remote, name: str, keeper: str,
    recompute: Recompute | None,
) -> Pushed:  # fmt: skip
    """One commit on main with the checked files and the table of all.

    The Hub's own merge would take what the pull request holds by then. These files are those of the
    commit that was checked, on the state of main that they were checked against; where main moved
    meanwhile they are checked anew.
    """
    sample: Sample | None = None
    for _ in range(_TRIES):
        main = at(api, repo)
        added = check_pull_request(api, repo, talk, main, theirs, name, keeper)
        new = held_at(repo, theirs, added)
        if recompute is not None and sample is None:
            offered = {path: r for path, r in new.items() if isinstance(r, Result)}
            sample = recompute(offered)
            if sample.differing:
                raise BadInput(f"{name} is not merged: {sample.differing}")
            if not sample.verified and offered:
                raise BadInput(
                    f"{name} is not merged: none of its results was computed again "
                    f"({sample.absent_text})"
                )
        held = held_at(repo, main, main.digests) | new
        everything = [(path, r) for path, r in held.items() if isinstance(r, Result)]
        whole = contents(repo, theirs, added) | {TABLE: table_bytes(everything)}
        todo = changed(whole, main.digests)
        if not todo:  # an earlier attempt landed unheard
            return Pushed(_url(api, repo), main.sha, "", added, 0, False, sample=sample)
        files = {path: whole[path] for path in todo}
        try:
            landed = commit(
                api, repo, "dataset", files, (), main.sha, f"{talk.title} (#{talk.num})"
            )
        except Moved:
            continue
        return Pushed(_url(api, repo), landed.sha, "", added, 0, TABLE in todo, sample=sample)
    raise Unreachable(f"{WHAT} {repo!r} changes all the time; try again later")


def _close(api: HfApi, repo: str, number: int, theirs: Remote, sha: str) -> bool:
    """Close it with a word on what was taken; whether it got other commits meanwhile."""
    name = f"pull request {number} of {repo!r}"
    late = at(api, repo, f"refs/pr/{number}").sha != theirs.sha
    said = f"Merged as {sha}: the files of {theirs.sha}."
    if late:
        said += " Later commits here were not looked at; push them again to offer them."

    def attempt() -> None:
        if pull_request(api, repo, number, name).status == "open":
            api.change_discussion_status(repo, number, "closed", comment=said, repo_type="dataset")

    try:
        with_retries(attempt)
    except UserError:
        raise
    except Exception as error:
        why = refusal(error, name, "")
        raise UserError(
            f"{name} is merged as commit {sha[:7]}, but not closed ({why}); merge it again for that"
        ) from None
    return late


def _taken(api: HfApi, repo: str, theirs: Remote, name: str) -> bool:
    """Whether main has all that a closed pull request adds."""
    main = at(api, repo)
    gone, touched = changed_files(api, repo, theirs, name)
    there = all(main.digests.get(path) == theirs.digests[path] for path in touched)
    return bool(touched) and there and not gone
