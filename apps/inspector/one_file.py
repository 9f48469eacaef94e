"""The frame of a report of any page: one HTML file with all styles in it, and no scripts.

The browser fills it with what is seen (``static/report.js``): what a visitor has played, typed,
driven and filtered is known there alone. Its Content-Security-Policy forbids scripts and everything
that is loaded, so that text which slipped through anywhere does nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from worldeval import __version__
from worldeval.reports.markup import escape, page_head
from worldeval.reports.style import scoped_style

HERE = "<!-- here -->"
"""Where the page goes."""
ALLOWED = "style-src 'unsafe-inline'; img-src data:; media-src data:"
MOST = 400
"""Characters of a title and of a state."""
_STYLE = """
body{background:var(--we-page);color:var(--we-ink);margin:0;
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
main{max-width:1440px;margin:0 auto;padding:24px 20px 48px}
body>main>header{margin-bottom:16px}body>main>header h1{font-size:1.4rem;margin:0}
.we-head-state{color:var(--we-soft);font-size:.82rem;overflow-wrap:anywhere;margin:2px 0}
.we-pane p.we-film-told{font-size:.82rem;color:var(--we-soft)}
.we-player video.we-film{position:static;width:100%;max-width:900px;height:auto;opacity:1;
 pointer-events:auto;display:block;margin-top:6px;border-radius:8px;background:#000}
.we-p-view img,.we-l-views img,img.we-c-canvas{display:block;width:100%;height:auto;
 border-radius:8px;background:#000}
.we-p-legend span::before{content:"";display:inline-block;width:12px;height:3px;
 margin-right:5px;vertical-align:middle;background:var(--colour)}
.we-p-legend span,.we-p-memory span{font-size:.76rem}
.we-p-memory>span:not(.we-p-name){display:grid;gap:2px}
.we-looked span{border:1px solid var(--we-line);border-radius:6px;padding:0 6px;font-size:.76rem}
.we-given{color:var(--we-ink);font-size:.9rem;font-weight:600}
"""


def one_file_routes(static: Path) -> APIRouter:
    """``GET inspector/report-frame``: the file around the page. static: folder of the app's CSS."""
    router = APIRouter()
    styles = "".join(place.read_text("utf-8") for place in sorted(static.glob("*.css")))
    look = styles + scoped_style(".we-report")

    @router.get("/report-frame", response_class=HTMLResponse)
    def frame(title: str = "", state: str = "") -> str:
        when = time.strftime("%Y-%m-%d %H:%M %Z")
        return (
            page_head(f"worldeval: {title[:MOST]}", style=_STYLE, allowed=ALLOWED, look=look)
            + f"<header><h1>{escape(title[:MOST])}</h1>"
            f'<p class="we-head-state">As the inspector of worldeval {escape(__version__)} showed '
            f"it at {escape(when)}: {escape(state[:MOST])}</p></header>{HERE}"
            '<footer class="we-head-state">This page loads nothing from the network and runs no '
            "scripts.</footer></main></body></html>\n"
        )

    return router
