"""One file per tab of the inspector.

A tab is a module with ``TITLE``, ``build(context)`` (called within ``gr.Blocks``: makes the Gradio
components of the tab) and, where the browser fetches more by itself, ``routes(context)``, an
``APIRouter`` that is served below ``inspector/``. Its file's name is its name in the URL
(``?tab=browse``). To add one: write the file and name it in ``TABS``.

The shortest tab is HTML that the server makes and the client (``static/app.js``) shows: ``build``
calls ``pane("browse")`` and ``routes`` serves ``GET inspector/pane/browse``, the HTML for the state
in its query (``?run=..&q=..``), with all text from outside through
``worldeval.reports.markup.escape``. Within it a link ``<a href="?tab=browse&rollout=ID" data-go>``
changes the state, which is the URL, and what is shown; so does a ``<form data-go>``.
"""

TABS = ("overview", "browse", "compare", "label", "live", "data")


def pane(name: str) -> None:
    """An element that the client fills with ``GET inspector/pane/NAME`` for the URL's state."""
    import gradio as gr

    gr.HTML(
        f'<div class="we-pane" data-pane="{name}"><p class="we-empty">Loading …</p></div>',
        apply_default_css=False,
    )
