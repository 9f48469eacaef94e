"""Run the notebooks from top to bottom and keep what they print: `python notebooks/run.py [NAME]`.

Plain Python cells, `!worldeval ...` lines, and the value of a cell's last line as Jupyter shows it:
no Jupyter is needed. Outputs are text and small pictures; --check runs them and changes no file.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from worldeval import cli

HERE = Path(__file__).resolve().parent
MOST_BYTES = 200_000
"""Of one notebook with its outputs."""


def run(path: Path, place: Path) -> dict[str, Any]:
    """The notebook at ``path`` with fresh outputs; its code runs in the folder ``place``.

    Raises what a cell raises, with a note on the cell.
    """
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(place)
    try:
        number = 0
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            number += 1
            try:
                cell["outputs"] = _cell("".join(cell["source"]), names)
            except BaseException as error:
                error.add_note(f"in cell {number} of {path.name}")
                raise
            cell["execution_count"] = number
    finally:
        os.chdir(before)
    return notebook


def _cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Outputs of one cell, in Jupyter's form."""
    source = re.sub(r"(?m)^!(.*)$", lambda m: f"_shell({m[1]!r})", source)
    names["_shell"] = lambda words: _shell(words, names)
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if source.rstrip().endswith(";"):  # as in Jupyter: the value is not shown
        last = None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        body = tree.body[:-1] if last else tree.body
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs = []
    if text := _tidy(printed.getvalue()):
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(text)})
    if value is not None:
        outputs.append(
            {
                "output_type": "execute_result",
                "execution_count": None,
                "metadata": {},
                "data": _shown(value),
            }
        )
    return outputs


def _shell(words: str, names: dict[str, Any]) -> None:
    """A `!command` line. One of worldeval runs in this process, where torch is loaded already."""
    told = shlex.split(words.format_map(names))
    if told[0] != "worldeval":
        raise ValueError(f"{words!r}: only commands of worldeval are run here")
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = cli.main(told[1:])
    if code:
        raise RuntimeError(f"{words} ended with {code}: {errors.getvalue()[-2000:]}")


def _shown(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": _lines(_tidy(repr(value)))}
    if hasattr(value, "_repr_jpeg_"):
        data["image/jpeg"] = base64.b64encode(value._repr_jpeg_()).decode()
    elif type(value).__name__ == "DataFrame":
        data["text/html"] = _lines(value._repr_html_())
    return data


def _tidy(text: str) -> str:
    """Without the folder in which it ran, so that running it again changes little."""
    return text.replace(str(Path.cwd()) + "/", "").rstrip()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of file names; all if none is given")
    parser.add_argument("--check", action="store_true", help="change no file")
    given = parser.parse_args()
    os.environ.setdefault("WORLDEVAL_CHECKPOINTS", str(HERE.parent / "checkpoints"))
    for path in sorted(HERE.glob("*.ipynb")):
        if given.names and not path.name.startswith(tuple(given.names)):
            continue
        with tempfile.TemporaryDirectory() as place:
            notebook = run(path, Path(place))
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        assert len(text.encode()) < MOST_BYTES, f"{path.name} has {len(text)} characters"
        if not given.check:
            path.write_text(text, encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
