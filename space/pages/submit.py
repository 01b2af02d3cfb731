"""Page 5: ask for a model to be scored, and see what became of each request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from eval.common.errors import UserError
from eval.common.text import escaped
from eval.queue.candidate import Candidate, check
from eval.queue.open import open_queue
from eval.queue.request import Ticket

ON_THE_HUB = bool(os.environ.get("SPACE_ID"))  # set where Hugging Face runs the app
_HEADERS = ["model", "commit", "state", "note", "asked by", "since"]
_NO_QUEUE = "This app has no queue for requests; start it with --queue DIR or --queue hub:ORG/NAME."


class Submit:
    """The page's components, and the functions behind its events."""

    def __init__(self, queue: str, cache: Path) -> None:
        self.queue, self.cache = queue, cache
        gr.Markdown(
            "Name a model of the Hub that timm can load. It is checked at once, by its metadata "
            "alone, and pinned to its commit; a worker scores it on the whole suite."
        )
        if ON_THE_HUB:
            gr.LoginButton()
        with gr.Row():
            self.text = gr.Textbox(
                label="Model", placeholder="org/name or org/name@revision", scale=4,
                elem_id="submission", max_length=250,
            )  # fmt: skip
            self.button = gr.Button(
                "Submit", variant="primary", elem_id="submit", elem_classes="beside"
            )
        self.said = gr.Markdown(elem_id="submitted")
        gr.Markdown("### Requests")
        self.table = gr.Dataframe(
            headers=_HEADERS,
            interactive=False,
            wrap=True,
            elem_id="requests",
            show_label=False,
            buttons=[],
        )
        self.refresh = gr.Button("Refresh", size="sm", elem_id="refresh")

    def wire(self) -> None:
        """Connect the events."""
        ask: Any = self.ask_logged_in if ON_THE_HUB else self.ask
        for event in (self.button.click, self.text.submit):
            event(ask, self.text, [self.said, self.table], api_visibility="private",
                  concurrency_limit=2, concurrency_id="submit")  # fmt: skip
        self.refresh.click(self.requests, None, self.table, api_visibility="private")

    # ------------------------------------------------------------------ behind the events

    def ask(self, text: str, request: gr.Request) -> tuple[str, Any]:
        """Check a model and put it into the queue, for whoever this address is."""
        host = request.client.host if request and request.client else "unknown"
        return self._ask(text, f"visitor {host}")

    def ask_logged_in(self, text: str, profile: gr.OAuthProfile | None) -> tuple[str, Any]:
        """Check a model and put it into the queue, for the user who is logged in."""
        if profile is None:
            return "**Log in first: requests are counted by user.**", self.requests()
        return self._ask(text, profile.username)

    def _ask(self, text: str, user: str) -> tuple[str, Any]:
        try:
            if not self.queue:
                raise UserError(_NO_QUEUE)
            candidate = check(text or "", self.cache)
            ticket = open_queue(self.queue).add(candidate, user)
        except UserError as why:
            return f"**{escaped(str(why))}**", self.requests()
        return said(candidate, ticket), self.requests()

    def requests(self) -> dict[str, Any]:
        """All requests and their states, the latest first."""
        try:
            tickets = open_queue(self.queue).tickets() if self.queue else []
        except UserError as why:
            return {"headers": ["error"], "data": [[str(why)]]}
        rows = [row(ticket) for ticket in reversed(tickets)]
        none = "no request yet: name a model above" if self.queue else _NO_QUEUE
        return {"headers": _HEADERS, "data": rows or [[none, *[""] * (len(_HEADERS) - 1)]]}


def said(candidate: Candidate, ticket: Ticket) -> str:
    """What was found of the model, and where its request stands."""
    size = f"{candidate.bytes / 1e6:.0f} MB"
    params = f"{candidate.params / 1e6:.1f} M parameters, " if candidate.params else ""
    licence = candidate.licence or "none stated: ask its authors before you use it"
    return (
        f"**{escaped(candidate.repo)}** at commit {candidate.sha[:7]}: "
        f"{escaped(candidate.architecture)}, {params}{size}. Licence: {escaped(licence)}.\n\n"
        f"Its request is **{ticket.state}**. {escaped(ticket.note)}"
    )


def row(ticket: Ticket) -> list[str]:
    """One request as the table shows it; its cells are shown as plain text."""
    model, _, sha = ticket.ask.spec.removeprefix("hf-hub:").partition("@")
    since = ticket.since[:16].replace("T", " ")
    return [model, sha[:7], ticket.state, ticket.note, ticket.ask.user, since]
