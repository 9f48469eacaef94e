"""A folder at a URL: S3, or whatever else fsspec knows, with patience and errors in sentences.

Enters: a URL, names relative to it. Leaves: files there or here, each wholly or not at all. A
network that stalls, breaks or answers with 500 is asked again; what asking again cannot mend (wrong
credentials, no such bucket) is told at once.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from worldeval.data.atomic import TEMPORARY, write_atomically
from worldeval.errors import ConfigError, MissingDependencyError, StoreError

PATIENCE_S = 60.0
"""For which a call is tried again while the network or the store fails."""
STALL_S = 20.0
"""After which a silent connection counts as broken."""

_T = TypeVar("_T")
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(.*)")  # Path has made one slash of two
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory"}
"""Stores in which a file appears when all of it is there; in others it is renamed to its place."""
_LASTING = {
    *(errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.EROFS, errno.EEXIST),
}
_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure", "adlfs", "requests")
_SETTINGS = ("Credential", "Token", "Profile", "ParamValidation", "NoRegion", "InvalidConfig")


class Version(NamedTuple):
    """Of a file there: bytes, and what changes when it is written again."""

    size: int
    mark: str


def url_of(place: str | Path) -> str | None:
    """The URL that was given where a folder may be; None for a folder."""
    found = _URL.fullmatch(str(place))
    if found is None or Path(place).exists():
        return None
    scheme, rest = found.groups()
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest.strip('/')}"


class RemoteFolder:
    """The folder at ``url``. Raises ConfigError or MissingDependencyError for what is no URL that
    can be used; the network is not asked yet."""

    def __init__(self, url: str) -> None:
        clean = url_of(url)
        if clean is None or not clean.partition("://")[2].strip("/"):
            raise ConfigError(f"{url!r} is no URL, expected one such as s3://BUCKET/RUN")
        self.url = clean
        self._fs, self._root = _opened(clean)
        self._whole = bool(_WHOLE & {self._fs.protocol, *_protocols(self._fs)})

    def files(self) -> dict[str, Version]:
        """All files in it, by name; none where there is no such folder yet."""

        def find() -> dict[str, Any]:
            self._fs.invalidate_cache()
            try:
                return dict(self._fs.find(self._root, detail=True))
            except FileNotFoundError as error:
                if "bucket" in str(error).lower():
                    raise
                return {}

        found = {}
        for path, info in self._tried("listed", find).items():
            name = path[len(self._root) :].lstrip("/")
            marks = [info.get(key) for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime")]
            mark = next((str(m) for m in marks if m is not None), str(info.get("created")))
            found[name] = Version(int(info["size"]), mark)
        return {name: version for name, version in found.items() if not name.endswith(TEMPORARY)}

    def put(self, name: str, content: Path | bytes) -> None:
        """Write a file there. FileNotFoundError if the one to send is gone here."""
        place = f"{self._root}/{name}"
        target = place if self._whole else place + TEMPORARY

        def write() -> None:
            if not self._whole:
                self._fs.makedirs(os.path.dirname(place), exist_ok=True)
            if isinstance(content, bytes):
                self._fs.pipe_file(target, content)
            else:
                self._fs.put_file(str(content), target)
            if not self._whole:
                self._fs.mv(target, place)

        try:
            self._tried("written", write)
        except StoreError as error:
            if isinstance(content, Path) and not content.exists():
                raise FileNotFoundError(str(content)) from error
            raise

    def get(self, name: str, path: Path, version: Version) -> bool:
        """Fetch a file; whether it is still there, of that size."""
        whole = True

        def write(temporary: Path) -> None:
            nonlocal whole
            self._fs.get_file(f"{self._root}/{name}", str(temporary))
            whole = temporary.stat().st_size == version.size

        try:
            self._tried("read", lambda: write_atomically(path, write, sync=False))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        return whole

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""

        def remove() -> None:
            try:
                self._fs.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return

        self._tried("changed", remove)

    def _tried(self, done: str, call: Callable[[], _T]) -> _T:
        """The result of ``call``, tried again while that may help; else StoreError with why."""
        until, pause = time.monotonic() + PATIENCE_S, 0.2
        while True:
            try:
                return call()
            except Exception as error:
                lasting = _lasting(error)
                if lasting is None:
                    raise
                if lasting or time.monotonic() + pause > until:
                    raise StoreError(
                        f"{self.url} cannot be {done} ({_told(error)}); {_remedy(error, lasting)}"
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def _opened(url: str) -> tuple[Any, str]:
    import fsspec

    scheme = url.partition("://")[0]
    options: dict[str, Any] = {"skip_instance_cache": True}  # the environment may be another now
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = {
            "connect_timeout": STALL_S,
            "read_timeout": STALL_S,
            "retries": {"max_attempts": 0},  # ours is the patience
        }
    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        extra = "'worldeval[s3]'" if scheme in ("s3", "s3a") else "what fsspec names"
        raise MissingDependencyError(
            f"{url} needs a package that is not installed ({error}); pip install {extra}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{url!r} cannot be used ({error}); expected a URL such as s3://BUCKET/RUN, or of "
            "another store that fsspec knows"
        ) from error
    if hasattr(fs, "retries"):
        fs.retries = 1
    return fs, str(root).rstrip("/")


def _protocols(fs: Any) -> tuple[str, ...]:
    return fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)


def _lasting(error: Exception) -> bool | None:
    """Whether asking again cannot help; None if it is no error of a store or a network."""
    if isinstance(error, (PermissionError, FileNotFoundError)):
        return True
    code = _status(error)
    if code is not None:
        return 400 <= code < 500 and code not in (408, 429)
    if isinstance(error, OSError):
        return error.errno in _LASTING
    if type(error).__module__.partition(".")[0] in _LIBRARIES:
        return any(word in type(error).__name__ for word in _SETTINGS)
    return None


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of S3."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code if isinstance(code, int) else None
    return _status(error.__cause__) if error.__cause__ is not None else None


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _remedy(error: Exception, lasting: bool) -> str:
    if not lasting:
        return "look at the network, then run this again"
    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return "create the bucket, or correct the URL"
    return (
        "correct the URL or the credentials (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or AWS_PROFILE)"
    )
