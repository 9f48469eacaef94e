"""Data: episodes kept and rejected, and odd ones."""

from __future__ import annotations

import gradio as gr

from ..context import Context

TITLE = "Data"


def build(context: Context) -> None:
    gr.HTML('<p class="we-empty">This tab is being built.</p>')
