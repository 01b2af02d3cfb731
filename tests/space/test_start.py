"""The start: the first page is there before what only models need is imported."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from space import warm_up
from space.warm_up import MODULES
from tests.space.served import CARDS, ROOT

# What takes seconds to import, or much memory, and what no page is made of; of scipy a board takes
# a part, once it is asked for.
LATER = {
    "torch", "torchvision", "timm", "transformers", "open_clip", "datasets", "accelerate",
    "safetensors", "sklearn", "matplotlib", "scipy.stats", "scipy.optimize",
}  # fmt: skip

# Serves the results that ship, and gets the first page and what is then put into it.
VISIT = """
import json, sys, urllib.request
from pathlib import Path
from types import SimpleNamespace
from space.app import build, desk_of, launch
from space.warm_up import warm_up

app = build(desk_of(sys.argv[1], Path(sys.argv[2])))
launch(app, prevent_thread_lock=True, quiet=True)
page = urllib.request.urlopen(app.local_url).read().decode()
bare = sorted(sys.modules)
events = [event.fn for event in app.fns.values()]
(opened,) = (fn for fn in events if getattr(fn, "__name__", "") == "opened")
shown = opened(SimpleNamespace(query_params={}))
print(json.dumps({
    "title": "TransferZoo" in page, "board": "CE+SelfSupCon" in str(shown),
    "free": sorted(fn.__name__ for fn in events if fn and not hasattr(fn, "__wrapped__")),
    "warm_up": events.count(warm_up), "bare": bare, "modules": sorted(sys.modules),
}))
"""


def python(code: str, *arguments: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_first_page_waits_for_nothing_that_only_models_need(tmp_path: Path) -> None:
    seen = python(VISIT, str(CARDS), str(tmp_path))
    assert seen["title"]
    assert seen["board"]
    assert (LATER | {"scipy.special"}) & set(seen["bare"]) == set()
    assert LATER & set(seen["modules"]) == set()
    assert seen["free"] == ["opened", "warm_up"]  # all else waits for the thread that imports
    assert seen["warm_up"] == 1  # it begins once a page has been opened


@pytest.mark.slow
@pytest.mark.parametrize(("module", "writes"), [("gradio", True), ("space.app", False)])
def test_no_stubs_of_gradio_are_written(module: str, writes: bool) -> None:
    """gradio's own import does, else there would be nothing to leave."""
    code = (
        "import importlib, json, sys\n"
        "opened = []\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('.pyi'): opened.append(str(args[0]))\n"
        "sys.addaudithook(hook)\n"
        "importlib.import_module(sys.argv[1])\n"
        "import gradio as gr\n"
        "with gr.Blocks():\n"
        "    gr.Button().click(print, gr.Textbox(), None)\n"
        "print(json.dumps(opened))"
    )
    assert bool(python(code, module)) is writes


@pytest.mark.slow
def test_models_are_made_ready_in_the_background_once() -> None:
    code = (
        "import json, sys, threading\n"
        "from space.warm_up import importing, warm_up\n"
        "assert 'torch' not in sys.modules\n"
        "warm_up(); warm_up()\n"
        "thread = importing()\n"
        "assert thread is not threading.current_thread() and thread.daemon\n"
        "thread.join()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert set(MODULES) - set(python(code)) == set()


def test_what_is_asked_for_waits_until_all_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins the import where nobody has, and is called as it would be without."""
    told: list[str] = []
    free = threading.Event()

    def work() -> None:
        free.wait(10)
        told.append("imported")

    monkeypatch.setattr(warm_up, "_work", work)
    warm_up.importing.cache_clear()

    def page(a: int, *, b: int) -> int:
        told.append("asked")
        return a + b

    waiting = warm_up.after_it(page)
    threading.Timer(0.2, free.set).start()
    assert waiting(1, b=2) == 3
    assert told == ["imported", "asked"]
    assert inspect.signature(waiting) == inspect.signature(page)
    warm_up.importing.cache_clear()
