"""The inspector's scripts stand in the page itself, before Gradio's."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("gradio")
from fastapi.testclient import TestClient


@pytest.mark.parametrize("root_path", ["", "/lab/worldeval"])
def test_scripts_come_before_those_of_gradio(runs: Path, tmp_path: Path, root_path: str) -> None:
    from apps.inspector.app import SCRIPTS, Options, make_app
    from apps.inspector.context import Context

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gradio, about itself
        app = make_app(Context([runs], tmp_path / "cache"), Options(roots=(runs,)))
    with TestClient(app, base_url="http://localhost", root_path=root_path) as client:
        page = client.get("/", headers={"Accept-Encoding": "gzip, br"})
        assert int(page.headers["content-length"]) == len(page.content)
        at = [page.text.index(f"inspector/static/{name}.js") for name in SCRIPTS]
        assert at == sorted(at) and at[-1] < page.text.index("window.gradio_config")
        assert page.text.index("<base") < at[0]
        assert client.get("/inspector/status").json()["version"] == 0
        assert client.get("/nothing").status_code == 404
