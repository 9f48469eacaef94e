"""What the index says of episodes, kept a second time inside the data tables themselves.

Enters: rows of the index and what a store is. Leaves: one entry of a data file's own metadata, and
back. With it ``repair`` rebuilds a lost ``meta/`` wholly; nothing else reads it, and other readers
of parquet pass over it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldeval.data.files import parsed_json
from worldeval.data.store.layout import StoreLayout

_ENTRY = "worldeval"
_MOST_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Facts:
    """info: of the store, without counts of episodes. rows: of the episodes in the file."""

    info: dict[str, Any]
    rows: tuple[dict[str, Any], ...]


def packed(
    layout: StoreLayout,
    sizes_mb: tuple[int, int],
    extra: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """The entry for a file with the episodes ``rows``.

    Where the file itself lies and its checksum are left out: it cannot hold its own.
    """
    info = layout.info(episodes=0, frames=0, tasks=0, sizes_mb=sizes_mb, extra=extra)
    own = ("data/", "meta/episodes/", "worldeval.checksum/data")
    kept = [{k: v for k, v in row.items() if not k.startswith(own)} for row in rows]
    # The features follow from the layout.
    text = json.dumps({"info": {k: v for k, v in info.items() if k != "features"}, "rows": kept})
    # Compressed, since a footer is read whenever one episode of its file is; as text, since other
    # readers of parquet insist on it.
    return {_ENTRY: base64.b64encode(zlib.compress(text.encode(), 1)).decode()}


def unpacked(metadata: Mapping[bytes, bytes] | None) -> Facts | None:
    """What ``packed`` made; None in files written before there was such an entry, or damaged."""
    entry = (metadata or {}).get(_ENTRY.encode())
    if entry is None:
        return None
    try:
        unpack = zlib.decompressobj()
        found = parsed_json(unpack.decompress(base64.b64decode(entry), _MOST_BYTES).decode())
        return Facts(info=found["info"], rows=tuple(dict(row) for row in found["rows"]))
    except (ValueError, TypeError, LookupError, zlib.error, binascii.Error):
        return None
