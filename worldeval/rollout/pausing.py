"""What a long run waits for instead of ending: space on a full disk, memory given back.

Enters: an episode and its store. Leaves: the episode in the store, later if the disk was full.
"""

from __future__ import annotations

import errno
import gc
import sys
import time
from collections.abc import Callable

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import StoreError
from worldeval.terminal import printable
from worldeval.types import Episode

LOOK_AGAIN_S = 2.0


def append_when_possible(
    store: EpisodeStore, episode: Episode, most_s: Callable[[], float]
) -> None:
    """Append; while the disk is full, say so once and try again for ``most_s``, then StoreError.

    most_s: asked each time, so that nobody waits any longer once it says 0.
    """
    until_s: float | None = None
    while True:
        try:
            store.append(episode)
        except StoreError as error:
            now_s, wait_s = time.monotonic(), most_s()
            if not _is_full(error) or wait_s <= 0 or (until_s is not None and now_s >= until_s):
                raise
            if until_s is None:
                until_s = now_s + wait_s
                _tell(
                    f"paused: {store.root} takes no more ({error.__cause__}); free some space "
                    f"within {wait_s:g} s and it goes on by itself (Ctrl-C ends it)"
                )
            time.sleep(min(LOOK_AGAIN_S, max(0.01, until_s - now_s)))
        else:
            if until_s is not None:
                _tell("there is space again: going on")
            return


def free_memory() -> None:
    """Give back what a failed step has left."""
    if "torch" in sys.modules:
        from worldeval.learning.out_of_memory import free

        free()
    else:
        gc.collect()


def _is_full(error: StoreError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _tell(sentence: str) -> None:
    print(f"worldeval: {printable(sentence)}", file=sys.stderr, flush=True)
