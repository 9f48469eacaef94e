"""The frame of a report: what a title holds is text, and nothing may be loaded or run."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from apps.inspector.one_file import HERE

from .conftest import EVIL


def test_the_frame_is_a_whole_page_without_scripts(client: TestClient) -> None:
    query = {"title": f"{EVIL}{HERE}", "state": "?tab=x&q=</title><script>alert(3)</script>"}
    text = client.get("/inspector/report-frame", params=query).text
    assert text.count(HERE) == 1 and text.startswith("<!doctype html>")
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
    assert policy in text
    assert "@scope (.we-report)" in text and ".we-p-line" in text, "looks and plots in one file"
    assert "src=" not in text.replace("&lt;img src=x", "")


def test_a_title_of_any_length_is_cut(client: TestClient) -> None:
    text = client.get("/inspector/report-frame", params={"title": "long " * 2000}).text
    assert text.count("long ") < 200
