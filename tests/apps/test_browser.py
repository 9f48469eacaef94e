"""A real browser drives the inspector over a real evaluation of the embedded world.

Screenshots are kept in ``$WORLDEVAL_SCREENSHOTS`` or the folder that pytest makes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import CHROMIUM

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


def open_rollout(page: Any, address: str, query: str = "policy=full task=reach") -> None:
    page.goto(f"{address}?tab=browse&q={query}")
    page.locator(".we-rollout").first.click()
    page.wait_for_selector(".we-player.ready")


def player(page: Any, what: str) -> Any:
    return page.evaluate(f"document.querySelector('.we-player').player.{what}")


def test_three_clicks_from_the_first_page_to_the_worst_rollout(
    page: Any, address: str, shots: Path
) -> None:
    page.goto(address)
    page.wait_for_selector(".we-board[data-done]")
    assert page.locator(".we-runs tbody tr").count() == 1
    page.screenshot(path=shots / "overview.png", full_page=True)
    page.locator(".we-board table .name a").last.click()
    page.wait_for_selector(".we-rollout")
    assert "policy=stopped-early" in page.locator("input[name=q]").input_value()
    page.screenshot(path=shots / "browse.png")
    page.locator(".we-rollout").first.click()
    page.wait_for_selector(".we-player.ready")
    page.wait_for_function("document.querySelector('.we-p-view canvas').width > 100")
    page.screenshot(path=shots / "rollout.png", full_page=True)
    assert page.locator(".we-p-side").count() >= 1
    assert page.locator("aside .we-outcome").first.inner_text() in ("failure", "undecided")


PIXELS = """() => [...document.querySelectorAll('.we-p-view canvas')].map(c => {
  const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let sum = 0;
  for (let i = 0; i < data.length; i += 16) sum = (sum * 31 + data[i] + data[i + 1]) % 1e9;
  return sum;
})"""


def test_the_film_plays_and_all_views_stay_in_step(page: Any, address: str) -> None:
    open_rollout(page, address)
    before = page.evaluate(PIXELS)
    page.evaluate(
        "() => { window.seen = []; const p = document.querySelector('.we-player').player;"
        "p.element.addEventListener('we:frame', () => window.seen.push([p.frame, ...p.sides.map("
        "s => Math.min(s.video.currentTime * s.fps, s.facts.frames))])); }"
    )
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelector('.we-player').player.frame >= 6")
    page.keyboard.press(" ")
    assert player(page, "playing") is False
    assert page.evaluate(PIXELS) != before
    seen = page.evaluate("window.seen")
    times = [row[1] for row in seen]
    assert times[-1] > times[0] and len({row[0] for row in seen}) >= 4
    for frame, *sides in seen[3:-1]:
        assert all(abs(side - sides[0]) <= 1 for side in sides), (frame, sides)


def test_keys_step_and_speed(page: Any, address: str) -> None:
    open_rollout(page, address)
    for key, frame in (
        ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Shift+ArrowRight", 4),
        ("Shift+ArrowLeft", 0), ("End", player(page, "last")), ("Home", 0),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert player(page, "frame") == frame, key
    page.keyboard.press("+")
    assert player(page, "speed") == 2


def test_marks_of_the_rail_and_frames_of_the_memory_seek(page: Any, address: str) -> None:
    open_rollout(page, address)
    page.locator(".we-p-row.chunk .we-p-mark").nth(3).click()
    assert player(page, "frame") == 12
    page.wait_for_function("window.worldeval.state().get('t') === '1.20'")
    page.keyboard.press("ArrowRight")
    remembered = page.locator(".we-p-memory button")
    assert remembered.count() >= 2
    frame = int(remembered.nth(1).get_attribute("data-frame"))
    remembered.nth(1).click()
    assert player(page, "frame") == frame
    page.locator("[data-seek]").nth(2).click()
    assert player(page, "frame") == int(page.locator("[data-seek]").nth(2).inner_text())
    page.wait_for_function(
        "(() => { const v = document.querySelector('.we-player').player.sides[0].video;"
        "const p = document.querySelector('.we-player').player;"
        "return Math.floor(v.currentTime * 10 + 1e-3) === p.frame && !v.seeking; })()"
    )


def test_what_judges_think_comes_as_curves_on_the_same_clock(
    page: Any, address: str, shots: Path
) -> None:
    open_rollout(page, address)
    page.wait_for_selector(".we-player[data-later=done]", timeout=120_000)
    for title in ("Judge's probability", "Progress"):
        plot = page.locator(".we-p-plot", has=page.get_by_text(title, exact=True))
        # Imagination and, where truth is known, truth: a line and a number each.
        assert plot.locator("path").count() == page.locator(".we-p-side").count()
        value = plot.locator("output").first
        page.keyboard.press("Home")
        before = value.inner_text()
        page.keyboard.press("End")
        assert value.inner_text() != before
    # The last point is the verdict, which shipped judges gave.
    plot = page.locator(".we-p-plot", has=page.get_by_text("Judge's probability", exact=True))
    probability = float(plot.locator("output").first.inner_text())
    shown = page.locator("aside .we-soft", has_text="probability of success").inner_text()
    assert probability == pytest.approx(float(shown.split()[-1]), abs=2e-3)
    mark = page.locator(".we-p-row.judge .we-p-mark").first
    mark.click()
    assert player(page, "frame") == round(float(mark.get_attribute("data-frame")))
    page.screenshot(path=shots / "curves.png", full_page=True)


def test_the_url_restores_everything(page: Any, address: str, browser: Any) -> None:
    open_rollout(page, address)
    page.locator(".we-p-row.chunk .we-p-mark").nth(2).click()
    page.wait_for_function("window.worldeval.state().get('t') === '0.80'")
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_selector(".we-player.ready")
    assert player(other, "frame") == 8
    assert other.locator(".we-title h2").inner_text() == page.locator(".we-title h2").inner_text()
    other.get_by_text("all rollouts").click()
    other.wait_for_selector(".we-rollout")
    assert other.locator("input[name=q]").input_value() == "policy=full task=reach"
    other.go_back()
    other.wait_for_selector(".we-player.ready")
    other.close()


def test_a_query_that_is_wrong_is_told_what_was_meant(page: Any, address: str) -> None:
    page.goto(f"{address}?tab=browse")
    box = page.locator("input[name=q]")
    box.fill("polcy:full")
    box.press("Enter")
    page.wait_for_selector(".we-error")
    assert "did you mean policy:full" in page.locator(".we-error").inner_text()


def test_previews_run_under_the_pointer(page: Any, address: str) -> None:
    page.goto(f"{address}?tab=browse")
    page.wait_for_selector(".we-preview")
    preview = page.locator(".we-preview").first
    page.wait_for_function(
        "document.querySelector('.we-preview').style.backgroundImage.includes('pictures/')"
    )
    at = "e => e.style.backgroundPosition"
    end = preview.evaluate(at)
    preview.hover(position={"x": 5, "y": 5})
    page.wait_for_function(f"({at})(document.querySelector('.we-preview')) !== '{end}'")


@pytest.mark.parametrize("tab", ["overview", "browse", "compare", "label", "live", "data"])
def test_every_tab_shows_something_in_the_dark(
    browser: Any, address: str, shots: Path, tab: str
) -> None:
    page = browser.new_page(color_scheme="dark", viewport={"width": 1280, "height": 800})
    page.goto(f"{address}?tab={tab}")
    page.wait_for_selector(f"#we-tab-{tab}-button[aria-selected=true]")
    page.wait_for_load_state("networkidle")
    panel = page.locator(f"#we-tab-{tab}")
    page.wait_for_function(
        "t => document.querySelector(`#we-tab-${t}`).innerText.trim().length > 20", arg=tab
    )
    assert "Loading …" not in panel.inner_text()
    page.screenshot(path=shots / f"{tab}-dark.png")
    page.close()
