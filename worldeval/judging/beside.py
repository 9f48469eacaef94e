"""A judge at work while rollouts go on, so that at their end only the last ones wait for it.

Enters: a judge, and the folder of a store that is being written. Leaves: the judge's own table
beside the rollouts (``tables.kept_verdicts``), with verdicts on those that it came to. Whoever has
the store judged afterwards takes them over, asks for the rest, and is told what went wrong: so
tables and errors are those of judging at the end. Judging takes a core that the rollouts leave idle
where they wait: for their own threads, for a GPU, for a policy's server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldeval.data.store import index
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.layout import INFO_PATH
from worldeval.judging.tables import AT_ONCE, kept_verdicts
from worldeval.types import Judge

log = logging.getLogger(__name__)

EVERY_S = 0.5
LEAST_SHARE = 0.05
"""Of all rollouts, that must be new: to open a store takes longer the more it holds."""


@contextmanager
def judging_beside(judge: Judge | None, root: Path) -> Iterator[None]:
    """Judge what is written into the store at ``root``, which may not be there yet, meanwhile.

    It ends with the few rollouts that are being looked at when the block does. Only for worlds that
    do not flag success, in which all rollouts are equally long: of others it is known at the end
    alone how long those were that were watched to their end. A judge without a true attribute
    ``beside`` (which says that it draws no random numbers and may be asked from another thread than
    its maker's) is not asked, nor is None.
    """
    if judge is None or not getattr(judge, "beside", False):
        yield
        return
    import torch

    stop = threading.Event()
    # Whatever a policy does to the working folder; with as many threads as at the end, for another
    # number rounds otherwise.
    given = (judge, root.absolute(), torch.get_num_threads(), stop)
    thread = threading.Thread(target=_keep_up, args=given, name="judging")
    try:
        thread.start()
        yield
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()


def _keep_up(judge: Judge, root: Path, threads: int, stop: threading.Event) -> None:
    """Judge whenever enough is new, until ``stop``."""
    import torch

    torch.set_num_threads(threads)
    judged = 0
    while not stop.wait(EVERY_S):
        try:
            there = _count(root)
            if there - judged >= max(AT_ONCE, LEAST_SHARE * there):
                judged = len(kept_verdicts(judge, EpisodeStore.open(root), stop))
        except Exception as error:  # raised again where the rest is judged
            log.info("%s does not judge beside the rollouts: %s", judge.name, error)
            return


def _count(root: Path) -> int:
    """Episodes in the store at ``root``; none where none is yet."""
    there = (root / INFO_PATH).is_file()
    return int(index.read_info(root).get("total_episodes", 0)) if there else 0
