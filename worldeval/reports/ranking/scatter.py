"""The scatter plot of imagined against true success rates.

In: a ``Leaderboard``. Out: inline SVG whose colours are the page's CSS variables (so that it
follows light and dark), or a PNG in one of the two. matplotlib, without a display or pyplot's
global state, loaded on first use.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldeval.errors import MissingDependencyError, StoreError
from worldeval.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from worldeval.ranking.leaderboard.leaderboard import Leaderboard
    from worldeval.ranking.leaderboard.policy_row import PolicyRow

PALETTES = {
    "light": {
        "ink": "#1b1f24",
        "soft": "#667080",
        "line": "#dfe3e8",
        "card": "#ffffff",
        "imagined": "#4a5be0",
        "true": "#d9822b",
        "corrected": "#b0479a",
        "joined": "#14866d",
        "trusted": "#2588b8",
    },
    "dark": {
        "ink": "#e8eaee",
        "soft": "#98a1b0",
        "line": "#30363f",
        "card": "#1a1e24",
        "imagined": "#8c9bff",
        "true": "#f0a95c",
        "corrected": "#e58bd0",
        "joined": "#4fd0b0",
        "trusted": "#6cc4ec",
    },
}
LABEL_LETTERS = 26


def scatter_svg(board: Leaderboard) -> str:
    """An ``<svg>`` element without a fixed size, coloured by ``var(--ink)`` and so on."""
    palette = PALETTES["light"]
    figure = _scatter(board, palette)
    buffer = io.BytesIO()
    figure.patch.set_alpha(0.0)
    _save(figure, buffer, "svg")
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    names = {colour: f"var(--{name})" for name, colour in palette.items()}

    def with_variables(style: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-f]{6}", lambda m: names.get(m[0], m[0]), style[0])

    # Only in style attributes: a policy may be called "#ffffff".
    svg = re.sub(r'style="[^"]*"', with_variables, svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = "Scatter plot of imagined against true success rates"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def save_scatter_png(
    board: Leaderboard, path: str | os.PathLike[str], *, theme: str = "light", dpi: int = 160
) -> Path:
    """The same plot as a picture, for a README."""
    figure = _scatter(board, PALETTES[theme])
    buffer = io.BytesIO()
    _save(figure, buffer, "png", dpi=dpi, facecolor=PALETTES[theme]["card"])
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(buffer.getvalue())
    except OSError as error:
        raise StoreError(
            f"cannot write {target}: {error.strerror or error}; choose a writable folder with "
            f"free space"
        ) from error
    return target


def _scatter(board: Leaderboard, palette: dict[str, str]) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "the report's plot needs matplotlib, which is not installed; run: "
            "pip install matplotlib"
        ) from error
    figure = Figure(figsize=(6.2, 5.8))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.87, 0.87))
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.patch.set_alpha(0.0)
    _style(axes, palette)
    axes.plot([0, 1], [0, 1], color=palette["soft"], linewidth=1, dashes=(4, 3), zorder=1)

    agreement = board.agreement
    if agreement.slope is not None and agreement.intercept is not None:
        x = np.array([0.0, 1.0])
        axes.plot(
            x,
            agreement.slope * x + agreement.intercept,
            color=palette["imagined"],
            alpha=0.35,
            linewidth=2.5,
            zorder=1,
            solid_capstyle="round",
        )
    placed = [row for row in board.policies if _point(row) is not None]
    for row in placed:
        _draw_point(axes, row, palette)
    for row in board.policies:
        if row.true is None and row.imagined.rate is not None:
            # No truth is known: the imagined rate alone, as a level across the plot.
            axes.axhline(
                row.imagined.rate, color=palette["true"], linewidth=1, linestyle=":", zorder=1
            )
            _text(axes, -0.015, row.imagined.rate + 0.008, _label(row), palette["true"])
    _draw_labels(axes, placed, palette)
    return figure


def _style(axes: Axes, palette: dict[str, str]) -> None:
    ticks = np.linspace(0, 1, 6)
    names = [f"{100 * tick:.0f} %" for tick in ticks]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0, labelsize=9, labelcolor=palette["soft"], pad=6)
    axes.grid(color=palette["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("true success rate", color=palette["ink"], fontsize=10, labelpad=6)
    axes.set_ylabel("imagined success rate", color=palette["ink"], fontsize=10, labelpad=6)


def _draw_point(axes: Axes, row: PolicyRow, palette: dict[str, str]) -> None:
    point = _point(row)
    assert point is not None and row.true is not None
    x, y = point
    for side, other, horizontal in ((row.true, y, True), (row.imagined, x, False)):
        bounds = [side.interval.low, side.interval.high]
        ends = (bounds, [other, other]) if horizontal else ([other, other], bounds)
        axes.plot(
            *ends,
            color=palette["imagined"],
            alpha=0.45,
            linewidth=1.6,
            solid_capstyle="round",
            zorder=2,
        )
    axes.plot(
        [x],
        [y],
        marker="o",
        markersize=8,
        color=palette["imagined"],
        markeredgecolor=palette["card"],
        markeredgewidth=1.5,
        zorder=4,
    )


def _draw_labels(axes: Axes, rows: list[PolicyRow], palette: dict[str, str]) -> None:
    """Names beside their points, each where it covers the fewest points, bars and other names.

    Greedy over eight directions and two distances in data units; a letter is taken to be 0.0135
    wide and a line 0.032 high, which holds for the figure's size and font.
    """
    boxes: list[tuple[float, float, float, float]] = []
    for row in rows:
        point = _point(row)
        assert point is not None and row.true is not None
        boxes.append((point[0] - 0.014, point[1] - 0.014, point[0] + 0.014, point[1] + 0.014))
        low, high = row.true.interval.low, row.true.interval.high
        boxes.append((low, point[1] - 0.003, high, point[1] + 0.003))
        low, high = row.imagined.interval.low, row.imagined.interval.high
        boxes.append((point[0] - 0.003, low, point[0] + 0.003, high))
    for step in np.linspace(0, 1, 101):
        boxes.append((step - 0.005, step - 0.005, step + 0.005, step + 0.005))
    for row in rows:
        point = _point(row)
        assert point is not None
        width, height = 0.0135 * len(_label(row)), 0.032
        best, least = None, np.inf
        for distance in (0.022, 0.045, 0.08):
            for dx, dy in ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)):
                left = point[0] + dx * distance + (dx - 1) / 2 * width
                bottom = point[1] + dy * distance + (dy - 1) / 2 * height
                box = (left, bottom, left + width, bottom + height)
                outside = max(0.0, -0.03 - left) + max(0.0, box[2] - 1.03)
                outside += max(0.0, -0.03 - bottom) + max(0.0, box[3] - 1.03)
                cost = sum(_overlap(box, other) for other in boxes) + outside + distance * 1e-3
                if cost < least:
                    best, least = box, cost
        assert best is not None
        boxes.append(best)
        _text(axes, best[0], best[1] + 0.008, _label(row), palette["ink"])


def _text(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    # parse_math off: a policy called "$x" must not be read as TeX.
    axes.text(x, y, text, color=colour, fontsize=9, parse_math=False, zorder=5)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _point(row: PolicyRow) -> tuple[float, float] | None:
    if row.true is None or row.true.rate is None or row.imagined.rate is None:
        return None
    return row.true.rate, row.imagined.rate


def _label(row: PolicyRow) -> str:
    clean = printable(row.name)
    return clean if len(clean) <= LABEL_LETTERS else clean[: LABEL_LETTERS - 1] + "…"


def _save(figure: Figure, buffer: io.BytesIO, kind: str, **options: Any) -> None:
    from matplotlib import rc_context

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "worldeval"}
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    with rc_context(settings), warnings.catch_warnings():
        # Names in any script are written as text, which the browser's fonts draw.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(buffer, format=kind, metadata=metadata, **options)
