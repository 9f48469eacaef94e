"""Live: drive the imagined world yourself."""

from __future__ import annotations

import gradio as gr

from ..context import Context

TITLE = "Live"


def build(context: Context) -> None:
    gr.HTML('<p class="we-empty">This tab is being built.</p>')
