"""Recorded or imagined? So that synthetic episodes are never taken for what truly happened.

Enters: a store. Leaves: how many of its episodes were imagined, and a sentence for whoever learns
from it. A dataset that `worldeval synthesize` wrote carries a mark as a whole; each episode says in
which world it was made. Both stay when a store is compacted, repaired or copied.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldeval.errors import MismatchError

if TYPE_CHECKING:
    from worldeval.data.store.reading import StoredEpisodes

SYNTHETIC = "synthetic"
"""Mark of a store (a fact in its info.json), and kind of its episodes."""
IMAGINATION = "imagination"
"""Name of the world in which imagined episodes were made."""


def marked(store: StoredEpisodes) -> bool:
    """Whether the store as a whole is marked as synthetic."""
    extra = store.info.get("worldeval", {}).get("extra", {})
    return isinstance(extra, Mapping) and bool(extra.get(SYNTHETIC))


def marked_folder(root: str | Path) -> bool:
    """Whether the dataset at ``root`` is marked, by whichever program it is going to be read."""
    from worldeval.data.files import load_json

    try:
        info = load_json(Path(root) / "meta" / "info.json")
        return bool(info["worldeval"]["extra"].get(SYNTHETIC))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return False  # of another program, or unreadable: whoever opens it says so better


def imagined_episodes(store: StoredEpisodes) -> int:
    """How many episodes were imagined: all of a marked store, else those that say so."""
    if marked(store):
        return len(store)
    return sum(is_imagined(store.facts(i)) for i in range(len(store)))


def is_imagined(facts: Mapping[str, Any]) -> bool:
    """Whether an episode with these facts says that it was imagined."""
    return facts.get("world") == IMAGINATION or facts.get("kind") == SYNTHETIC


def sentence(store: StoredEpisodes) -> str | None:
    """What to tell of a store with imagined episodes; None of one that was recorded."""
    count = imagined_episodes(store)
    if not count:
        return None
    how_many = "all" if count == len(store) else f"{count} of"
    what = "synthetic (imagined and selected)" if marked(store) else "imagined"
    return f"{how_many} {len(store)} episodes of {store.root} are {what}, not recorded"


def told_inputs(*places: str | Path | None) -> dict[str, dict[str, str]]:
    """What a training keeps in run.json of what it learns from (``digests.of_inputs``). Stores with
    imagined episodes are reported on stderr, and those marked as synthetic are called so."""
    from worldeval.data import digests
    from worldeval.data.store.reading import StoredEpisodes

    found = digests.of_inputs(*places)
    for place in dict.fromkeys(str(place) for place in places if place is not None):
        if f"store {place}" not in found:
            continue
        store = StoredEpisodes(place)
        if said := sentence(store):
            print(f"worldeval: {said}", file=sys.stderr, flush=True)
        if marked(store):
            found[f"store {place}"]["origin"] = SYNTHETIC
    return found


def check_mark(store: StoredEpisodes, wanted: Mapping[str, Any] | None) -> None:
    """Raise MismatchError if recorded episodes are to be written among synthetic ones, or the other
    way round. wanted: facts of the store that the writer would make."""
    ours, theirs = marked(store), bool((wanted or {}).get(SYNTHETIC))
    if ours != theirs and len(store):
        raise MismatchError(
            f"{store.root} holds {'synthetic' if ours else 'recorded or rolled out'} episodes, "
            f"{'others' if ours else 'synthetic ones'} are not mixed into it; choose another folder"
        )
