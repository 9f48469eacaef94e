"""Compare: two to four policies from the same start state, side by side."""

from __future__ import annotations

import gradio as gr

from ..context import Context

TITLE = "Compare"


def build(context: Context) -> None:
    gr.HTML('<p class="we-empty">This tab is being built.</p>')
