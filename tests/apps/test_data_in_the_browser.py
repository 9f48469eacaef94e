"""A real browser looks at datasets: reasons, films, flags, an export with its refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import CHROMIUM, served
from .making import write_recordings, write_synthesis

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "runs"
    write_synthesis(root / "synthetic")
    write_recordings(root / "recorded")
    return root


@pytest.fixture(scope="module")
def datasets(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(made, tmp_path_factory.mktemp("cache")) as found:
        yield found


def test_from_the_funnel_to_the_film_of_a_rejected_rollout(
    page: Any, datasets: str, shots: Path
) -> None:
    page.goto(f"{datasets}?tab=data")
    page.get_by_role("link", name="synthetic").click()
    page.wait_for_selector("[data-side=rejected] .we-rollout")
    page.wait_for_function(
        "document.querySelector('.we-preview').style.backgroundImage.includes('pictures/')"
    )
    page.screenshot(path=shots / "data.png", full_page=True)
    card = page.locator("[data-side=rejected] .we-rollout").first
    assert "not judged a success" in card.inner_text() and "<script>" in card.inner_text()
    card.click()
    page.wait_for_selector(".we-player.ready")
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelector('.we-player').player.frame >= 4")
    assert "by the rule success" in page.locator("aside").inner_text()
    page.screenshot(path=shots / "data-episode.png")
    page.reload()
    page.wait_for_selector(".we-player.ready")
    page.get_by_text("all episodes").click()
    page.wait_for_selector("[data-side=kept] .we-rollout")


def test_an_export_is_followed_to_its_end_and_refused_the_second_time(
    page: Any, datasets: str, made: Path
) -> None:
    page.goto(f"{datasets}?tab=data")
    page.get_by_role("link", name="recorded").click()
    page.wait_for_selector(".we-odd")
    told = page.locator("[data-told]")
    page.get_by_role("button", name="Export").click()
    page.wait_for_function(
        "document.querySelector('[data-told]').textContent.includes('8 episodes, ')",
        timeout=120_000,  # films are coded: on a busy machine that takes its time
    )
    assert told.inner_text().startswith("runs/recorded-lerobot-3.0: 8 episodes")
    assert (made / "recorded-lerobot-3.0" / "meta" / "info.json").is_file()
    page.get_by_role("button", name="Export").click()
    page.wait_for_selector("[data-told].we-error")
    assert "is there already" in told.inner_text()
