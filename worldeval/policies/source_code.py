"""The source files that a policy's own file leads to, read and never run.

Enters: a file, or the name of a module. Leaves: part -> digest: of each file that is imported, from
file to file, as far as it lies beside the policy's, below its package, or elsewhere outside of
installed packages; of what their texts name where it is there (weights, settings, folders to import
from); and of installed packages the version. A name that is put together at run time stays unseen.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import itertools
import logging
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from worldeval.data import digests

log = logging.getLogger(__name__)

MOST_FILES = 5000
"""Source files that are digested; that there are more is reported."""
WEIGHTS = (
    *(".npz", ".npy", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".pkl", ".joblib"),
    *(".pickle", ".tar", ".ini"),
    *(".h5", ".hdf5", ".msgpack", ".gguf", ".tflite", ".json", ".yaml", ".yml", ".toml"),
)
"""What files are called that a policy reads. Others that its code names (logs) it may write."""
_LONGEST = 400  # characters of a text that may name a file


def existing(text: str, folders: list[Path]) -> Path | None:
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


class SourceCode:
    """Source files reached from a policy's own, and what their texts name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, None] = {}
        self.named: dict[Path, None] = {}
        self.installed: dict[str, str] = {}
        self._folders: dict[Path, None] = {}
        self._waiting: list[Path] = []
        self._full = False
        self._listed: dict[Path, frozenset[str]] = {}
        self._seen: set[tuple[Path, str, int]] = set()

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
        self.folder = place.parent  # in which its parts are named
        installed = _is_installed(place)
        if installed:
            self.installed |= _version(top)
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in (".py", ".so") and digests.LEFT_OUT.isdisjoint(path.parts):
                self._add(path, read=not installed)
        self._follow()

    def _follow(self) -> None:
        while self._waiting:
            self._read(self._waiting.pop())

    def _add(self, path: Path, *, read: bool = True) -> None:
        path = path.resolve()
        if path in self.files or not path.is_file():
            return
        if len(self.files) == MOST_FILES:
            if not self._full:
                log.warning(
                    "%s leads to more than %d source files: whether those beyond have changed is "
                    "not checked",
                    next(iter(self.files)),
                    MOST_FILES,
                )
            self._full = True
            return
        self.files[path] = None
        if read and path.suffix == ".py":
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
        if self._twice(file, name):
            return
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
        if len(text) > _LONGEST or not text.strip(". /~") or self._twice(file, f"'{text}"):
            return
        if text.lstrip("*") in WEIGHTS:  # with_suffix(".npz"), glob("*.npz")
            for name in self._names(file.parent):
                if name.endswith(text.lstrip("*")):
                    self.named[(file.parent / name).resolve()] = None
            return
        if text.startswith("/") and not os.path.exists(text):  # f"{here}/w.npz"
            text = text.lstrip("/")
        if text.isidentifier() and (module := self._beside(file.parent, text)) is not None:
            for source in _sources(module) if module.is_dir() else (module,):
                self._add(source)
        top, *rest = text.split(".")
        if rest and all(map(str.isidentifier, (top, *rest))) and self._beside(file.parent, top):
            self._import(file, text)  # import_module("parts.network")
        first = text.partition("/")[0]
        far = first in ("", ".", "..", "file:") or first.startswith("~")
        near = dict.fromkeys((file.parent, self.folder, Path.cwd()))
        found = existing(text, [place for place in near if far or first in self._names(place)])
        if found is None or file.is_relative_to(found.resolve()):
            return
        if found.is_dir():
            if any(name.endswith(".py") for name in self._names(found)):
                self._folders[found] = None
            inside = found.resolve().is_relative_to(file.parent)
            paths = itertools.islice(found.rglob("*"), MOST_FILES) if inside else found.iterdir()
            held = any(path.suffix in WEIGHTS for path in paths)
        else:
            if found.suffix == ".py":
                self._add(found)
            held = found.suffix in WEIGHTS
        if held:
            self.named[found.resolve()] = None

    def _beside(self, folder: Path, top: str) -> Path | None:
        for place in dict.fromkeys((folder, self.folder, *self._folders)):
            names = self._names(place)
            if f"{top}.py" in names:
                return place / f"{top}.py"
            if top in names and any(_sources(place / top)) and (place / top).is_dir():
                return place / top
        return None

    def _names(self, folder: Path) -> frozenset[str]:
        """What lies in a folder; asked once."""
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def _twice(self, file: Path, name: str) -> bool:
        """Whether a name was met in this folder before, when there were no more to look in."""
        met = (file.parent, name, len(self._folders))
        known = met in self._seen
        self._seen.add(met)
        return known

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
    return any(path.resolve().is_relative_to(place) for place in _places())


@functools.cache
def _places() -> frozenset[Path]:
    """Where packages are installed: those of this environment, and of others that it takes in."""
    found = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    found |= {p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")}
    return frozenset(Path(place).resolve() for place in found if place)


def _within(folder: Path | None, path: Path) -> bool:
    return folder is not None and path.is_relative_to(folder.resolve())


def _version(top: str) -> dict[str, str]:
    try:
        names = importlib.metadata.packages_distributions().get(top, [top])
        return {f"{name} (installed)": importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError:
        return {}
