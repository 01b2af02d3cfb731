"""What a kind of the campaign finds, and where it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.hub import LoopbackHub

TOKEN = "hf_campaignSecretToken0123456789"


@dataclass(frozen=True)
class Place:
    """An empty folder, and a Hub on which ``TOKEN`` is that of ada, who may write to lab."""

    folder: Path
    hub: LoopbackHub


@dataclass
class Outcome:
    """How many of the tries went as they must, and the sentences of those that did not."""

    tried: int = 0
    passed: int = 0
    failures: list[str] = field(default_factory=list)

    def note(self, what: str, why: str = "", *, count: int = 1) -> None:
        """A try, or ``count`` of them; ``why`` it failed, if it did."""
        self.tried += count
        if why:
            self.failures.append(f"{what}: {why}")
        else:
            self.passed += count

    @property
    def equal(self) -> bool:
        return 0 < self.tried == self.passed


Campaign = Callable[[Place, int, int], Outcome]


def open_to_ada(hub: LoopbackHub) -> None:
    """The Hub is strict about tokens and namespaces, and knows ada's."""
    hub.tokens = {TOKEN}
    hub.users = {TOKEN: "ada"}
    hub.orgs = {"ada": {"lab"}}
    hub.strict_auth = hub.strict_namespaces = True
