"""A real browser drives, sketches, labels and compares, over a real evaluation."""

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
DRIVE = "document.querySelector('[data-live]').drive"


def begin(page: Any, address: str) -> None:
    page.set_default_timeout(60_000)
    page.goto(f"{address}?tab=live")
    page.wait_for_selector("[data-live]", timeout=240_000)  # the first one opens the world model
    page.select_option("select[name=start]", "reach/evaluation/0001")
    page.click("[data-begin] button")
    page.wait_for_selector(".we-l-views canvas")


def steps(page: Any, count: int) -> None:
    page.wait_for_function(f"{DRIVE}.root.dataset.steps >= {count} && !{DRIVE}.busy")


def hand(page: Any) -> list[float]:
    """Where the newest frame has the hand on the left view."""
    return page.evaluate(f"{DRIVE}.hands.left.at(-1)")


def pose(page: Any) -> list[float]:
    return page.evaluate(f"{DRIVE}.told.pose")


def pixels(page: Any) -> int:
    return page.evaluate(
        "(() => { const c = document.querySelector('.we-l-views canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let s = 0;"
        "for (let i = 0; i < d.length; i += 4) s = (s * 31 + d[i]) % 1e9; return s; })()"
    )


def test_keys_move_the_hand_and_a_past_moment_is_gone_on_from(
    page: Any, address: str, shots: Path
) -> None:
    begin(page, address)
    start, seen = pose(page), pixels(page)
    page.keyboard.press("ArrowRight")
    steps(page, 1)
    assert pose(page)[0] - start[0] == pytest.approx(0.06, abs=1e-3)
    assert pixels(page) != seen
    assert "s to picture" in page.inner_text(".we-l-time")
    page.keyboard.press("PageUp")
    steps(page, 2)
    assert pose(page)[2] - start[2] == pytest.approx(0.06, abs=1e-3)
    page.locator("[data-moment='0']").click()
    page.wait_for_function(f"{DRIVE}.now === 0")
    page.get_by_role("button", name="left").click()
    steps(page, 3)
    assert pose(page)[0] - start[0] == pytest.approx(-0.06, abs=1e-3)
    assert page.locator("[data-moment]").count() == 4
    page.screenshot(path=shots / "live.png", full_page=True)


def test_a_sketch_is_followed_and_kept(page: Any, address: str) -> None:
    begin(page, address)
    box, (u, v) = page.locator(".we-l-views canvas").first.bounding_box(), hand(page)
    goal = (u - 0.1, v + 0.06)
    at = [
        (box["x"] + box["width"] * (u + i / 9 * (goal[0] - u)),
         box["y"] + box["height"] * (v + i / 9 * (goal[1] - v)))
        for i in range(10)
    ]  # fmt: skip
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    page.get_by_text("The path is followed to its end.").wait_for()
    assert hand(page) == pytest.approx(goal, abs=0.01)
    page.get_by_role("button", name="Save as an episode").click()
    page.get_by_text("Saved as live/reach/evaluation/0001/").wait_for()


def test_another_visitor_has_another_world(page: Any, address: str, browser: Any) -> None:
    begin(page, address)
    page.keyboard.press("ArrowRight")
    steps(page, 1)
    stranger = browser.new_context().new_page()
    stranger.goto(f"{address}?tab=live")
    stranger.wait_for_selector("[data-live]")
    assert stranger.locator(".we-l-views canvas").count() == 0
    stranger.close()
    page.reload()
    page.wait_for_selector("[data-moment='1']")  # and one's own is still there


def test_labels_given_by_keys_arrive_in_the_folder(
    page: Any, address: str, evaluated: Path, shots: Path
) -> None:
    page.goto(f"{address}?tab=label")
    page.wait_for_selector("[data-label]")
    assert "full" not in page.inner_text(".we-label"), "blinded"
    assert page.locator(".we-b-meter i").bounding_box()["width"] == 0, "nothing is labelled yet"
    page.fill("[data-rater]", "browser")
    page.keyboard.press("Enter")
    page.wait_for_selector(".we-b-film .we-player.ready")
    page.screenshot(path=shots / "label.png", full_page=True)
    for key, said in (("s", "success"), ("2", "failure"), ("u", "undecided")):
        blind = page.get_attribute("[data-label]", "data-blind")
        page.keyboard.press("a")
        page.keyboard.press(key)
        page.wait_for_function(
            f"document.querySelector('[data-label]').dataset.blind !== '{blind}'"
        )
        page.wait_for_selector(".we-b-film .we-player.ready")
        found = [p.read_text() for p in evaluated.rglob("labels.csv")]
        assert any(f"{blind},browser,{said}" in text for text in found)
    page.keyboard.press("z")
    page.wait_for_function(f"document.querySelector('[data-label]').dataset.blind === '{blind}'")
    assert any("withdrawn" in p.read_text() for p in evaluated.rglob("labels.csv"))


def test_two_policies_run_in_step_and_are_laid_over_each_other(
    page: Any, address: str, shots: Path
) -> None:
    page.goto(f"{address}?tab=compare&task=reach")
    page.wait_for_selector("[data-over][data-ready]")
    assert page.locator(".we-p-side").count() == 2
    page.keyboard.press("End")
    page.wait_for_timeout(300)
    page.select_option("[data-mode]", "difference")
    page.wait_for_function(
        "Number(document.querySelector('.we-c-canvas').dataset.difference) > 0.5"
    )
    page.screenshot(path=shots / "compare.png", full_page=True)
