"""What reaches the terminal: whole, harmless, and never the reason why work is lost.

Names of tasks and policies, instructions, reasons of judges and names of files come from data, and
may hold codes that recolour, clear or rename a terminal. Enters: the standard streams, which may be
closed, full, deaf or ASCII. Leaves: streams that show ``?`` for what cannot or must not be shown,
and whose loss is remembered instead of raised.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f"
_SPACES += "\u205f\u3000"  # str.isprintable knows but one space


def printable(text: str, keep: str = "") -> str:
    """``text`` with ? for every letter that would move a terminal instead of showing.

    Control characters, escape codes, marks that turn the direction of writing, halves of surrogate
    pairs. keep: letters to leave as they are, such as line ends.
    """
    if text.isprintable():
        return text
    keep += _SPACES
    return "".join(letter if letter.isprintable() or letter in keep else "?" for letter in text)


def shortened(text: str, most: int) -> str:
    """On one line, with its middle left out where it is longer than ``most`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-(most // 2) :]}"


def in_notebook() -> bool:
    """Whether a notebook shows what this process prints."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def bar_options() -> dict[str, Any]:
    """For ``tqdm``: a bar is shown in a terminal and in a notebook, and not in a file."""
    return {"disable": False, "file": sys.stdout} if in_notebook() else {"disable": None}


class Terminal:
    """A standard stream to which any text may be written.

    keep: control characters that pass (line ends; for progress bars the carriage return too).
    ``lost`` is why the stream stopped taking text, such as a full disk; None while it takes it.
    """

    def __init__(self, stream: TextIO, keep: str = "\n\t") -> None:
        self._stream = stream
        self._keep = keep
        self.colours = False
        self.lost: OSError | ValueError | None = None
        try:
            self._number = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._number = -1

    def close(self) -> None:
        """Only flush: whoever closes it (a policy, a library) did not open it."""
        self.flush()

    def write(self, text: str) -> int:
        if self.lost is None:
            shown = text if self.colours else printable(text, self._keep)
            try:
                self._write(shown)
            except (OSError, ValueError) as error:  # ValueError: closed meanwhile
                self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.lost is None and not self._stream.closed:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _write(self, text: str) -> None:
        if self._stream.closed and self._number >= 0:  # below us, as ``sys.__stdout__``
            self._stream = open(  # noqa: SIM115
                self._number, "w", encoding=self._stream.encoding, errors="replace", closefd=False
            )
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # an ASCII terminal
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))

    def _lose(self, error: OSError | ValueError) -> None:
        """Remember why, and let the interpreter's last flush succeed."""
        self.lost = error
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            return  # no file of the system's lies behind it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_streams() -> Iterator[tuple[Terminal, Terminal]]:
    """Standard output and error as ``Terminal`` while the context lasts; closed ones go nowhere."""
    before = sys.stdin, sys.stdout, sys.stderr
    opened: list[TextIO] = []

    def nowhere(mode: str) -> TextIO:
        stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
        opened.append(cast(TextIO, stream))
        return opened[-1]

    sys.stdin = sys.stdin or nowhere("r")
    out = Terminal(sys.stdout or nowhere("w"))
    err = Terminal(sys.stderr or nowhere("w"), "\r\n\t")
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for stream in opened:
            stream.close()


@contextmanager
def colours(allowed: bool) -> Iterator[None]:
    """Let colours of our own pass while the context lasts, if ``allowed``."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, Terminal)]
    for stream in streams:
        stream.colours = allowed
    try:
        yield
    finally:
        for stream in streams:
            stream.colours = False


def fill_descriptors() -> None:
    """Open the descriptors 0, 1 and 2 where they are closed (``>&-``), to nowhere.

    Else the first file that the program opens becomes the standard output of every library and
    child process, and what they print is written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
