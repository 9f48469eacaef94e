"""The routes below ``inspector/``: scripts and styles, what tabs serve, and errors as sentences.

From the browser come identifiers, never paths. What leaves is HTML and JSON made here, and films of
rollouts under the run roots.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from worldeval import WorldEvalError
from worldeval.reports.style import scoped_style

from .context import Context
from .one_file import one_file_routes
from .player import player_routes
from .query import QueryError
from .tabs import TABS

PREFIX = "/inspector"
STATIC = Path(__file__).parent / "static"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def tabs() -> dict[str, ModuleType]:
    """Name in the URL -> module, in the order in which they are shown."""
    return {name: import_module(f"{__package__}.tabs.{name}") for name in TABS}


def make_server(context: Context) -> FastAPI:
    """A FastAPI app with the routes of all tabs and without Gradio's page."""
    app = FastAPI(title="worldeval inspector", docs_url=None, redoc_url=None, openapi_url=None)
    files = {place.name: place for place in STATIC.iterdir() if place.suffix in _KINDS}

    @app.get(f"{PREFIX}/static/{{name}}")
    def static(name: str) -> Response:
        if name not in files:
            return JSONResponse({"error": "there is no such file"}, 404)
        kind = f"{_KINDS[files[name].suffix]}; charset=utf-8"
        return FileResponse(files[name], media_type=kind, headers={"Cache-Control": "no-cache"})

    style = scoped_style(".we-report")

    @app.get(f"{PREFIX}/report.css")
    def report_style() -> Response:
        return Response(style, media_type="text/css; charset=utf-8")

    @app.exception_handler(WorldEvalError)
    def told(request: Request, error: WorldEvalError) -> Response:
        status = 400 if isinstance(error, QueryError) else 404
        return JSONResponse({"error": str(error)}, status)

    app.include_router(player_routes(context), prefix=PREFIX)
    app.include_router(one_file_routes(STATIC), prefix=PREFIX)
    for module in tabs().values():
        if hasattr(module, "routes"):
            app.include_router(module.routes(context), prefix=PREFIX)
    return app
