"""`python -m tests.hub [PORT]`: an empty hub with one token, until Ctrl-C."""

from __future__ import annotations

import sys
import threading

from .server import LoopbackHub

TOKEN = "hf_loopback"

# All of it inside `try`: who reads the line may press Ctrl-C before print has returned.
try:
    with LoopbackHub(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as hub:
        hub.tokens.add(TOKEN)
        print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
        threading.Event().wait()
except KeyboardInterrupt:
    print("stopped", file=sys.stderr)
