"""The routes of the player: what a rollout is, its film, its pictures.

``GET inspector/rollout/NAME`` is the JSON that ``static/player.js`` plays; another route may answer
in the same form with less (without names, for blinded labels). Its ``later`` names the route for
what takes longer. NAME is a rollout's identifier; with
"t" before it, what truly happened from the same start.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from .context import Context
from .curves import Curves
from .media import Shown, film, sheet, shown, truth_of
from .timeline import timeline

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""A film's URL changes when the film does."""


def player_routes(context: Context) -> APIRouter:
    router, curves = APIRouter(), Curves(context.watching, context.cache)
    context.before_serving.append(curves.load)

    @router.get("/rollout/{name}")
    def rollout(name: str) -> dict[str, Any]:
        return described(context, shown(context, name))

    @router.get("/curves/{name}")
    def curves_of(name: str) -> dict[str, Any]:
        """What judges think of it frame by frame; {"busy": true} while they look."""
        return curves.get(shown(context, name)) or {"busy": True}

    @router.get("/film/{name}/{version}.mp4")
    def film_of(name: str, version: str) -> FileResponse:
        path = film(context, shown(context, name))
        return FileResponse(path, media_type="video/mp4", headers=FOREVER)

    @router.get("/preview/{name}")
    def preview(name: str) -> dict[str, Any]:
        what = shown(context, name)
        _, layout = sheet(context, what, small=True)
        return {**layout, "url": f"pictures/{name}/{what.version}.jpg?few=true"}

    @router.get("/pictures/{name}/{version}.jpg")
    def pictures(name: str, version: str, few: bool = False) -> FileResponse:
        path, _ = sheet(context, shown(context, name), small=few)
        return FileResponse(path, media_type="image/jpeg", headers=FOREVER)

    return router


def described(context: Context, what: Shown) -> dict[str, Any]:
    """The JSON of one side of a player."""
    layout, facts, known = what.store.layout, what.facts, what.rollout
    world = str(facts.get("world") or "")
    _, pictures = sheet(context, what)
    truth = truth_of(context, known) if known is not None else None
    return {
        "name": what.name,
        "title": "imagined" if world == "imagination" else f"true ({world or 'recorded'})",
        "imagined": world == "imagination",
        "policy": str(facts.get("policy") or ""),
        "task": str(facts.get("task") or ""),
        "start": str(facts.get("start_id") or ""),
        "instruction": str(facts.get("instruction") or ""),
        "fps": layout.fps,
        "frames": int(facts["length"]),
        "views": list(layout.views),
        "aspect": layout.image_size[1] / layout.image_size[0],
        "film": f"film/{what.name}/{what.version}.mp4",
        "pictures": {**pictures, "url": f"pictures/{what.name}/{what.version}.jpg"},
        "truth": None if truth is None else truth.name,
        "outcome": known.outcome if known is not None else str(facts.get("outcome") or ""),
        "later": f"curves/{what.name}",
        **timeline(what),
    }
