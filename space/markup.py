"""Pieces of HTML that the pages write themselves. Foreign text goes through `safe`."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from eval.common.text import visible
from space.figures.style import look

# The symbols of the plots in a box of 12 x 12.
_SHAPES = {
    "circle": '<circle cx="6" cy="6" r="5"/>',
    "square": '<path d="M1.5 1.5h9v9h-9z"/>',
    "triangle-up": '<path d="M6 .8 11.6 10.8H.4z"/>',
    "diamond": '<path d="M6 .3 11.7 6 6 11.7.3 6z"/>',
    "star": '<path d="M6 .2 7.5 4.4 12 4.5 8.4 7.2l1.3 4.3L6 8.9l-3.7 2.6 1.3-4.3L0 4.5l4.5-.1z"/>',
    "cross": '<path d="M4.2.5h3.6v3.7h3.7v3.6H7.8v3.7H4.2V7.8H.5V4.2h3.7z"/>',
    "x": '<path d="m2 0 4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4z"/>',
    "hexagon": '<path d="M6 .4 11 3.2v5.6L6 11.6 1 8.8V3.2z"/>',
}  # fmt: skip


def safe(text: object) -> str:
    """Foreign text as HTML that shows it, in content and in attributes."""
    return html.escape(visible(" ".join(str(text).split())), quote=True)


def breakable(text: object, joints: str = "_/.") -> str:
    """`safe`, with places where a long name may be broken: behind its own joints alone."""
    out = safe(text)
    for joint in joints:
        out = out.replace(joint, f"{joint}<wbr>")
    return out


def mark(objective: str) -> str:
    """An objective's symbol in its colour, as on every plot. It says nothing to a screen reader:
    the name stands beside it."""
    style = look(objective)
    return (
        f'<svg class="mark" viewBox="0 0 12 12" width="12" height="12" fill="{style.colour}" '
        f'aria-hidden="true">{_SHAPES.get(style.symbol, _SHAPES["circle"])}</svg>'
    )


def thumbnail(image: Image.Image, side: int = 128) -> bytes:
    """A small copy of an RGB picture, some kilobytes of WebP."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def picture(webp: bytes, alt: str, css: str = "") -> str:
    """A thumbnail that is part of the page itself: no file is kept for it."""
    data = base64.b64encode(webp).decode()
    return f'<img class="{css}" alt="{safe(alt)}" src="data:image/webp;base64,{data}">'
