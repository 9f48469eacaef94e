"""Overview."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from worldeval.reports.markup import escape

from ..context import Context
from . import pane

TITLE = "Overview"


def build(context: Context) -> None:
    pane("overview")


def routes(context: Context) -> APIRouter:
    router = APIRouter()

    @router.get("/pane/overview", response_class=HTMLResponse)
    def shown() -> str:
        return "<br>".join(escape(run.name) for run in context.index.runs())

    return router
