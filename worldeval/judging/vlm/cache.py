"""Answers of a model, kept by what was asked, so that nothing is asked or paid for twice.

Enters: a key (``question_key``) and a ``Reply``. Leaves: that reply, whenever the same is asked.

The key is the SHA-256 of all that is sent (model, prompt, pictures, temperature, seed, ...) and the
number of the vote, since without seeds several votes send the same. The address is not part of it:
a model of the same name elsewhere is the same judge. An answer is one small file, written wholly or
not at all the moment it arrives; pictures and API keys are never written.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

from worldeval.data.atomic import write_atomically
from worldeval.data.files import load_json
from worldeval.errors import StoreError
from worldeval.judging.vlm.reply import Choice, Reply

FORMAT = "worldeval-vlm-answer-1"


def question_key(body: bytes, vote: int) -> str:
    """Name of the answer to ``body`` as the vote number ``vote``."""
    return hashlib.sha256(b"%d\n" % vote + body).hexdigest()


class AnswerCache:
    """A folder of answers. Several threads and processes may use one at the same time."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, key: str) -> Reply | None:
        """The answer kept under ``key``; None where there is none. Raises StoreError."""
        path = self._path(key)
        try:
            kept = load_json(path)
            if kept.pop("format") != FORMAT:
                raise ValueError("of another format")
            choices = tuple(Choice(**choice) for choice in kept.pop("choices"))
            if any(not choice.text.strip() for choice in choices):
                return None  # of an earlier version, which read content alone
            return Reply(choices=choices, **kept)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"cannot read the kept answer {path}: {error.strerror or error}; make it readable "
                "or choose another cache"
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{path} holds no answer of a model ({error}); delete it, it is asked for again"
            ) from error

    def put(self, key: str, reply: Reply) -> None:
        """Keep ``reply``. Raises StoreError where the folder cannot be written."""
        text = json.dumps({"format": FORMAT, **asdict(reply)}, ensure_ascii=False, indent=1)
        path = self._path(key)
        # A name of its own first: two that ask the same at once must not write into one file.
        own = path.with_name(f"{key}.{os.getpid()}-{threading.get_ident()}")
        try:
            write_atomically(own, lambda file: _write(file, text))
            os.replace(own, path)
        except OSError as error:
            raise StoreError(
                f"cannot keep an answer in {self.folder}: {error.strerror or error}; free some "
                "space or choose another cache"
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
