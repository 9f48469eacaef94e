"""Several folders of one run become one: those of machines that share no disk.

Enters: folders with run.json. Leaves: one of them with all rollouts, each once. Folders of other
settings, weights or policies are refused: their rollouts are not those of this run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from worldeval.data.provenance import MANIFEST, difference, read_manifest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.store.layout import INFO_PATH
from worldeval.errors import ConfigError, MismatchError
from worldeval.evaluation.execution.parts import Order, gather, read_plan, stores_of_run
from worldeval.evaluation.execution.status import Status, status
from worldeval.evaluation.execution.timing import keep_of
from worldeval.evaluation.folder import keep_truth
from worldeval.rollout.table import rollout_table


def gather_runs(folder: Path, others: Sequence[Path] = ()) -> Status:
    """Take the parts of ``folder`` and all rollouts of ``others`` into it; how far it is then."""
    if others and not (folder / MANIFEST).is_file():
        read_manifest(others[0])  # raises what is wrong with it
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(others[0] / MANIFEST, folder / MANIFEST)
    manifest = read_manifest(folder)
    order = Order.of_plan(read_plan(manifest, folder) or ())
    if not order.policies:
        raise ConfigError(
            f"{folder / MANIFEST} does not say which rollouts there are to be; roll out with this "
            "version first"
        )
    roots = []
    for other in others:
        if other.resolve() == folder.resolve():
            raise ConfigError(f"{other} is the folder to gather into; leave it out of --from")
        found = difference(manifest, read_manifest(other))
        if found is not None:
            name, ours, theirs = found
            raise MismatchError(
                f"{other} is of another run: {name} is {theirs!r} there, {ours!r} in {folder}; "
                "gather folders of the same options, weights and policies"
            )
        roots += stores_of_run(other)
    gather(folder, order, roots)
    keep_of(folder, others)
    if (folder / INFO_PATH).is_file():
        keep_truth(rollout_table(EpisodeStore.open(folder)), folder)
    return status(folder)
