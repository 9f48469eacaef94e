"""What decides how a policy acts, digested: a changed policy is never taken for the old one.

Enters: a policy's URI. Leaves: part -> twelve digits (``data/digests.py``), for example::

    python:trained.py:Mine?weights=w.npz    trained.py, network.py (imported from beside it),
                                            weights=w.npz
    bc:runs/mine, runs/mine                 the checkpoint
    replay:recordings/training              the store's episodes
    openpi://host:8000?keys=robot.toml      keys=robot.toml

Code is read, never run: imports are followed from file to file as far as they lie beside the
policy's file, below its package, or elsewhere outside of installed packages; of installed ones the
version counts. What a file's text names besides (``"weights.npz"``) is a part too where it exists
beside the file or in the working folder. A server's weights cannot be seen from here, nor can what
a policy finds by a name that it makes up.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from worldeval.data import digests
from worldeval.policies.loading import ALONE, ENTRY_POINTS, WITH_PLACE

MOST_FILES = 2000
"""Source files that are followed, and no more."""
WEIGHTS = (
    *(".npz", ".npy", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".pkl", ".joblib"),
    *(".h5", ".hdf5", ".msgpack", ".gguf", ".tflite", ".json", ".yaml", ".yml", ".toml"),
)
"""What files are called that a policy reads. Others that its code names (logs) it may write."""
_LONGEST = 400  # characters of a text that may name a file


def policy_content(uri: str, *, but: Path | None = None) -> dict[str, str]:
    """Part -> digest of all that lies on the disk and decides how the policy acts.

    but: the folder that rollouts are written to, which is no part of anything. Raises ConfigError
    for a file that cannot be read.
    """
    head, _, query = uri.partition("?")
    scheme, _, rest = head.partition(":")
    here = Path.cwd()
    if scheme == "python":
        code = _code_of(rest.rpartition(":")[0])
        parts, beside = code.parts(but), code.folder
    else:
        named, beside = rest if scheme in _BUILT_IN else head, here
        place = _existing(named, [here])
        parts = {}
        if place is None and scheme not in _BUILT_IN and (entry := _entry(scheme)) is not None:
            code = _code_of(entry.value.partition(":")[0].strip())
            parts = {f"scheme {scheme}": entry.value} | code.parts(but)
            named, place = rest, _existing(rest, [here])
        if place is not None:
            parts["what it names"] = digests.of_path(place, but=but)
    for name, text in _named(query):
        found = _existing(text, [here, beside])
        if found is not None:
            parts[f"{name}={text}"] = digests.of_path(found, but=but)
    return parts


_BUILT_IN = frozenset({*ALONE, *WITH_PLACE})


def _code_of(where: str) -> _Code:
    """The code of ``path/to/file.py`` or of ``package.module``."""
    if where.endswith(".py"):
        file = Path(where).expanduser().resolve()
        code = _Code(file.parent)
        code.follow(file)
        return code
    code = _Code(Path.cwd())
    code.module(where)
    return code


def _named(query: str) -> Iterator[tuple[str, str]]:
    """(argument, text) of all texts after the ``?``; those within JSON lists and objects too."""
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        text = unquote(text)
        if name == "name":  # what the policy is called, no file
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        for inner in _texts(value):
            yield name, inner


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _existing(text: str, folders: list[Path]) -> Path | None:
    """The file or folder that a text names, from one of ``folders``; None if it names none."""
    text = text.removeprefix("file://")
    if not text or len(text) > _LONGEST or "\0" in text or "\n" in text:
        return None
    for folder in folders:
        try:
            path = folder / Path(text).expanduser()
            if path.is_dir() or path.is_file():
                return path
        except (OSError, RuntimeError):  # RuntimeError: ~nobody
            continue
    return None


def _entry(scheme: str) -> importlib.metadata.EntryPoint | None:
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return next((entry for entry in found if entry.name == scheme), None)


class _Code:
    """Source files reached from a policy's own, and what their texts name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, None] = {}
        self.named: dict[Path, None] = {}
        self.installed: dict[str, str] = {}
        self._folders: dict[Path, None] = {}
        self._waiting: list[Path] = []

    def parts(self, but: Path | None) -> dict[str, str]:
        found = {self._name(path): digests.of_file(path) for path in self.files}
        for path in self.named:
            if path not in self.files and not _within(but, path):
                found[self._name(path)] = digests.of_path(path, but=but)
        return found | self.installed

    def _name(self, path: Path) -> str:
        near = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if near else str(path)

    def follow(self, file: Path) -> None:
        """Take a file, and all that it leads to."""
        self._add(file)
        self._follow()

    def module(self, name: str) -> None:
        """Take a module by its full name, and all source files of its package."""
        top = name.partition(".")[0]
        place = self._find(top)
        if place is None:
            return
        if _is_installed(place):
            self.installed |= _version(top)
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in (".py", ".so") and digests.LEFT_OUT.isdisjoint(path.parts):
                self._add(path)
        self._follow()

    def _follow(self) -> None:
        while self._waiting:
            self._read(self._waiting.pop())

    def _add(self, path: Path) -> None:
        path = path.resolve()
        if path in self.files or not path.is_file() or len(self.files) >= MOST_FILES:
            return
        self.files[path] = None
        if path.suffix == ".py":
            self._waiting.append(path)

    def _read(self, file: Path) -> None:
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return  # whoever imports it says so better; its digest counts all the same
        nodes = list(ast.walk(tree))
        for node in nodes:  # first, since they may name folders to import from
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._text(file, node.value)
        for node in nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    self._import(file, name.name)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(file, node)

    def _import_from(self, file: Path, node: ast.ImportFrom) -> None:
        names = [name.name for name in node.names]
        if not node.level:
            module = node.module or ""
            for name in (module, *(f"{module}.{name}" for name in names)):
                self._import(file, name)
            return
        base = file.parent
        for _ in range(node.level - 1):
            base = base.parent
        inner = base.joinpath(*(node.module or "").split(".")) if node.module else base
        for path in (inner, *(inner / name for name in names)):
            for source in _sources(path):
                self._add(source)

    def _import(self, file: Path, name: str) -> None:
        """An absolute import, if it leads to a stranger's code that is not installed."""
        top, *rest = name.split(".")
        place = self._beside(file.parent, top) or self._find(top)
        if place is None or _is_installed(place):
            return
        if not place.is_dir():
            self._add(place)
            return
        for count in range(len(rest) + 1):
            for source in _sources(place.joinpath(*rest[:count])):
                self._add(source)

    def _text(self, file: Path, text: str) -> None:
        """A text in the code that names a module, weights, or a folder to import from."""
        if not text.strip(". /~"):
            return
        if text.isidentifier() and (module := self._beside(file.parent, text)) is not None:
            for source in _sources(module) if module.is_dir() else (module,):
                self._add(source)
        found = _existing(text, [file.parent, self.folder, Path.cwd()])
        if found is None or file.is_relative_to(found.resolve()):
            return
        if found.is_dir():
            self._folders[found] = None
            held = any(path.suffix in WEIGHTS for path in found.iterdir())
        else:
            held = found.suffix in WEIGHTS
        if held:
            self.named[found.resolve()] = None

    def _beside(self, folder: Path, top: str) -> Path | None:
        for place in dict.fromkeys((folder, self.folder, *self._folders)):
            if (place / f"{top}.py").is_file():
                return place / f"{top}.py"
            if (place / top).is_dir() and any(_sources(place / top)):
                return place / top
        return None

    def _find(self, top: str) -> Path | None:
        """File or folder of a module of the first level that is neither Python's nor ours."""
        if not top.isidentifier() or top in sys.stdlib_module_names or top == "worldeval":
            return None
        found = self._beside(Path.cwd(), top)
        if found is not None:
            return found
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None:
            return None
        if spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
        return Path(spec.origin) if spec.origin and os.path.isfile(spec.origin) else None


def _sources(path: Path) -> Iterator[Path]:
    """Files that importing the module at ``path`` (without suffix, or a folder) may read."""
    plain = path.with_name(f"{path.name}.py")
    if plain.is_file():
        yield plain
    if path.is_dir():
        if (path / "__init__.py").is_file():
            yield path / "__init__.py"
        elif path.suffix == "":
            yield from sorted(path.glob("*.py"))
    yield from sorted(path.parent.glob(f"{path.name}.*.so"))


def _is_installed(path: Path) -> bool:
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    return any(_within(Path(place).resolve(), path.resolve()) for place in places if place)


def _within(folder: Path | None, path: Path) -> bool:
    return folder is not None and path.is_relative_to(folder.resolve())


def _version(top: str) -> dict[str, str]:
    try:
        names = importlib.metadata.packages_distributions().get(top, [top])
        return {f"{name} (installed)": importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError:
        return {}
