"""Whether a pull request does no more than add results: the check before it is merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.common.errors import BadInput, UserError
from eval.hub.client import with_retries
from eval.hub.commits import Remote, refusal
from eval.results.names import portable
from eval.results.schema import Result
from eval.results.signoff import FOLDER
from eval.sharing.changes import candidate_paths, covers, difference
from eval.sharing.models import unlike_weights
from eval.sharing.read import RESULT, WHAT, at, held_at

if TYPE_CHECKING:
    from huggingface_hub import DiscussionWithDetails, HfApi

MOST_TOGETHER = 1 << 30  # bytes of a pull request's results, which are downloaded to be checked


def pull_request(api: HfApi, repo: str, number: int, name: str) -> DiscussionWithDetails:
    """What the Hub says of a pull request for main. Raises UserError where it is none."""
    if number < 1:
        raise BadInput(f"{name}: pull requests are numbered from 1")
    try:
        talk = with_retries(lambda: api.get_discussion_details(repo, number, repo_type="dataset"))
    except Exception as error:
        response = getattr(error, "response", None)
        code = response.headers.get("X-Error-Code") if response is not None else None
        if response is not None and response.status_code == 404 and not code:
            raise BadInput(f"{repo!r} has no pull request {number}") from None
        raise refusal(error, WHAT, repo) from None
    if not talk.is_pull_request:
        raise BadInput(f"number {number} of {repo!r} is a discussion, no pull request")
    if (talk.target_branch or "main").removeprefix("refs/heads/") != "main":
        raise BadInput(f"{name} is for {talk.target_branch!r}, not for main")
    return talk


def check_pull_request(
    api: HfApi, repo: str, talk: DiscussionWithDetails, main: Remote, theirs: Remote, name: str,
    keeper: str,
) -> tuple[str, ...]:  # fmt: skip
    """The results it adds or extends, at the commit ``theirs``; the ``keeper`` merges it. Raises
    UserError naming the first thing it may not do."""
    gone, touched = changed_files(api, repo, theirs, name)
    if gone:
        raise BadInput(f"{name} deletes {gone[0]}; results are only ever added")
    for path in [p for p in touched if p.startswith(f"{FOLDER}/")]:
        if talk.author != keeper:
            raise BadInput(
                f"{name} of {talk.author!r} brings the sign-off {path!r}; only those who keep the "
                "repository sign results off"
            )
    touched = [path for path in touched if not path.startswith(f"{FOLDER}/")]
    for path in touched:
        if not RESULT.fullmatch(path):
            raise BadInput(
                f"{name} changes {path!r}; only results (MODEL/REVISION/NAME.json) may be added"
            )
    if (together := sum(theirs.sizes.get(path, 0) for path in touched)) > MOST_TOGETHER:
        raise BadInput(
            f"{name} brings {together:,} bytes of results, at most {MOST_TOGETHER:,} are read at "
            "once; its author must push them in parts"
        )
    if talk.conflicting_files:
        named = talk.conflicting_files
        which = ", ".join(named) if isinstance(named, list) else "files that it does not name"
        raise BadInput(
            f"{name} conflicts with main in {which}; its author must push again and close it"
        )
    new, old = held_at(repo, theirs, touched), held_at(repo, main, main.digests.keys() & touched)
    for path in touched:
        if why := _objection(path, new[path], old.get(path)):
            raise UserError(f"{name}: {path} {why}")
    if why := unlike_weights(api, {p: r for p, r in new.items() if isinstance(r, Result)}):
        raise UserError(f"{name}: {why}")
    return tuple(p for p in touched if main.digests.get(p) != theirs.digests[p])


def changed_files(api: HfApi, repo: str, theirs: Remote, name: str) -> tuple[list[str], list[str]]:
    """(files that a pull request's commit deletes, those that it adds or changes)."""
    start = at(api, repo, _base(api, repo, theirs.sha, name))
    gone = sorted(start.digests.keys() - theirs.digests.keys())
    return gone, sorted(p for p, d in theirs.digests.items() if start.digests.get(p) != d)


def _objection(path: str, new: Result | str, old: Result | str | None) -> str:
    """Why a file may not come to main; empty where it may."""
    if isinstance(new, str):
        return f"is not a result ({new})"
    if path not in candidate_paths(new):
        return f"is not where its content belongs ({candidate_paths(new)[0]})"
    if portable(new) != new:
        return "names a folder of its author's machine"
    if not isinstance(old, Result):
        return ""
    if what := difference(old, new):
        hint = "whoever wants that pushes it with --direct --replace"
        return f"is on main already and {what} ('there' is main); {hint}"
    return "" if covers(new, old) else "would drop scores, samples or confidences of main"


def _base(api: HfApi, repo: str, ref: str, name: str) -> str:
    """The commit of main that a pull request started from."""
    on_main = set(_history(api, repo, "main"))
    base = next((sha for sha in _history(api, repo, ref) if sha in on_main), None)
    if base is None:
        raise BadInput(f"{name} shares no commit with main")
    return base


def _history(api: HfApi, repo: str, ref: str) -> list[str]:
    """Commits, newest first."""
    try:
        found = with_retries(lambda: api.list_repo_commits(repo, repo_type="dataset", revision=ref))
    except Exception as error:
        raise refusal(error, WHAT, repo) from None
    return [commit.commit_id for commit in found]
