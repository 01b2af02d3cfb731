"""Twenty visitors at once in the few-shot demo: right answers, no error, bounded memory."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from gradio_client import Client

from tests.space.questions import photos, question
from tests.space.served import App

pytestmark = pytest.mark.slow  # visitors for many seconds

VISITORS = 20
SECONDS = float(os.environ.get("TRANSFERZOO_LOAD_SECONDS", "8"))
PATIENCE = 60.0  # seconds more until somebody who waits is told how many are before
GROWTH = 300 * 2**20  # bytes after the first answers: buffers of 20 questions, no leak
CLASSES = (0, 5, 11)
SHOTS = 4


def _waits_to_be_told(place: list[Any], end: float) -> bool:
    return not any(place) and time.monotonic() < end + PATIENCE


def test_twenty_visitors_at_once(app: App, tmp_path: Path) -> None:
    supports = [photos(tmp_path, label, SHOTS) for label in CLASSES]
    # the first picture of each class again: whoever is asked, the answer is known
    queries = [gallery[0] for gallery in reversed(supports)]
    expected = [f"kind {i}" for i in reversed(range(len(CLASSES)))]
    seconds: list[float] = []
    wrong: list[str] = []
    place: list[Any] = []
    end = 0.0

    def ask(client: Client) -> None:
        start = time.monotonic()
        job = client.submit(*question(supports, queries), api_name="/classify")
        while not job.done():
            status = job.status()
            if status.rank is not None and status.queue_size:
                place.append(status.rank)
            time.sleep(0.2)
        said = job.result()
        chances = [p["probabilities"] for p in said["models"][0]["predictions"]]
        answers = [max(each, key=each.__getitem__) for each in chances]
        if said["models"][0]["right"] is None or answers != expected:
            wrong.append(f"{said}")
        seconds.append(time.monotonic() - start)

    def visit(client: Client) -> None:
        try:
            # On a busy machine a while longer: the server tells a place when it gets round to it.
            while time.monotonic() < end or not seconds or _waits_to_be_told(place, end):
                ask(client)
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")

    clients = [Client(app.url, verbose=False) for _ in range(VISITORS)]
    ask(clients[0])  # the model is loaded
    server = psutil.Process(app.process.pid)
    seconds.clear()
    threads = [threading.Thread(target=visit, args=(client,)) for client in clients]
    before = most = server.memory_info().rss
    end = time.monotonic() + SECONDS
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, server.memory_info().rss)
        time.sleep(0.1)
    print(
        f"{len(seconds)} answers to {VISITORS} visitors in {SECONDS:g} s: median "
        f"{statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s; "
        f"memory {before / 2**20:.0f} MB, then at most {most / 2**20:.0f} MB"
    )
    assert wrong == []
    assert len(seconds) >= VISITORS
    assert most - before < GROWTH
    assert max(place, default=0) >= 1  # who waits is told how many are before
    assert app.process.poll() is None
