"""The last net: what nobody expected becomes one sentence and a file to send.

Enters: an exception and the words of the command line. Leaves: a file in the temporary folder with
the traceback and what a maintainer asks first. Of the environment only what is listed here is
written, since it may hold keys.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata

from worldeval.terminal import shortened

EXIT_CODE = 70
"""A fault of worldeval; EX_SOFTWARE in sysexits.h."""

_SHOW = "WORLDEVAL_TRACEBACK=1"
_PACKAGES = (
    "torch", "numpy", "pandas", "pyarrow", "av", "tyro", "safetensors", "transformers",
    "diffusers", "scipy", "opencv-python-headless", "metaworld", "mujoco",
)  # fmt: skip
_VARIABLES = ("LANG", "LC_", "OMP_", "GOMP_", "MKL_", "PYTHON", "WORLDEVAL_", "MUJOCO_", "CUDA_")


def sentence(error: BaseException, words: Sequence[str]) -> str:
    """What happened, where, and which file to send; the file is written."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({os.path.basename(where[0].filename)}, line {where[0].lineno})" if where else ""
    what = shortened(what, 300)
    return f"a fault of worldeval, please report it: {what}{place}; {kept(error, words)}"


def kept(error: BaseException, words: Sequence[str]) -> str:
    """Write the file, and say where it lies or why it could not be written."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="worldeval-fault-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report(error, words))
    except (OSError, MemoryError) as refusal:
        reason = getattr(refusal, "strerror", None) or refusal
        return f"no file with the details could be written ({reason}), {_SHOW} shows them"
    return f"the details are in {path}, look it over and send it; {_SHOW} shows them here"


def report(error: BaseException, words: Sequence[str]) -> str:
    """All that is known of a fault, as text."""
    from worldeval import __version__

    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} missing")
    shown = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)}
    return "\n".join(
        [
            f"worldeval {__version__}, Python {platform.python_version()}, {platform.platform()}",
            ", ".join(versions),
            f"command: worldeval {shlex.join(words)}",
            f"folder: {_folder()}",
            f"cores: {os.cpu_count()}, encoding: {sys.getfilesystemencoding()}",
            *(f"{name}={value}" for name, value in shown.items()),
            "",
            *traceback.format_exception(error),
        ]
    )


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError as error:  # it was removed
        return f"none ({error.strerror})"
