"""A real browser over two made-up evaluations: another instruction, and before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import CHROMIUM, judge, served, write_rollouts

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
SIDES = "document.querySelectorAll('.we-player.ready .we-p-side').length"
START = "push/evaluation/0000"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An inspector of an evaluation before a change, and one after it."""
    place = tmp_path_factory.mktemp("compared")
    for name, bad in (("before", "failure"), ("after", "success")):
        store = place / "runs" / name / "rollouts" / "all"
        write_rollouts(store, start_seed=7)
        judge(store, {"good": "success", "bad": bad})
    with served(place / "runs", place / "cache") as found:
        yield found


def opened(page: Any, address: str) -> None:
    page.set_default_timeout(60_000)
    page.goto(f"{address}?tab=compare&start={START}")
    page.wait_for_selector("select[name=run]")
    page.select_option("select[name=run]", label="after")
    page.wait_for_function("new URLSearchParams(location.search).get('run')")
    page.wait_for_function(f"{SIDES} === 2")


def in_step(page: Any) -> None:
    """Both sides come to the last frame together."""
    page.keyboard.press("End")
    page.wait_for_function(
        "(() => { const p = document.querySelector('.we-player').player;"
        "return p.frame === 16 && p.sides.every("
        "s => Math.abs(s.video.currentTime * s.fps - 16) <= 1); })()"
    )


def test_own_and_swapped_instruction_run_in_step(page: Any, address: str, shots: Path) -> None:
    opened(page, address)
    page.locator("p:has-text('swapped instruction') .we-chip", has_text="good").click()
    page.wait_for_function("new URLSearchParams(location.search).get('swap') === 'good'")
    page.locator(".we-p-side", has_text="reach the block").wait_for()
    page.wait_for_function(f"{SIDES} === 2")
    assert page.locator(".we-p-side", has_text="push the block").count() == 1
    in_step(page)
    page.screenshot(path=shots / "compare-swapped.png", full_page=True)


def test_before_and_after_have_paired_statistics_and_both_films(
    page: Any, address: str, shots: Path
) -> None:
    opened(page, address)
    page.select_option("select[name=other]", label="before")
    page.wait_for_selector(".we-c-table tbody tr")
    row = page.locator(".we-c-table").first.locator("tbody tr", has_text="bad")
    name, points, _, gained, lost, pairs, _ = row.locator("th, td").all_inner_texts()
    assert (name, points, gained, lost, pairs) == ("bad", "+100", "2", "0", "2")
    page.wait_for_function(f"{SIDES} === 2")
    for title in ("before", "after"):
        assert page.locator(".we-p-side", has_text=title).count() == 1
    in_step(page)
    page.locator(".we-chip", has_text="bad").click()
    page.wait_for_function("new URLSearchParams(location.search).get('policies') === 'bad'")
    page.wait_for_function(f"{SIDES} === 2")
    page.screenshot(path=shots / "compare-before-after.png", full_page=True)
