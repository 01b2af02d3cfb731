"""Writing to the Hub in one commit, patience with a busy Hub, and what errors say of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from eval.common.errors import UserError, one_line, without_token
from eval.hub import commits
from eval.hub.client import busy, fetch, pin, with_retries
from tests.factories import let_write, refusal
from tests.hub import LoopbackHub

TOKEN = "hf_uploaderSecretToken0123456789"
OTHER = "hf_somebodyElse9876543210"


WAITS = (1.0, 2.0, 4.0, 8.0)


@pytest.fixture(autouse=True)
def waits(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits that users have; ``hub`` shortens them. Where they matter, nobody waits."""
    monkeypatch.setattr("eval.hub.client.WAITS", WAITS)


@pytest.fixture
def lab(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> Iterator[LoopbackHub]:
    """A Hub where the token's owner, ada, may write to ada and lab."""
    let_write(hub, monkeypatch, {TOKEN: "ada", OTHER: "bob"})
    hub.clear_faults()
    yield hub
    hub.clear_faults()


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A data set's name of this test's own."""
    return "lab/d-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def api() -> HfApi:
    return HfApi()


# --------------------------------------------------------------------------- repository ids

GOOD = ["a/b", "org/name", "Org-1/na.me_2", "_a/_b", "0/1", "a/resnet18.ce_selfsupcon",
        "a/" + "b" * 94, "gitty/x.gi", "a-b/c.d"]  # fmt: skip
BAD = ["", "a", "/", "a/", "/b", "a/b/c", "datasets/a/b", "a//b", "a--b/c", "a/b--c", "a/b..c",
       "a/.b", "a/b.", "a/-b", "a/b-", ".a/b", "-a/b", "a-/b", "a/b.git", "a/b c", " a/b", "a/b ",
       "a/b\n", "a/b\0", "a/ü", "ö/b", "a\\b", "a/b@main", "a/b?x", "a/b#c", "a/%2e", "a/b:c",
       "hf-hub:a/b", "a/..", "../b", "a/" + "b" * 95, "a/\u0661",
       "https://huggingface.co/a/b"]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_a_good_id_is_taken(text: str) -> None:
    assert commits.check_repo_id(text, "repository") == text


@pytest.mark.parametrize("text", BAD)
def test_a_bad_id_is_refused_with_the_rule(text: str) -> None:
    said = refusal(commits.check_repo_id, text, "--repo")
    assert said.startswith("--repo ")
    for part in ("ORG/NAME", "96 characters", "'--'", "'..'"):
        assert part in said


@given(st.one_of(
    st.text(alphabet="ab9-_./G\nü ", max_size=12),
    st.from_regex(r"[\w.-]{1,60}/[\w.-]{1,60}(\.git)?\n?", fullmatch=True),
))  # fmt: skip
def test_what_is_taken_the_client_takes_too(text: str) -> None:
    try:
        commits.check_repo_id(text, "x")
    except UserError:
        return
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        pytest.fail(f"{text!r} was taken: {error}")


# --------------------------------------------------------------------------- accounts


def test_account_and_its_rights(lab: LoopbackHub, api: HfApi) -> None:
    who = commits.account(api)
    assert who == commits.Account("ada", frozenset({"lab"}), "write")
    commits.check_rights(who, "ada/x")
    commits.check_rights(who, "lab/x")
    said = refusal(commits.check_rights, who, "labor/x")
    assert "'labor'" in said
    assert "ada, lab" in said
    lab.read_only.add(TOKEN)
    assert "may only read" in refusal(commits.check_rights, commits.account(api), "ada/x")


def test_account_without_a_token(
    lab: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in refusal(commits.account, api)


def test_account_that_is_unknown(
    lab: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_unknownToken")
    said = refusal(commits.account, api)
    assert "does not accept the token" in said
    assert "unknownToken" not in said


@pytest.mark.parametrize("token", ["hf_ümlaut_secret", "hf_tab\tsecret", "hf_bell\asecret"])
def test_account_with_a_token_that_fits_no_header(
    lab: LoopbackHub, api: HfApi, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert "secret" not in refusal(commits.account, api)


# --------------------------------------------------------------------------- digests


def contents(folder: Path) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {
        "text.md": "# ünïcode\r\nlines\n".encode(),
        "empty.txt": b"",
        "binary.dat": bytes(range(256)) * 9,
        "deep/er/data.parquet": b"PAR1" + b"\0" * 99,
        "large.bin": bytes(range(251)) * 12_000,  # 3 MB: in parts
    }
    for name in ("text.md", "empty.txt", "large.bin"):
        path = folder / f"p-{name}"
        path.write_bytes(b"as a file: " * bool(name != "empty.txt") + files[name])  # type: ignore[operator]
        files[f"paths/{name}"] = path
    return files


def test_digests_are_the_hubs(
    lab: LoopbackHub, repo: str, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "multipart_size", 1 << 20)
    files = contents(tmp_path)
    commits.create(api, repo, "dataset")
    first = commits.look(api, repo, "dataset")
    assert first is not None
    assert commits.changed(files, first.digests) == list(files)
    done = commits.commit(api, repo, "dataset", files, (), first.sha, "all kinds")
    now = commits.look(api, repo, "dataset")
    assert now is not None
    assert now.sha == done.sha
    assert commits.changed(files, now.digests) == []
    there = lab.repos["dataset", repo].head.files
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert there[name].read() == data
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        wanted = hashlib.sha256(data).hexdigest() if there[name].lfs else git
        assert now.digests[name] == wanted
    assert {there["text.md"].lfs, there["large.bin"].lfs} == {False, True}
    for name in files:  # one byte more, and only that file is new
        data = files[name] if isinstance(files[name], bytes) else files[name].read_bytes()  # type: ignore[union-attr]
        assert commits.changed(files | {name: data + b"!"}, now.digests) == [name]  # type: ignore[operator]


def test_look(lab: LoopbackHub, repo: str, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commits.look(api, repo, "dataset") is None
    first = lab.add_dataset(repo, {"a.txt": b"a", "b/c.bin": b"\0"})
    lab.tag(repo, "v1", kind="dataset")
    second = lab.add_dataset(repo, {"a.txt": b"new", "d.txt": b""})
    monkeypatch.setattr(lab, "page_size", 1)
    now, old = (commits.look(api, repo, "dataset", r) for r in (None, "v1"))
    assert now is not None
    assert old is not None
    assert (now.sha, old.sha) == (second, first)
    assert set(now.digests) == {"a.txt", "b/c.bin", "d.txt"}
    assert set(old.digests) == {"a.txt", "b/c.bin"}
    assert commits.look(api, repo, "model") is None


def test_look_reads_the_tree_of_the_commit_it_names(
    lab: LoopbackHub, repo: str, api: HfApi
) -> None:
    first = lab.add_dataset(repo, {"a.txt": b"a"})
    lab.on_next(f"{repo}/tree/", lambda: lab.add_dataset(repo, {"b.txt": b"b"}))
    now = commits.look(api, repo, "dataset")
    assert now is not None
    assert (now.sha, set(now.digests)) == (first, {"a.txt"})


# --------------------------------------------------------------------------- commits


def test_a_stale_parent_is_moved(lab: LoopbackHub, repo: str, api: HfApi) -> None:
    first = lab.add_dataset(repo, {"a.txt": b"a"})
    second = lab.add_dataset(repo, {"b.txt": b"b"})
    with pytest.raises(commits.Moved) as moved:
        commits.commit(api, repo, "dataset", {"c.txt": b"c"}, (), first, "late")
    assert moved.value.sha == second
    assert lab.repos["dataset", repo].head.sha == second


def test_adding_and_removing_is_one_commit(lab: LoopbackHub, repo: str, api: HfApi) -> None:
    first = lab.add_dataset(repo, {"a.txt": b"a", "b.txt": b"b"})
    files: dict[str, bytes | Path] = {"c.txt": b"c", "a.txt": b"new"}
    landed = commits.commit(api, repo, "dataset", files, ["b.txt"], first, "both", "why")
    head = lab.repos["dataset", repo].head
    assert (head.sha, head.parent) == (landed.sha, first)
    assert {name: blob.read() for name, blob in head.files.items()} == files
    assert (head.title, head.message) == ("both", "why")


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_commit_that_landed_unheard_is_not_made_twice(
    lab: LoopbackHub, repo: str, api: HfApi, status: int | None
) -> None:
    first = lab.add_dataset(repo, {"a.txt": b"a", "b.txt": b"b"})
    lab.land_then_fail(1, status, "/commit/")
    done = commits.commit(api, repo, "dataset", {"c.txt": b"c"}, ["b.txt"], first, "once")
    head = lab.repos["dataset", repo].head
    assert (head.sha, head.parent) == (done.sha, first)


def test_what_the_hub_refuses_is_said_once(
    lab: LoopbackHub, repo: str, api: HfApi, sleeps: list[float]
) -> None:
    first = lab.add_dataset(repo, {"a.txt": b"a"})
    for status, words in ((403, "forbids"), (401, "token"), (400, "answered 400")):
        lab.fail_next(1, status, "/commit/")
        args = (api, repo, "dataset", {"c.txt": b"c"}, (), first, "no")
        said = refusal(commits.commit, *args)
        assert words in said
        assert repo in said
    assert sleeps == []
    assert lab.repos["dataset", repo].head.sha == first


def test_metadata_that_the_hub_refuses_are_no_network_trouble(
    lab: LoopbackHub, repo: str, api: HfApi
) -> None:
    first = lab.add_dataset(repo, {"a.txt": b"a"})
    card: dict[str, bytes | Path] = {"README.md": b"---\na: [\n---\n"}
    said = refusal(commits.commit, api, repo, "dataset", card, (), first, "no")
    assert "metadata" in said
    assert "cannot be reached" not in said


def test_no_connection_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    nobody = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    said = refusal(commits.look, nobody, "lab/x", "model")
    assert "cannot be reached" in said
    assert sleeps == []


# --------------------------------------------------------------------------- pull requests


def test_a_pull_request_is_opened_once(lab: LoopbackHub, api: HfApi, repo: str) -> None:
    theirs = repo.replace("lab/", "others/")  # not ours to write to
    first = lab.add_dataset(theirs, {"a.txt": b"a"})
    assert commits.find_pull_request(api, theirs, "dataset", "My result") is None

    def propose(title: str) -> commits.Landed:
        return commits.commit(
            api, theirs, "dataset", {"c.txt": b"c"}, (), first, title, pull_request=True
        )

    lab.land_then_fail(1, 503, "/commit/")
    done = propose("My result")
    found = lab.repos["dataset", theirs]
    assert (len(found.pulls), found.head.sha) == (1, first)
    assert found.pulls["refs/pr/1"] == done.sha
    assert done.pull_request.endswith(f"{theirs}/discussions/1")
    assert propose("My result") == done
    assert commits.find_pull_request(api, theirs, "dataset", "My result") == done
    assert commits.find_pull_request(api, theirs, "dataset", "My") is None
    assert len(found.pulls) == 1

    other = propose("Another")
    assert other.pull_request.endswith("/discussions/2")
    found.discussions[1].status = "closed"
    assert commits.find_pull_request(api, theirs, "dataset", "My result") is None
    assert propose("My result").pull_request.endswith("/discussions/3")


def test_a_discussion_of_the_title_is_no_pull_request(
    lab: LoopbackHub, api: HfApi, repo: str
) -> None:
    lab.add_dataset(repo, {"a.txt": b"a"})
    api.create_discussion(repo, "My result", repo_type="dataset")
    assert commits.find_pull_request(api, repo, "dataset", "My result") is None


# --------------------------------------------------------------------------- patience


class Answer(Exception):
    """An error with the Hub's answer."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(
            status_code=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


def kind(name: str) -> BaseException:
    return type(name, (Exception,), {})("it broke")


def failing(*errors: BaseException) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def test_growing_waits(sleeps: list[float]) -> None:
    assert with_retries(failing(*(Answer(503) for _ in WAITS))) == "done"
    assert sleeps == list(WAITS)


def test_attempts_end(sleeps: list[float]) -> None:
    errors = [Answer(503) for _ in range(len(WAITS) + 1)]
    with pytest.raises(Answer) as error:
        with_retries(failing(*errors, Answer(418)))
    assert error.value is errors[-1]
    assert sleeps == list(WAITS)


def test_no_wait_where_there_is_no_need(sleeps: list[float]) -> None:
    assert with_retries(lambda: 7) == 7
    assert sleeps == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    ("after", "waited"),
    [("7", 7.0), ("0", WAITS[0]), ("2.5", 2.5), ("3600", 60.0), ("9" * 400, 60.0),
     ("Wed, 21 Oct 2026 07:28:00 GMT", WAITS[0]), ("-5", WAITS[0]), ("nan", WAITS[0]),
     ("inf", WAITS[0]), ("", WAITS[0]), ("٣", WAITS[0])],
)  # fmt: skip
def test_retry_after(sleeps: list[float], status: int, after: str, waited: float) -> None:
    if after == "٣":
        waited = 3.0  # harmless: no header can hold it
    assert with_retries(failing(Answer(status, Retry_After=after))) == "done"
    assert sleeps == [waited]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 416, 501])
def test_answers_that_stay(sleeps: list[float], status: int) -> None:
    with pytest.raises(Answer):
        with_retries(failing(Answer(status, Retry_After="1")))
    assert sleeps == []


@pytest.mark.parametrize(
    "name", ["ReadError", "WriteError", "RemoteProtocolError", "ReadTimeout", "WriteTimeout"]
)
def test_cut_connections_are_tried_again(sleeps: list[float], name: str) -> None:
    assert with_retries(failing(kind(name))) == "done"
    assert sleeps == [WAITS[0]]


@pytest.mark.parametrize("name", ["ConnectError", "ValueError", "UnsupportedProtocol"])
def test_other_errors_are_not(sleeps: list[float], name: str) -> None:
    with pytest.raises(Exception, match="it broke"):
        with_retries(failing(kind(name)))
    assert sleeps == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_is_no_busy_hub(sleeps: list[float], stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        with_retries(failing(stop()))
    assert sleeps == []


def test_busy_looks_at_causes() -> None:
    def chained(explicit: bool) -> BaseException:
        try:
            try:
                raise Answer(503, Retry_After="9")
            except Answer as error:
                if explicit:
                    raise LookupError("not in the cache") from error
                raise LookupError("not in the cache")  # noqa: B904
        except LookupError as error:
            return error

    assert busy(chained(True)) == 9.0
    assert busy(chained(False)) == 9.0
    assert busy(None) is None
    assert busy(LookupError()) is None
    assert busy(SimpleErrorWithoutResponse()) is None


class SimpleErrorWithoutResponse(Exception):
    """The client's errors may carry ``response = None``."""

    response = None


def test_the_real_client_is_patient(lab: LoopbackHub, repo: str, sleeps: list[float]) -> None:
    sha = lab.add_model(repo, {"config.json": b"{}"})
    lab.fail_next(1, 429, f"/api/models/{repo}", {"Retry-After": "11"})
    lab.drop_next(1, f"/api/models/{repo}")
    assert pin(repo, None, "model", "m").sha == sha
    assert sleeps == [11.0, WAITS[1]]
    lab.fail_next(2, 503, f"HEAD /{repo}/resolve/")
    assert (fetch(repo, sha, ("config.json",), "m") / "config.json").read_bytes() == b"{}"
    assert len(sleeps) > 2
    assert not any(fault.left for fault in lab._server.faults)


@pytest.mark.parametrize("sha", ["main", "", "../../etc", "F" * 40, "a" * 39, "a" * 40 + "\n"])
def test_a_commit_that_is_no_sha_is_refused(lab: LoopbackHub, repo: str, sha: str) -> None:
    lab.add_model(repo, {"config.json": b"{}"})
    found = lab.repos["model", repo]
    found.commits[sha] = replace(found.head, sha=sha)
    found.branches["main"] = sha
    said = refusal(pin, repo, None, "model", "model 'x'")
    assert repr(sha) in said or sha in said


# --------------------------------------------------------------------------- tokens in texts


@pytest.mark.parametrize(
    "text",
    ["{}", "token={}", "Bearer {}", "authorization: BEARER {}", "({})", "a{{'t': '{}'}}", "x\n{}\n",
     "https://user:{}@huggingface.co/a", "?token={}&x=1", '"{}"'],
)  # fmt: skip
@pytest.mark.parametrize("token", ["hf_abcdEFGH0123", "hf_oauth_abc-def_ghi"])
def test_tokens_are_blotted_out(monkeypatch: pytest.MonkeyPatch, text: str, token: str) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for clean in (without_token(text.format(token)), one_line(Exception(text.format(token)))):
        assert token not in clean
        assert token[3:] not in clean
        assert "[token]" in clean


@pytest.mark.parametrize("token", ["plain-secret", "s3cr.t+/=", "api_org_0123456789"])
def test_an_unusual_token_of_ones_own(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert without_token(f"it was {token}!") == "it was [token]!"


def test_an_oauth_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    clean = without_token("token hf_oauth_eyJhbGci.eyJzdWIi.c2lnbmF0dXJl is odd")
    assert "c2lnbmF0dXJl" not in clean


@pytest.mark.parametrize("text", ["Bearer%20{}", "token_{}"])
def test_a_token_after_a_letter(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "abcdEFGH0123" not in without_token(text.format("hf_abcdEFGH0123"))


@pytest.mark.parametrize("how", ["HUGGING_FACE_HUB_TOKEN", "file"])
def test_a_token_the_client_found_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    """Whatever huggingface_hub sends, even one that does not begin with hf_."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if how == "file":
        (tmp_path / "token").write_text("api_org_0123456789")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    else:
        monkeypatch.setenv(how, "api_org_0123456789")
    assert "api_org" not in without_token("it was api_org_0123456789!")


def test_ordinary_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for text in ("hf-hub:org/name", "hf_hub", "the bearer", "shelf_life", "org/hf_x"):
        if text != "hf_hub":
            assert without_token(text) == text


def test_one_line_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert one_line(Exception(" a\n\tb  c\r\n")) == "a b c"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError(" \n ")) == "ValueError"
    assert len(one_line(Exception("x" * 1000))) == 300
    assert one_line(Exception("x" * 1000), 20) == "x" * 17 + "..."
    assert one_line(Exception("x" * 20), 20) == "x" * 20


@pytest.mark.parametrize("limit", range(5, 80, 5))
def test_a_cut_leaves_no_part_of_a_token(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = one_line(Exception(f"the token is {TOKEN}, {TOKEN} and Bearer {TOKEN}"), limit)
    assert not any(TOKEN[i : i + 6] in said for i in range(3, len(TOKEN) - 6))


@pytest.mark.parametrize("status", [None, 401, 403, 404, 429, 503])
def test_refusals_name_no_token(monkeypatch: pytest.MonkeyPatch, status: int | None) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    error: Any = Answer(status) if status else ValueError(f"Illegal header b'Bearer {TOKEN}'")
    error.server_message = f"bad token {TOKEN}\nBearer {TOKEN}"
    said = str(commits.refusal(error, "model repository", "a/b"))
    assert TOKEN[3:] not in said
    assert "\n" not in said
    assert "'a/b'" in said


@pytest.mark.parametrize("place", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
def test_a_token_that_is_not_accepted_is_named_by_its_place(
    place: str, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every command that asks the Hub, whether it reads or writes."""
    token = "hf_expiredexpired"
    monkeypatch.setattr(hub, "tokens", {"hf_other"})
    monkeypatch.setattr(hub, "strict_auth", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    if place == "file":
        (tmp_path / "token").write_text(token)
    else:
        monkeypatch.setenv(place, token)
    hub.add_model("me/model", {"config.json": "{}"})
    api = HfApi(token=token)
    for call in (
        lambda: pin("me/model", None, "model", "model 'me/model'"),
        lambda: fetch("me/model", "a" * 40, ("config.json",), "model 'me/model'"),
        lambda: commits.look(api, "me/model", "model"),
        lambda: commits.account(api),
    ):
        said = refusal(call)
        assert "the Hub does not accept the token in the" in said
        assert (str(tmp_path / "token") if place == "file" else f"variable {place}") in said
        assert token not in said
