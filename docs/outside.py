"""Hook of mkdocs: what was measured, and how each shipped part was made, are pages of the site too.

They lie outside ``docs/``; links to them are written as they are in the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "checkpoints")


def on_files(files: Files, *, config: Any) -> Files:
    """The pages and pictures of ``FOLDERS`` beside those of ``docs/``."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.*")):
            if path.suffix in (".md", ".png"):
                name = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    for folder in FOLDERS:
        markdown = markdown.replace(f"](../{folder}/", f"]({folder}/")
    return markdown
