"""The look of all pages: one theme for light and dark, its style sheet and its script.

System fonts and no images, so that nothing is fetched from elsewhere. `page.css` names the colours
once, with a contrast of at least 4.5 for every letter; the colours of objectives are those of the
plots (`space.figures.style`). `page.js` keeps the address, saves files and moves about the board.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from space.figures.style import CSS as _PLOTS

_HERE = Path(__file__).resolve().parent
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_COLOURS = {  # (light, dark)
    "body_background_fill": ("#ffffff", "#10161d"),
    "background_fill_primary": ("#ffffff", "#10161d"),
    "background_fill_secondary": ("#f5f7f9", "#18212b"),
    "body_text_color": ("#17212b", "#e7ecf1"),
    "body_text_color_subdued": ("#4d5a67", "#aab6c2"),
    "block_background_fill": ("#ffffff", "#10161d"),
    "block_border_color": ("#dce2e8", "#2c3845"),
    "border_color_primary": ("#dce2e8", "#2c3845"),
    "border_color_accent": ("#0b5cad", "#7cb8f5"),
    "color_accent_soft": ("#e8f1fb", "#1b2f45"),
    "block_label_text_color": ("#4d5a67", "#aab6c2"),
    "block_label_background_fill": ("#ffffff", "#10161d"),
    "block_title_text_color": ("#4d5a67", "#aab6c2"),
    "block_info_text_color": ("#4d5a67", "#aab6c2"),
    "input_background_fill": ("#ffffff", "#18212b"),
    "input_border_color": ("#b9c3cd", "#42505f"),
    "input_placeholder_color": ("#63707d", "#94a1ae"),
    "link_text_color": ("#0b5cad", "#7cb8f5"),
    "link_text_color_hover": ("#084a8c", "#a7d0fa"),
    "link_text_color_visited": ("#0b5cad", "#7cb8f5"),
    "button_primary_background_fill": ("#0b5cad", "#1f6fbd"),
    "button_primary_background_fill_hover": ("#084a8c", "#1a62a8"),
    "button_primary_text_color": ("#ffffff", "#ffffff"),
    "button_secondary_background_fill": ("#f5f7f9", "#18212b"),
    "button_secondary_background_fill_hover": ("#e9edf1", "#22303d"),
    "button_secondary_text_color": ("#17212b", "#e7ecf1"),
    "button_secondary_border_color": ("#b9c3cd", "#42505f"),
    "checkbox_label_background_fill": ("#f5f7f9", "#18212b"),
    "checkbox_label_background_fill_selected": ("#e8f1fb", "#1b2f45"),
    "checkbox_label_text_color": ("#17212b", "#e7ecf1"),
    "checkbox_label_text_color_selected": ("#17212b", "#e7ecf1"),
    "checkbox_background_color_selected": ("#0b5cad", "#1f6fbd"),
    "checkbox_border_color_selected": ("#0b5cad", "#7cb8f5"),
    "table_even_background_fill": ("#ffffff", "#10161d"),
    "table_odd_background_fill": ("#f8f9fb", "#141c24"),
    "table_border_color": ("#dce2e8", "#2c3845"),
    "table_text_color": ("#17212b", "#e7ecf1"),
    "table_row_focus": ("#e8f1fb", "#1b2f45"),
    "code_background_fill": ("#f0f3f6", "#18212b"),
    "slider_color": ("#0b5cad", "#7cb8f5"),
    "stat_background_fill": ("#9cc6ef", "#1f6fbd"),
    "loader_color": ("#0b5cad", "#7cb8f5"),
}


def _theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=_FONTS, spacing_size="md", radius_size="sm",
        font_mono=["ui-monospace", "SFMono-Regular", "Consolas", "monospace"],
    )  # fmt: skip
    both = {
        f"{name}{end}": colour
        for name, pair in _COLOURS.items()
        for end, colour in zip(("", "_dark"), pair, strict=True)
    }
    return theme.set(block_shadow="none", button_primary_shadow="none", **both)


THEME = _theme()
CSS = (_HERE / "page.css").read_text("utf-8") + _PLOTS
HEAD = f"<script>{(_HERE / 'page.js').read_text('utf-8')}</script>"
