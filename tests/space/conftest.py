"""The served app as visitors meet it: processes of their own, and a real browser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.hub import LoopbackHub
from tests.space.served import (
    CARDS,
    DATA,
    App,
    Visit,
    detector_shelf,
    hostile_shelf,
    many_shelf,
    profile,
    serve,
)

PAGE_PATIENCE = 60_000.0  # milliseconds; a busy machine takes its time


@pytest.fixture(scope="session")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], App]]:
    """Served apps by name, each started when it is first asked for."""
    folder = tmp_path_factory.mktemp("apps")
    data = Path(os.environ.get("TRANSFERZOO_DATA", DATA))
    data = data if (data / "bccd").is_dir() else folder / "no-data"

    def shelf(name: str) -> Path:
        place = folder / f"{name}-shelf"
        if name == "shipped":
            return CARDS
        if name == "detectors":
            return detector_shelf(place, data)
        place.mkdir()
        made = {"hostile": hostile_shelf, "sixty": lambda to: many_shelf(to, 60)}
        return made[name](place) if name in made else place

    started: dict[str, App] = {}
    with LoopbackHub() as hub:

        def start(name: str) -> App:
            if name not in started:
                theirs = data if name == "detectors" and data.is_dir() else None
                started[name] = serve(folder / name, shelf(name), hub, theirs)
            return started[name].wait()

        yield start
        for each in started.values():
            each.process.terminate()
        for each in started.values():
            try:
                each.process.wait(10)
            except subprocess.TimeoutExpired:
                each.process.kill()


@pytest.fixture(scope="session")
def app(apps: Callable[[str], App]) -> App:
    """The app on the results that ship."""
    return apps("shipped")


@pytest.fixture(scope="session")
def hostile(apps: Callable[[str], App]) -> App:
    """The app on a shelf of hostile names."""
    return apps("hostile")


@pytest.fixture(scope="session")
def empty(apps: Callable[[str], App]) -> App:
    """The app on a directory without results."""
    return apps("empty")


@pytest.fixture(scope="session")
def detectors(apps: Callable[[str], App]) -> App:
    """The app on made-up results of detectors, with the real images where they are."""
    return apps("detectors")


@pytest.fixture(scope="session")
def sixty(apps: Callable[[str], App]) -> App:
    """The app on sixty models of four labs."""
    return apps("sixty")


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept."""
    folder = os.environ.get("TRANSFERZOO_SCREENSHOTS")
    if not folder:
        return tmp_path_factory.mktemp("screenshots")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@pytest.fixture(scope="session")
def regular(browser: Any) -> Iterator[Any]:
    """A visitor who has the app's scripts already; the next test finds nothing else kept."""
    context = profile(browser)
    yield context
    context.close()


def excused(wrong: Sequence[str]) -> list[str]:
    """Without what Gradio's client writes when a page is left or opened anew while it loads: that
    its request was aborted, and for each of these that the connection errored out."""
    aborted = [line for line in wrong if line.startswith("console: AbortError: signal is aborted")]
    left = [line for line in wrong if line not in aborted]
    for _ in aborted:
        ended = [i for i, line in enumerate(left) if "Connection errored out" in line]
        if ended:
            del left[ended[0]]
    return left


@pytest.fixture
def visit(browser: Any, regular: Any, shots: Path) -> Iterator[Any]:
    """Opens pages; at the end nothing may have gone wrong, and no other host may be asked.

    A test's first page is the regular visitor's. Any more are strangers' with nothing cached, and
    so is one on a small or dark screen.
    """
    opened: list[tuple[Any, Visit]] = []

    def start(app: App, width: int = 1280, dark: bool = False) -> Visit:
        plain = not opened and (width, dark) == (1280, False)
        context = regular if plain else profile(browser, width, dark)
        page = context.new_page()
        page.set_default_timeout(PAGE_PATIENCE)
        seen = Visit(page, app, shots)
        opened.append((context, seen))

        def failed(request: Any) -> None:
            # Gradio closes its stream of events itself once the answer is there; a page that is
            # left or opened anew gives up what it was loading.
            if "ERR_ABORTED" not in str(request.failure):
                seen.wrong.append(f"failed: {request.url} {request.failure}")

        def answered(response: Any) -> None:
            if response.status >= 400:
                seen.wrong.append(f"{response.status}: {response.url}")

        def said(message: Any) -> None:
            if message.type == "error":
                seen.wrong.append(f"console: {message.text}")

        def asked(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob", "about"):
                seen.hosts.add(parts.hostname or request.url)

        page.on("requestfailed", failed)
        page.on("response", answered)
        page.on("console", said)
        page.on("pageerror", lambda error: seen.wrong.append(f"script: {error}"))
        page.on("request", asked)
        page.on("dialog", lambda dialog: (seen.wrong.append("dialog"), dialog.dismiss()))
        return seen

    yield start
    for context, seen in opened:
        owned = seen.page.evaluate("window.owned")
        text = seen.page.inner_text("body") if seen.page.url != "about:blank" else ""
        if context is regular:
            if seen.page.url != "about:blank":
                seen.page.evaluate("(localStorage.clear(), sessionStorage.clear())")
            context.clear_cookies()
            seen.page.close()
        else:
            context.close()
        assert owned is None
        assert "Traceback" not in text
        assert seen.hosts <= {"127.0.0.1"}
        assert excused(seen.wrong) == []
