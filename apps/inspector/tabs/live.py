"""Live: drive the imagined world by keys, by a drawn path, or let a policy do it for a while."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from PIL import Image
from pydantic import BaseModel, Field

from worldeval import WorldEvalError
from worldeval.reports.markup import escape

from ..context import Context
from ..guard import visitor
from ..state import State
from ..worlds import Live, Worlds
from . import pane

TITLE = "Live"
PADS = (
    ("f", "forward", "↑"), ("l", "left", "←"), ("r", "right", "→"), ("b", "back", "↓"),
    ("u", "up", "Page up"), ("d", "down", "Page down"),
    ("o", "open", "O"), ("c", "close", "C"), (".", "wait", "Space"),
)  # fmt: skip
"""Key of the drive, word, key of the keyboard."""


class Begin(BaseModel):
    start: str = Field(max_length=300)
    seed: int = Field(0, ge=0, lt=2**31)


class Keys(BaseModel):
    keys: str = Field(max_length=12)
    speed: float = Field(0.5, gt=0, le=1)


class Sketch(BaseModel):
    view: str = Field(max_length=80)
    points: list[tuple[float, float]] = Field(min_length=1, max_length=2000)
    height_m: float | None = Field(None, ge=-5, le=5)
    speed: float = Field(0.5, gt=0, le=1)


class HandOver(BaseModel):
    policy: str = Field(max_length=1000)
    instruction: str = Field("", max_length=300)


class Go(BaseModel):
    number: int = Field(ge=0, lt=10**6)
    frames: int | None = Field(None, ge=1, lt=10**4)


class Save(BaseModel):
    name: str = Field("live", min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")


def build(context: Context) -> None:
    pane("live")


def routes(context: Context) -> APIRouter:
    router, worlds = APIRouter(), Worlds(context.live)

    @router.get("/pane/live", response_class=HTMLResponse)
    def live(request: Request) -> str:
        return page(worlds, State.of(request))

    @router.get("/live/now")
    def now(request: Request) -> dict[str, Any]:
        if visitor(request) not in worlds:
            return {"open": False}
        with worlds.of(visitor(request), steps=False) as mine:
            return {"open": True, **whole(mine)}

    @router.post("/live/begin")
    def begin(request: Request, given: Begin) -> dict[str, Any]:
        return {"open": True, **whole(worlds.begin(visitor(request), given.start, given.seed))}

    @router.post("/live/keys")
    def keys(request: Request, given: Keys) -> dict[str, Any]:
        began = time.perf_counter()
        with worlds.of(visitor(request)) as mine:
            mine.plan = None
            mine.drive.keys(given.keys, speed=given.speed)
            return shown(mine, began)

    @router.post("/live/sketch")
    def sketch(request: Request, given: Sketch) -> dict[str, Any]:
        with worlds.of(visitor(request), steps=False) as mine:
            mine.plan = mine.drive.plan(
                given.view, np.array(given.points), height_m=given.height_m, speed=given.speed
            )
            return {"left": len(mine.plan), "path": on_views(mine, mine.plan)}

    @router.post("/live/follow")
    def follow(request: Request) -> dict[str, Any]:
        began = time.perf_counter()
        with worlds.of(visitor(request)) as mine:
            if mine.plan is None or not len(mine.plan):
                raise WorldEvalError("there is no path to follow; draw one")
            frames = mine.drive.robot.frames_per_chunk
            mine.drive.follow(mine.plan[:frames])
            mine.plan = mine.plan[frames:]
            return {**shown(mine, began), "left": len(mine.plan)}

    @router.post("/live/policy")
    def policy(request: Request, given: HandOver) -> dict[str, Any]:
        began = time.perf_counter()
        with worlds.of(visitor(request)) as mine:
            mine.plan = None
            mine.drive.let(worlds.policy(mine, given.policy), given.instruction or None)
            return shown(mine, began)

    @router.post("/live/go")
    def go(request: Request, given: Go) -> dict[str, Any]:
        with worlds.of(visitor(request)) as mine:
            mine.plan = None
            mine.drive.go(given.number, given.frames)
            return whole(mine)

    @router.post("/live/save")
    def save(request: Request, given: Save) -> dict[str, Any]:
        with worlds.of(visitor(request), steps=False) as mine:
            folder = context.roots[0] / "live"
            key = worlds.studio.save(mine.drive, context.inside(folder), name=given.name)
        context.index.refresh()
        found = [r for r in context.index.runs() if r.folder == folder]
        return {"key": key, "folder": "live", "run": found[0].id if found else ""}

    return router


def shown(live: Live, began: float) -> dict[str, Any]:
    """The newest moment with its pictures."""
    drive = live.drive
    made = drive.moments[-1]
    return {
        "moment": told(made),
        "now": drive.now.number,
        **pictures(drive.new_frames(made.number)),
        "hand": on_views(live, drive.poses[-len(drive.new_frames(made.number)) :]),
        "pose": [round(float(x), 4) for x in drive.pose],
        "server_s": round(time.perf_counter() - began, 4),
    }


def whole(live: Live) -> dict[str, Any]:
    """All that a page needs to show a world as it is."""
    drive, robot = live.drive, live.drive.robot
    return {
        "views": list(robot.views),
        "drawable": list(drive.exterior_views),
        "fps": robot.frame_hz,
        "pose_names": list(robot.pose_names),
        "pose": [round(float(x), 4) for x in drive.pose],
        "instruction": drive.start.instruction,
        "start": drive.start.start_id,
        "moments": [told(moment) for moment in drive.moments],
        "now": drive.now.number,
        "hand": on_views(live, drive.pose[None]),
        **pictures(drive.frame[None]),
    }


def told(moment: Any) -> dict[str, Any]:
    return {
        "n": moment.number,
        "parent": moment.parent,
        "frames": moment.frames,
        "by": moment.by,
        "what": moment.what,
        "instruction": moment.instruction,
        "s": round(moment.seconds, 3),
    }


def on_views(live: Live, poses: np.ndarray) -> dict[str, list[list[float]]]:
    """Exterior view -> where the hand is on it."""
    drive = live.drive
    return {v: drive.drawn(v, poses).round(4).tolist() for v in drive.exterior_views}


def pictures(frames: np.ndarray) -> dict[str, Any]:
    """Frames (T, V, H, W, 3) as one picture: a row per frame, a column per view."""
    count, views, height, width, _ = frames.shape
    tiled = frames.transpose(0, 2, 1, 3, 4).reshape(count * height, views * width, 3)
    coded = io.BytesIO()
    Image.fromarray(tiled).save(coded, "JPEG", quality=93, subsampling=0)
    data = base64.b64encode(coded.getvalue()).decode()
    return {"sheet": f"data:image/jpeg;base64,{data}", "count": count, "size": [height, width]}


def page(worlds: Worlds, state: State) -> str:
    """Everything but the pictures, which the client asks for."""
    try:
        studio = worlds.studio
    except WorldEvalError as error:
        return f'<div class="we-empty"><p>No world can be driven here: {escape(error)}</p></div>'
    tasks: dict[str, list[Any]] = {}
    for start in studio.starts:
        tasks.setdefault(start.task, []).append(start)
    groups = "".join(
        f'<optgroup label="{escape(task)}">'
        + "".join(
            f'<option value="{escape(s.start_id)}"'
            f"{' selected' if s.start_id == state['start'] else ''}>"
            f"{escape(s.start_id.removeprefix(task + '/'))} · {escape(s.instruction)}</option>"
            for s in starts
        )
        + "</optgroup>"
        for task, starts in tasks.items()
    )
    pads = "".join(
        f'<button type="button" data-key="{key}" title="{escape(word)} ({escape(name)})">'
        f"<b>{escape(word)}</b><kbd>{escape(name)}</kbd></button>"
        for key, word, name in PADS
    )
    policies = "".join(
        f"<option{' selected' if name == 'full' else ''}>{escape(name)}</option>"
        for name in worlds.policies
    )
    hand_over = (
        '<div class="we-field"><label for="we-l-policy">Policy</label>'
        f'<select id="we-l-policy">{policies}</select></div>'
        '<div class="we-field"><label for="we-l-words">It is told</label>'
        '<input type="text" id="we-l-words" maxlength="300" autocomplete="off"></div>'
        '<p><button type="button" class="we-button" data-act="policy">Let it act</button></p>'
        if policies
        else '<p class="we-soft">No policy of this robot is shipped.</p>'
    )
    return f"""<div class="we-drive" data-live>
<form class="we-filters" data-begin><label class="we-field we-grow"><span>Start state</span>
<select name="start">{groups}</select></label>
<label class="we-field" style="min-width:80px"><span>Seed</span>
<input type="text" name="seed" inputmode="numeric" pattern="[0-9]*" value="0"></label>
<button type="submit">Begin here</button></form>
<div class="we-l-grid"><div>
<div class="we-card we-l-stage" tabindex="0" aria-label="The imagined world; drive it with keys">
<div class="we-l-views"></div>
<div class="we-l-line"><span class="we-l-say" role="status" aria-live="polite">Choose a start state
and press “Begin here”.</span><span class="we-l-time"></span></div>
<div class="we-l-bar" hidden><i></i></div></div>
<div class="we-card"><h3>Moments</h3><p class="we-soft">Click on one to go back to it; what you do
then branches off, and the other way stays. Backspace goes one back.</p>
<div class="we-l-tree"></div></div>
<div class="we-l-pair">
<section class="we-card"><h3>Hand over</h3>{hand_over}</section>
<section class="we-card"><h3>Keep</h3><div class="we-field"><label for="we-l-name">Who drove</label>
<input type="text" id="we-l-name" value="live" maxlength="40" autocomplete="off"></div>
<p><button type="button" class="we-button" data-act="save">Save as an episode</button></p>
<p class="we-l-saved" role="status"></p></section>
</div></div>
<aside>
<section class="we-card"><h3>Drive</h3><div class="we-l-pads">{pads}</div>
<label class="we-l-speed"><span>Speed</span><input type="range" min="0.1" max="1" step="0.1"
value="0.5" data-speed><output>50 %</output></label></section>
<section class="we-card"><h3>Draw a path</h3><p class="we-soft">Draw on a view with a pencil; the
hand follows. Any key stops it.</p><label class="we-field"><span>How deep the path lies</span>
<select data-plane><option value="">as far as the hand</option>
<option value="0.05">5 cm above the table</option><option value="0.1">10 cm</option>
<option value="0.2">20 cm</option><option value="0.3">30 cm</option></select></label>
</section>
</aside></div></div>"""
