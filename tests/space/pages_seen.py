"""What tests of the browser do on the pages, and read there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def headline(seen: Any) -> str:
    # not the whole block: while it waits, Gradio writes the seconds into it
    return "\n".join(seen.page.locator("#headline h3, #headline p").all_inner_texts()).strip()


def downloaded(seen: Any, label: str) -> tuple[str, bytes]:
    """The name and content of the file that one click makes."""
    with seen.page.expect_download() as waiting:
        seen.page.locator("button:visible").filter(has_text=label).first.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def address_has(seen: Any, part: str) -> None:
    seen.page.wait_for_function("part => location.search.includes(part)", arg=part)


def upload(seen: Any, label: str, files: list[dict[str, Any]], shown: int) -> None:
    """Through the gallery's own file chooser."""
    block = seen.page.locator(".pictures").filter(has_text=label).filter(visible=True).first
    with seen.page.expect_file_chooser() as chooser:
        block.get_by_role("button", name=re.compile("Click to upload or drop", re.I)).first.click()
    chooser.value.set_files(files)
    block.locator(".thumbnail-item img").nth(shown - 1).wait_for()
