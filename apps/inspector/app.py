"""The inspector as a program: its page of tabs, mounted into the server and served by uvicorn."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import itertools
import os
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")  # asks the network, and tells it

import gradio as gr
import uvicorn

from worldeval import WorldEvalError

from .context import Context, LiveWorld, Watching
from .early import Early
from .guard import LOOPBACK, Guard
from .index import Index
from .media import tidy
from .records import identifier
from .server import make_server, tabs

REFRESH_S = 4.0
"""Seconds between two looks at the disk while the server runs."""
LOOKS_A_TIDYING = 900
"""The cache is tidied when the server begins and then once in so many looks: an hour."""
STYLES = (
    *(f"static/{name}.css" for name in ("app", "player", "live", "label", "compare", "data")),
    "report.css",
)
SCRIPTS = ("app", "overview", "player", "live", "label", "compare", "data", "report")
HEAD = "".join(f'<link rel="stylesheet" href="inspector/{name}">' for name in STYLES)
"""Behind Gradio's own styles, which it changes."""
FIRST = "".join(
    [
        *(f'<link rel="preload" as="style" href="inspector/{name}">' for name in STYLES),
        *(f'<script defer src="inspector/static/{name}.js"></script>' for name in SCRIPTS),
    ]
)
"""Before Gradio's own scripts (``early.py``)."""
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the inspector is served."""

    roots: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[str, str] | None = None
    root_path: str = ""
    cache: Path | None = None
    index: str | None = None
    """URL of a Postgres database; a file in the cache, if None."""
    live: LiveWorld | None = None
    watching: Watching | None = None


def default_cache(roots: Sequence[Path]) -> Path:
    """Where index and previews of these roots lie; may be deleted at any time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "worldeval" / identifier(*sorted(str(root.resolve()) for root in roots))


def make_page(context: Context) -> gr.Blocks:
    """The page: one tab per file in ``tabs/``."""
    with gr.Blocks(title="worldeval", analytics_enabled=False) as page:
        gr.HTML(
            '<header class="we-head"><b>worldeval</b><span id="we-status"></span>'
            '<span id="we-report-told" role="status"></span><button type="button" id="we-report" '
            'title="What is seen as one HTML file, with up to 24 MB of films">Report of this page'
            "</button></header>",
            apply_default_css=False,
        )
        with gr.Tabs(elem_id="we-tabs"):
            for name, module in tabs().items():
                with gr.Tab(module.TITLE, id=name, elem_id=f"we-tab-{name}"):
                    module.build(context)
    return page


def make_app(context: Context, options: Options) -> Any:
    """The whole ASGI app: guard, routes, page."""
    font = [gr.themes.Font(name) for name in FONTS]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    app = gr.mount_gradio_app(
        make_server(context),
        make_page(context),
        path="/",
        root_path=options.root_path or None,
        ssr_mode=False,
        max_file_size="1mb",
        show_error=True,
        footer_links=[],
        theme=gr.themes.Base(font=font, font_mono=mono),
        head=HEAD,
        blocked_paths=[str(root) for root in context.roots],
        enable_monitoring=False,
    )
    # A name by which others reach us is not ours to know; loopback has three.
    alone = options.host in LOOPBACK and not options.root_path
    return Guard(Early(app, FIRST), auth=options.auth, hosts=LOOPBACK if alone else None)


def _one_heap() -> None:
    """Let all threads share one heap, where the C library knows this: with one each, what forty
    readers have freed is kept forty times (200 MB)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def serve(options: Options) -> None:
    """Serve until interrupted. WorldEvalError where a root or the port cannot be used."""
    _one_heap()
    roots = _existing(options.roots)
    context = Context(
        roots,
        options.cache or default_cache(roots),
        index=options.index,
        live=options.live,
        watching=options.watching,
    )
    _check_place(options.host, options.port)
    stop = threading.Event()

    def keep_fresh() -> None:
        for look in itertools.count():
            try:
                context.index.refresh()
                if look % LOOKS_A_TIDYING == 0:
                    tidy(context.cache)
            except Exception as error:  # a full disk shall not end the serving of what is known
                print(f"worldeval: index and cache are not up to date: {error}", file=sys.stderr)
            if stop.wait(REFRESH_S):
                return

    if (warning := open_to_all(options)) is not None:
        print(f"worldeval: {warning}", file=sys.stderr)
    threading.Thread(target=keep_fresh, daemon=True).start()
    config = uvicorn.Config(
        make_app(context, options),
        host=options.host,
        port=options.port,
        root_path=options.root_path,
        log_level="warning",
        server_header=False,
    )
    for load in context.before_serving:
        load()
    print(f"worldeval: http://{options.host}:{options.port}{options.root_path}/ (Ctrl-C ends it)")
    try:
        uvicorn.Server(config).run()
    finally:
        stop.set()


def open_to_all(options: Options) -> str | None:
    """A sentence where people on other machines may come in without a password; else None."""
    if options.auth is not None or _is_loopback(options.host):
        return None
    return (
        f"listening at {options.host or 'every address'} without --auth: whoever reaches this "
        "machine can see all that lies below the folders given, label it and drive the world; "
        "give --auth USER:PASSWORD, or leave --host out and come in through an SSH tunnel "
        f"(ssh -L {options.port}:127.0.0.1:{options.port} THIS-MACHINE)"
    )


def _is_loopback(host: str) -> bool:
    """Whether nobody but this machine gets to ``host``; a name is what it stands for."""
    try:
        found = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
        return all(ipaddress.ip_address(place[4][0]).is_loopback for place in found)
    except (OSError, UnicodeError, ValueError):
        return False


def reindex(options: Options) -> str:
    """Read everything again; a sentence on what there is."""
    roots = _existing(options.roots)
    file = (options.cache or default_cache(roots)) / "index.sqlite"
    index = Index(roots, options.index or file)
    index.forget()
    index.refresh()
    runs = index.runs()
    return (
        f"{len(runs)} evaluations with {index.count()} rollouts; the index is {index.database.name}"
    )


def _check_place(host: str, port: int) -> None:
    """WorldEvalError where nobody can listen, before it is said that somebody does."""
    try:
        if not 0 <= port < 2**16:
            raise OverflowError("a port is a number from 0 to 65535")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        socket.create_server(address[:2], family=family).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorldEvalError(
            f"cannot listen at {host}:{port}: {reason}; choose another --port or --host"
        ) from error


def _existing(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    for root in roots:
        if not root.is_dir():
            raise WorldEvalError(
                f"there is no folder {root}; run `worldeval demo` first, or name the folders that "
                "hold your evaluations"
            )
    return roots


__all__ = ["LiveWorld", "Options", "Watching", "make_app", "open_to_all", "reindex", "serve"]
