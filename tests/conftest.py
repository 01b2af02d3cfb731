"""Fixtures and hooks shared by all tests: how a run goes, a loopback Hub, the real data.

``huggingface_hub`` reads HF_ENDPOINT once, when it is imported, so the loopback Hub is started
before any test module is. A run is parallel and leaves out what is marked slow, unless it is told
otherwise: see "How a run goes".
"""

from __future__ import annotations

import os

# Tests run side by side and start processes of their own: more threads would spin against each
# other. Read when torch is imported, and by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)  # workers of xdist have one: tests see what a pipe sees

import json
import logging
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest

from tests.factories import Cli, Ran, make_task
from tests.hub import LoopbackHub

CHROMIUM = "/usr/bin/chromium"
MOST_WORKERS = 8  # a worker takes some 1.5 GB at its largest
DEFAULT = "not slow"  # as addopts in pyproject.toml has it
MAY_SKIP = "root may write anywhere"  # containers run as root
_REQUIRED = os.environ.get("TRANSFERZOO_REQUIRE_ALL") == "1"  # set by .ci/run: nothing may skip
_HUB = LoopbackHub()
_HOME = tempfile.TemporaryDirectory(prefix="transferzoo-test-hf-")
_left_out = pytest.StashKey[int]()

# A machine that is busy with other workers is not a failure of the code under test.
hypothesis.settings.register_profile("transferzoo", deadline=None)
hypothesis.settings.load_profile("transferzoo")


# --------------------------------------------------------------------------- how a run goes

# Files that take longest, first: with several workers none is left alone with one at the end.
LONG = (
    "space/test_browser", "engines/test_drive", "campaign/test_campaign", "zoo/study/test_study",
    "space/test_visits", "zoo/train/test_pretrain", "run/test_resume", "run/test_round_trip",
    "engines/test_slurm", "detection/test_overfit", "zoo/train/test_learning",
    "finetune/test_finetune", "test_readme", "zoo/test_checkpoints", "queue/test_worker",
    "test_working_directory", "sharing/test_sharing", "queue/test_reviewer",
    "common/test_extras", "engines/test_ray",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Let the options of addopts be there, without effect, under ``-p no:xdist``."""
    if not pluginmanager.has_plugin("xdist"):
        group = parser.getgroup("xdist", "no effect: pytest-xdist is not in use")
        group.addoption("--numprocesses")
        group.addoption("--dist")
        group.addoption("--no-loadscope-reorder", action="store_true")


def _only_files(config: pytest.Config) -> bool:
    """Whether files or single tests are named, no folders."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return False
    return all(Path(arg.split("::")[0]).suffix == ".py" for arg in config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores, as tests wait for processes a lot; none for one file, all in one."""
    if config.option.collectonly or (_only_files(config) and len(config.args) == 1):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min((cores or 1) + 1, MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else its children ignore it too
    if config.option.markexpr == DEFAULT and _only_files(config):
        config.option.markexpr = ""  # who names a file wants all of it
    _HUB.__enter__()
    os.environ.update(_HUB.settings(Path(_HOME.name)))


def pytest_unconfigure() -> None:
    _HUB.__exit__(None, None, None)
    _HOME.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(tests).with_suffix("").as_posix()
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)  # stable: else as collected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may skip, a skip is a failure, but for what no machine of ours can try."""
    report = yield
    if _REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not why.endswith(MAY_SKIP):
            report.outcome, report.longrepr = "failed", f"{item.nodeid}: {why}"
    return report


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what is left out for being slow."""
    for item in items:
        if item.config.option.markexpr == DEFAULT and item.get_closest_marker("slow"):
            stash = item.config.stash
            stash[_left_out] = stash.get(_left_out, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells the main process, which collects nothing itself."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_left_out, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    found = getattr(node, "workeroutput", {}).get("left_out", 0)
    stash = node.config.stash
    stash[_left_out] = max(stash.get(_left_out, 0), found)  # all workers collect the same


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    count = config.stash.get(_left_out, 0)
    if count:
        many = "test was" if count == 1 else "tests were"
        terminalreporter.write_line(
            f"{count} slow {many} left out: add -m slow for those alone, -m '' for all."
        )


# --------------------------------------------------------------------------- fixtures


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The loopback Hub of this session; ``huggingface_hub`` in this process talks to it.

    A test's planned faults end with it, and nobody waits long for a busy Hub.
    """
    monkeypatch.setattr("eval.hub.client.WAITS", (0.01, 0.02, 0.04))
    _HUB.requests.clear()
    yield _HUB
    _HUB.clear_faults()


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for a busy Hub: by us, or by the client itself. None passes."""
    waited: list[float] = []
    clock = SimpleNamespace(**{k: getattr(time, k) for k in dir(time) if not k.startswith("_")})
    clock.sleep = waited.append
    monkeypatch.setattr("eval.hub.client.time", clock)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    return waited


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image data. Absent: skip, or fail where everything is required."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TRANSFERZOO_DATA", default))
    if not (folder / "eurosat").is_dir():
        reason = f"real image data are not at {folder} (set TRANSFERZOO_DATA)"
        if _REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    """Runs a command here. Warnings and log lines, which pytest keeps from stderr, count as it."""

    import eval.__main__

    # pytest's workers have COLUMNS=80, by which boards would fit a screen that is not there.
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*argv: str | Path) -> Ran:
        capfd.readouterr()
        caplog.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                code = eval.__main__.main([str(a) for a in argv])
            except SystemExit as stop:  # argparse after --help
                code = int(stop.code or 0)
        out, err = capfd.readouterr()
        err += "".join(f"{w.category.__name__}: {w.message}\n" for w in caught)
        logged = [r for r in caplog.records if r.levelno >= logging.WARNING]
        return Ran(code, out, err + "".join(f"{r.name}: {r.getMessage()}\n" for r in logged))

    return run


@pytest.fixture
def task_dir(tmp_path: Path) -> Path:
    """A made-up six-class data set in Parquet."""
    return make_task(tmp_path / "photos")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny timm checkpoint as it lies on the Hub: config.json and model.safetensors."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    torch.manual_seed(1)
    net = timm.create_model("test_resnet", num_classes=7)
    save_file(net.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_resnet",
        "num_classes": 7,
        "num_features": net.num_features,
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": 7,
            "classifier": "fc",
            "first_conv": "conv1.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium. Absent: skip, or fail where everything is required."""
    reason = ""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        reason = "playwright is not installed"
    path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if not reason and not path:
        reason = f"no browser at {CHROMIUM}"
    if reason:
        if _REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
