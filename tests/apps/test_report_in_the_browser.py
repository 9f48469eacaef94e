"""Any page as one HTML file: opened in a real browser without a network, it shows what was seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import CHROMIUM, EVIL, judge, served, write_rollouts
from .making import write_synthesis

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
PICTURES = """() => [...document.querySelectorAll('img')].map(i => [i.complete, i.naturalWidth])"""
BACKGROUNDS = """() => [...document.querySelectorAll('.we-preview, .we-p-picture')].map(
    e => getComputedStyle(e).backgroundImage.slice(0, 20))"""

LARGE = """() => { const own = window.fetch; window.fetch = (url, how) =>
    String(url).includes('/film/') ? new Response(new Uint8Array(25 << 20)) : own(url, how); }"""


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("reported") / "runs"
    write_rollouts(root / "first", ("good", "bad", EVIL), starts=4)
    judge(root / "first", {"good": "success", "bad": "failure", EVIL: "failure"})
    write_synthesis(root / "synthetic")
    with served(root, tmp_path_factory.mktemp("cache")) as found:
        yield found


@pytest.fixture
def opened(page: Any, browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Downloads the report of the page that is shown; a page that opens it without a network."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})

    def open_report() -> Any:
        with page.expect_download() as download:
            page.click("#we-report")
            page.wait_for_function("!document.querySelector('#we-report').disabled")
            assert not page.locator("#we-report-told").inner_text()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        report, asked = context.new_page(), []
        report.on("request", lambda request: asked.append(request.url))
        report.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
        report.goto(file.as_uri())
        report.wait_for_timeout(300)
        loaded = [url for url in asked if not url.startswith("data:")]
        assert loaded == [file.as_uri()], "nothing is loaded, and no script says anything"
        content = file.read_text("utf-8")
        for word in ("<script", "http://127", "data-go", "<button", "<form", "onerror=alert"):
            assert word not in content, word
        assert "default-src 'none'" in content
        return report

    yield open_report
    context.close()


def test_a_rollout_with_its_film_and_plots(
    page: Any, inspector: str, opened: Any, shots: Path
) -> None:
    page.goto(f"{inspector}?tab=browse&q=alert+task:push")
    page.locator(".we-rollout").first.click()
    page.wait_for_selector(".we-player.ready")
    page.keyboard.press("Shift+ArrowRight")
    report = opened()
    assert EVIL in report.locator("h1").inner_text(), "as text"
    assert "frame 4 of 16" in report.locator(".we-player").inner_text()
    assert all(done and width > 100 for done, width in report.evaluate(PICTURES))
    assert len(report.evaluate(PICTURES)) == 2, "the moment in both views"
    assert report.locator(".we-p-plot svg path").count() >= 6
    assert report.locator(".we-p-mark").count() >= 4
    assert set(report.evaluate(BACKGROUNDS)) <= {'url("data:image/jpeg'}
    video = report.locator("video.we-film")
    assert video.count() == 1
    report.evaluate("document.querySelector('video').muted = true")
    report.evaluate("document.querySelector('video').play()")
    for _ in range(100):  # the page forbids what wait_for_function does
        report.wait_for_timeout(100)
        if report.evaluate("document.querySelector('video').currentTime") > 0.3:
            break
    assert report.evaluate("document.querySelector('video').currentTime") > 0.3
    assert report.evaluate("document.querySelector('video').videoWidth") >= 256
    report.screenshot(path=shots / "report-rollout.png", full_page=True)


def test_a_list_with_every_preview_and_a_film_that_is_too_large(
    page: Any, inspector: str, opened: Any
) -> None:
    page.set_viewport_size({"width": 500, "height": 400})  # most cards are out of sight
    page.goto(f"{inspector}?tab=browse")
    page.wait_for_selector(".we-rollout")
    report = opened()
    cards = page.locator(".we-rollout").count()
    found = report.evaluate(BACKGROUNDS)
    assert len(found) == cards and set(found) == {'url("data:image/jpeg'}
    page.locator(".we-rollout").first.click()
    page.wait_for_selector(".we-player.ready")
    page.evaluate(LARGE)
    report = opened()
    assert "The film (25.0 MB) is left out" in report.locator(".we-player").inner_text()
    assert report.locator("video").count() == 0


def test_the_leaderboard(page: Any, inspector: str, opened: Any, shots: Path) -> None:
    page.goto(inspector)
    page.get_by_role("link", name="first").click()
    report = opened()
    assert report.locator(".we-report svg").count() >= 1
    text = report.locator(".we-report").inner_text()
    assert "good" in text and EVIL in text
    report.screenshot(path=shots / "report-overview.png", full_page=True)


def test_a_comparison_has_a_film_of_each_side(page: Any, inspector: str, opened: Any) -> None:
    page.goto(f"{inspector}?tab=compare")
    page.wait_for_selector(".we-player.ready")
    report = opened()
    assert report.locator("video.we-film").count() == 2
    assert all(width > 30 for _, width in report.evaluate(PICTURES))


def test_a_funnel_with_the_reasons(page: Any, inspector: str, opened: Any, shots: Path) -> None:
    page.goto(f"{inspector}?tab=data")
    page.wait_for_selector("[data-side=rejected]")
    report = opened()
    assert "judged a success" in report.locator(".we-report").inner_text().lower()
    assert "by the rule success?threshold=0.8" in report.locator(".we-d-sides").inner_text()
    found = report.evaluate(BACKGROUNDS)
    assert len(found) == 12 and set(found) == {'url("data:image/jpeg'}
    report.screenshot(path=shots / "report-data.png", full_page=True)


def test_labels_and_the_live_world_too(page: Any, inspector: str, opened: Any) -> None:
    page.goto(f"{inspector}?tab=label")
    page.wait_for_selector(".we-pane[data-pane=label] .we-field")
    assert "Label" in opened().locator("h1").inner_text()
    page.goto(f"{inspector}?tab=live")
    page.wait_for_selector(".we-pane[data-pane=live] .we-card, .we-pane[data-pane=live] .we-empty")
    assert "Live" in opened().locator("h1").inner_text()


def test_a_server_that_is_gone_is_told(
    page: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path / "runs"
    write_rollouts(root / "first")
    with served(root, tmp_path_factory.mktemp("cache")) as address:
        page.goto(f"{address}?tab=browse")
        page.wait_for_selector(".we-rollout")
        page.wait_for_load_state("networkidle")
        page.route("**/inspector/**", lambda route: route.abort())
        page.click("#we-report")
        page.wait_for_function("document.querySelector('#we-report-told').textContent.length > 10")
    shutil.rmtree(root)
