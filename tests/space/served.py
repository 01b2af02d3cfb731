"""The app in a process of its own, and a browser's visit to it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.analysis.finding import write_finding
from eval.models.objectives import STUDY
from eval.results.store import write_result
from tests.factories import make_result
from tests.hub import LoopbackHub
from tests.space.detectors import COCO, VOC, detector, real_examples, task_of
from tests.space.findings import every

ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "model_cards"
DATA = ROOT.parent / "shared" / "data"
PATIENCE = 180.0  # seconds a server may take to start on a busy machine
MODELS = ("zoo:resnet18_narrow.ce_tin100", "zoo:resnet18_narrow.ce_selfsupcon_tin100")
# Names by strangers. Each would set window.owned where a page took it for HTML or Markdown.
HOSTILE_MODELS = (
    "zoo:<img src=x onerror=window.owned=1>.ce_x",
    "hf-hub:a/<script>window.owned=1</script>",
    "[x](javascript:window.owned=1)",
    "**b** `c` $d$ <b onmouseover=window.owned=1>e</b>",
)
HOSTILE_TASKS = ("<img src=x onerror=window.owned=1>", "[t](javascript:window.owned=1)")


@dataclass
class App:
    """A served app. ``hub`` is the loopback Hub that its process talks to."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    hub: LoopbackHub
    results: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> App:
        end = time.monotonic() + PATIENCE
        while "Running on" not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.1)
        return self


def serve(folder: Path, results: Path, hub: LoopbackHub, data: Path | None = None) -> App:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "space", "--port", str(port), "--results", str(results),
             "--queue", str(folder / "queue"), "--cache", str(folder / "cache"),
             *(["--data", str(data)] if data else [])],
            cwd=folder, env=environment(folder, hub), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    return App(f"http://127.0.0.1:{port}", process, log, hub, results)


def environment(folder: Path, hub: LoopbackHub) -> dict[str, str]:
    """Of a served app: nothing of where the developer, or CI, keeps data, results and caches. A
    page that offers what lies there would say other things on every machine."""
    ours = {k: v for k, v in hub.env(folder / "hf").items() if not k.startswith("TRANSFERZOO_")}
    return ours | {
        "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def detector_shelf(folder: Path, data: Path) -> Path:
    """Made-up detectors, with boxes in real images where there are some."""
    folder.mkdir()
    task = task_of(data, folder.parent / "detector-cache") if data.is_dir() else None
    for i, name in enumerate(STUDY):
        model = f"zoo:resnet18_narrow.{name.replace('+', '_')}_tin100"
        boxes = real_examples(task, i) if task else []
        about = {"split_hash": task.split_hash, "task_split": task.split} if task else {}
        ap = 0.42 - 0.02 * i - 0.1 * (i > 3)
        result = detector(model, ap, seed=i, names=(*COCO, *VOC), examples=boxes, **about)
        write_result(folder / f"{i}.json", result)
    strange = detector(HOSTILE_MODELS[0], 0.1, HOSTILE_TASKS[0])
    write_result(folder / "strange.json", strange)
    models = [f"zoo:resnet18_narrow.{name.replace('+', '_')}_tin100" for name in STUDY]
    for finding in every(models, ("eurosat", "dtd")):
        write_finding(folder, finding)
    return folder


def hostile_shelf(folder: Path) -> Path:
    """Strangers' names on data sets of strange names, and two real models on a real data set."""
    count = 0
    for protocol in ("linear", "fewshot"):
        for i, model in enumerate(HOSTILE_MODELS):
            for task in HOSTILE_TASKS:
                top1 = 0.2 + 0.15 * i
                write_result(
                    folder / f"{count}.json", make_result(model, task, protocol, top1=top1)
                )
                count += 1
    for finding in every(HOSTILE_MODELS, HOSTILE_TASKS):
        write_finding(folder, finding)
    for i, model in enumerate(MODELS):
        result = make_result(model, "digits", "linear", top1=0.6 + 0.1 * i)
        write_result(folder / f"{count + i}.json", result)
    return folder


def many_shelf(folder: Path, models: int) -> Path:
    """Made-up results of many models, of a few labs and objectives, on ten data sets."""
    random = np.random.RandomState(0)
    tasks = ("cropdisease", "deepweeds", "eurosat", "resisc45", "isic2018", "dtd", "omniglot",
             "svhn", "pacs_sketch", "flowers102")  # fmt: skip
    hard = {task: random.uniform(size=200) for task in tasks}
    for m in range(models):
        name = STUDY[m % len(STUDY)].replace("+", "_")
        kind = ("zoo:", "hf-hub:vision-lab/", "hf-hub:a-university/", "")[m % 4]
        skill = random.uniform(0.35, 0.8)
        size = int(10 ** random.uniform(6, 8.5))
        for task in tasks:
            right = hard[task] + random.normal(0, 0.15, 200) < skill
            result = make_result(f"{kind}net{m:02d}.{name}_in1k", task, "linear", correct=right)
            model = result.model.model_copy(update={"params": size})
            write_result(folder / f"{m}-{task}.json", result.model_copy(update={"model": model}))
    return folder


# Half a second without anything that waits for the server: pale, or empty so far.
SETTLED = """() => {
  const waits = document.querySelector('.pending') ||
    [...document.querySelectorAll('[aria-label="Empty value"]')].some((e) => e.checkVisibility());
  window.quietSince = waits ? undefined : window.quietSince ?? performance.now();
  return performance.now() - window.quietSince >= 500;
}"""


@dataclass
class Visit:
    """One browser tab and everything that went wrong in it."""

    page: Any
    app: App
    shots: Path
    hosts: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def open(self, query: str = "", wait: str = "#board tbody tr") -> Visit:
        """Go there, and wait until results are shown; the server may still be reading them."""
        end = time.monotonic() + PATIENCE
        while True:
            self.page.goto(self.app.url + "/" + query)
            self.page.wait_for_selector("#headline h3", state="attached")
            text = self.page.locator("#headline").text_content()
            reading = "no results yet" in text or "reading" in text.lower()
            if not (reading and wait) or time.monotonic() > end:
                break
            time.sleep(0.3)
        if wait:
            self.page.wait_for_selector(wait, state="attached")  # another tab may be open
        return self

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def settle(self) -> None:
        """Wait until all of an open page is there, as it stays."""
        self.page.evaluate("window.quietSince = undefined")
        self.page.wait_for_function(SETTLED)

    def pick(self, label: str, option: str) -> None:
        """Choose in a dropdown, as a visitor does; option is the beginning of its text."""
        self.page.locator(f"input[aria-label^='{label}']:visible").first.click()
        begins = re.compile(r"^\W*" + re.escape(option))
        self.page.locator("[role=option]:visible").filter(has_text=begins).first.click()

    def keep(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)

    def overflows(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")

    def models(self) -> list[str]:
        """The names on the board, from the top."""
        return [text.strip() for text in self.page.locator("#board td.name .id").all_inner_texts()]

    def means(self) -> list[str]:
        """The means on the board, from the top."""
        return [" ".join(t.split()) for t in self.page.locator("#board td.mean").all_inner_texts()]

    def column(self, index: int, table: str) -> list[str]:
        """The texts of a table component's column."""
        cells = self.page.locator(f"{table} [role=gridcell][data-col='{index}']")
        return [text.strip() for text in cells.all_inner_texts()]


def profile(browser: Any, width: int = 1280, dark: bool = False) -> Any:
    """A visitor's own cookies, storage and cache."""
    return browser.new_context(
        viewport={"width": width, "height": 844 if width < 600 else 900}, accept_downloads=True,
        locale="en-US", color_scheme="dark" if dark else "light",
    )  # fmt: skip


def add_tiny(hub: LoopbackHub, name: str, model_dir: Path) -> str:
    files = {p.name: p.read_bytes() for p in model_dir.iterdir()}
    return hub.add_model(name, files | {"README.md": b"---\nlicense: mit\n---\n"})
