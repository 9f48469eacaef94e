"""Label: say of rollouts whether they succeeded, without knowing the policy."""

from __future__ import annotations

import gradio as gr

from ..context import Context

TITLE = "Label"


def build(context: Context) -> None:
    gr.HTML('<p class="we-empty">This tab is being built.</p>')
