"""This checkout -> a Hugging Face Space: the app, the project and the zoo in one commit.

A public Space installs the project from a wheel in its own repository. Nobody can download from a
private one without a token, its own build neither, so there the packages lie beside ``app.py``.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from eval.analysis.finding import portable as portable_finding
from eval.analysis.finding import read_findings
from eval.common.errors import BadInput, NotFound
from eval.common.files import dump_json
from eval.hub import commits
from eval.hub.mirror import Mirrored, Say, Terms, begin, mirror, size_of
from eval.models.names import ZOO_FOLDER, ZOO_ORG, zoo_names
from eval.results.names import portable
from eval.results.store import dump_result
from eval.study.table import FILES
from space.deploy import wheel
from space.deploy.wheel import build_wheel, check_checkout, project, sources
from zoo.checkpoint import contents, read_checkpoint

TRAILER = "Published-by: transfer-space"  # in our commits' messages: who changed the Space last
SETTINGS = "settings.json"
# Of the project: what the app needs beside the packages, and whatever model a visitor may name.
EXTRAS = ("space", "transformers", "open-clip")
LIMIT = 1_000_000_000  # bytes in a Space's repository
# A Space of the free kind has no GPU: torch's builds for the CPU are much smaller.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_OPENING = frozenset({".gitattributes", "README.md"})  # the Hub's own first commit in a Space

Files = dict[str, bytes | Path]


@dataclass(frozen=True)
class Pushed(Mirrored):
    """``notes`` are sentences a user should know."""

    notes: tuple[str, ...] = ()


def push(
    repo: str,
    *,
    results: str = "",
    private: bool = False,
    dry_run: bool = False,
    replace: str | None = None,
    say: Say = lambda text: None,
) -> Pushed:
    """Make or update the Space, as ``eval.hub.mirror.mirror`` does it.

    ``results`` is '' for those that ship, or ``hub:ORG/NAME``. Raises UserError without a checkout
    and for whatever the Hub refuses; the Space is then as it was.
    """
    from huggingface_hub import HfApi

    _check_results(results)
    check_checkout()
    if not zoo_names():
        raise NotFound(f"{ZOO_FOLDER} holds no checkpoints, so the Space would have none")
    api = HfApi()
    remote = begin(api, repo, "space", private=private, dry_run=dry_run, replace=replace)
    hidden = private or (remote is not None and commits.is_private(api, repo, "space"))
    say("building the project")
    with tempfile.TemporaryDirectory(prefix="transferzoo-push-") as build:
        files = stage(repo, api.endpoint, results=results, private=hidden, build=Path(build))
    about = project()
    terms = Terms(
        "space", TRAILER, _OPENING, title=f"Push {about['name']} {about['version']}", sdk="gradio",
        mend=f"take over into {wheel.ROOT} what should stay, then push",
    )  # fmt: skip
    done = mirror(
        api, repo, files, remote, terms, private=private, dry_run=dry_run, replace=replace, say=say
    )
    return Pushed(**vars(done), notes=_notes(repo, results, hidden))


def stage(repo: str, endpoint: str, *, results: str, private: bool, build: Path) -> Files:
    """Path in the Space -> content. ``build`` is an empty folder, no longer needed afterwards.

    Raises UserError where the wheel cannot be built, a checkpoint is not fit to be published, or
    all together are more than a Space may hold.
    """
    files: Files = {
        "README.md": _readme(results),
        "app.py": (wheel.ROOT / "space" / "app.py").read_bytes(),
    }
    about = project()
    if private:
        extras = about["optional-dependencies"]
        needs: list[str] = [*about["dependencies"], *(need for e in EXTRAS for need in extras[e])]
        files |= {path: (wheel.ROOT / path).read_bytes() for path in sources()}
    else:
        name, built = build_wheel(build)
        # The digest also makes the line a new one with each new wheel: the Space's build installs
        # nothing as long as its requirements are the same.
        place = f"{endpoint}/spaces/{repo}/resolve/main/{name}"
        digest = hashlib.sha256(built).hexdigest()
        needs = [f"{about['name']}[{','.join(EXTRAS)}] @ {place}#sha256={digest}"]
        files[name] = built
    lines = [f"--extra-index-url {_TORCH_INDEX}", *needs]
    files["requirements.txt"] = "".join(f"{line}\n" for line in lines).encode()
    if results:
        files[SETTINGS] = dump_json({"results": results})
    files |= _zoo()
    if (size := sum(map(size_of, files.values()))) > LIMIT:
        raise BadInput(
            f"the Space would hold {size / 1e9:.2f} GB, the Hub takes {LIMIT / 1e9:.0f} GB; leave "
            f"checkpoints out of {ZOO_FOLDER}"
        )
    return files


def _check_results(results: str) -> None:
    if not results:
        return
    match = re.fullmatch(r"hub:([^@\s]+)(?:@[\w.][\w./-]*)?", results)
    if match is None:
        raise BadInput(
            f"a Space cannot read results {results!r}; use hub:ORG/NAME, or leave it out for those "
            "that ship"
        )
    commits.check_repo_id(match[1], "results repository")


def _readme(results: str) -> bytes:
    """The Space's card, with what is known only now."""
    _, head, body = (wheel.ROOT / "space" / "README.md").read_text("utf-8").split("---\n", 2)
    card = yaml.safe_load(head)
    card["sdk_version"] = version("gradio")
    card["models"] = [f"{ZOO_ORG}/{name}" for name in zoo_names()]
    if results:
        card["datasets"] = [results.removeprefix("hub:").partition("@")[0]]
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n{body}".encode()


def _zoo() -> Files:
    """The checkpoints that ship, their results and findings without this machine's folders."""
    files: Files = {}
    for name in zoo_names():
        folder = ZOO_FOLDER / name
        mine: Files = {path: folder / path for path in contents(folder)}
        mine |= {p: dump_result(portable(r)) for p, r in read_checkpoint(folder).results}
        files |= {f"model_cards/{name}/{path}": content for path, content in mine.items()}
    for path, finding in read_findings(ZOO_FOLDER):
        place = path.relative_to(ZOO_FOLDER).as_posix()
        files[f"model_cards/{place}"] = dump_json(portable_finding(finding).model_dump(mode="json"))
    for path in sorted(ZOO_FOLDER.glob(FILES)):
        files[f"model_cards/{path.name}"] = path
    return files


def _notes(repo: str, results: str, hidden: bool) -> tuple[str, ...]:
    notes = []
    if hidden:
        notes.append(
            f"{repo} is private, so its build could not fetch a wheel from it: it holds the "
            "packages' source instead; push again after making it public"
        )
    if results:
        notes.append(f"if {results} is private, give the Space a secret HF_TOKEN that may read it")
    return tuple(notes)
