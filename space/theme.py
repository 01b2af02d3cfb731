"""The look: Gradio's own theme with system fonts, so that nothing is fetched from elsewhere."""

from __future__ import annotations

import gradio as gr

from space.figures.plots import CSS as PLOTS

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
THEME = gr.themes.Default(
    primary_hue="blue", font=_FONTS, font_mono=["ui-monospace", "Consolas", "monospace"]
)
CSS = """
.gradio-container {max-width: 1500px !important}
#headline h3 {font-size: 1.25rem; line-height: 1.4}
.gradio-container table, .gradio-container table *, :is(#board, #detectors, #detection-classes) * {
  font-family: inherit !important; font-variant-numeric: tabular-nums}
#board th {font-size: .8rem}
#board .cell-wrap {overflow-wrap: anywhere; word-break: normal}
.pictures .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(72px, 110px)) !important}
#boxes .grid-container {grid-template-columns: 1fr 1fr !important}
#boxes .grid-wrap {max-height: none !important; height: auto !important; overflow: visible}
#boxes .thumbnail-item {aspect-ratio: auto !important; height: auto !important}
#boxes .thumbnail-item img {height: auto !important}
#classes {display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr))}
@media (max-width: 640px) {
  .gradio-container {padding: 8px !important}
  #headline h3 {font-size: 1.05rem}
  #boxes .grid-container {grid-template-columns: 1fr !important}
  #board td, #board th {font-size: .72rem}
}
"""
CSS += PLOTS
