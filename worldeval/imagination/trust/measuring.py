"""What a signal is worth: does it know where imagination errs, and which verdicts are wrong?

Enters: tables of rollouts and chunks with signals, what truly happened, and, where the same actions
were carried out, the true frames. Leaves: one ``Measured`` a signal: Spearman's rank correlation
with the true error of frames, and the area under the ROC curve of "this verdict is wrong"
(``metrics/roc.py``). Intervals are bootstrapped over start states: rollouts of
several policies from one start state share its scene, and count as one draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.tables import DECIDED
from worldeval.errors import DataError, MismatchError
from worldeval.metrics.roc import DRAWS, Area, area


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one signal is worth.

    against_policy: AUROC of "the verdict differs from what the policy did from this start state".
    against_actions: of "... from what these very actions did"; None if they were not carried out.
    by_verdict: ``against_policy`` among the rollouts of each verdict.
    chunk_error, rollout_error: Spearman with the true mean squared error; None as above.
    """

    signal: str
    against_policy: Area
    against_actions: Area | None
    by_verdict: Mapping[str, Area]
    chunk_error: float | None
    rollout_error: float | None


def counting(
    table: pd.DataFrame, wrong: np.ndarray, signals: Sequence[str], verdict: str
) -> list[str]:
    """The signals that are on for a verdict: the whole interval of their AUROC among the rollouts
    with this verdict lies above a coin's 0.5. wrong: (rollouts,) bool."""
    chosen = (table["outcome"] == verdict).to_numpy()
    rows, labels, clusters = table[chosen], wrong[chosen], start_states(table)[chosen]
    return [n for n in signals if area(rows[n].to_numpy(float), labels, clusters).low > 0.5]


def start_states(table: pd.DataFrame) -> np.ndarray:
    """(rollouts,) what the rollouts of one start state have in common."""
    return (table["task"] + "\n" + table["start_id"]).to_numpy()


def wrong_verdicts(table: pd.DataFrame, truth: pd.DataFrame, by: list[str]) -> np.ndarray:
    """(rollouts,) 1.0 where the verdict differs from the truth, 0.0 where it agrees, NaN where
    there is none. by: columns that both tables share, key or (policy, task, start_id).

    Raises MismatchError if a rollout has no truth.
    """
    lacking = [name for name in (*by, "outcome") if name not in truth.columns]
    if lacking:
        raise DataError(
            f"the table of what truly happened lacks {lacking}, it has {list(truth.columns)}"
        )
    known = truth.drop_duplicates(by).set_index(by)["outcome"]
    cells = table[by[0]] if len(by) == 1 else pd.MultiIndex.from_frame(table[by])
    absent = ~np.asarray(pd.Index(cells).isin(known.index))
    if absent.any():
        first = table.loc[absent, by].iloc[0].to_dict()
        raise MismatchError(
            f"{int(absent.sum())} of {len(table)} rollouts have no true outcome, such as {first}; "
            "give the truth of these policies and start states"
        )
    true = known.reindex(pd.Index(cells)).to_numpy()
    verdict = table["outcome"].to_numpy()
    both = np.isin(verdict, DECIDED) & np.isin(true.astype(str), DECIDED)
    return np.where(both, (verdict != true).astype(float), np.nan)


def true_errors(
    imagined: Sequence[EpisodeStore], acted: Sequence[EpisodeStore], frames_per_chunk: int
) -> pd.DataFrame:
    """Mean squared error of frames, in [0, 1], of each chunk: key, chunk, mse, psnr_db.

    acted: the same actions in the true world under the same keys, which may end sooner. Rollouts
    that were not carried out are left out. Raises MismatchError for other actions.
    """
    from worldeval.metrics.fidelity import psnr_db

    place = {key: store for store in acted for key in store.keys}
    rows = []
    for store in imagined:
        for key in store.metadata()["key"]:
            if key not in place:
                continue
            rollout, truth = store.by_key(key), place[key].by_key(key)
            length = min(rollout.length, truth.length)
            if not np.allclose(rollout.poses[:length], truth.poses[:length], atol=5e-3):
                raise MismatchError(
                    f"rollout {key!r} was carried out with other actions than imagined; carry out "
                    "the imagined ones (`worldeval rollout --policy replay:STORE`)"
                )
            for chunk, first in enumerate(range(1, length, frames_per_chunk)):
                span = slice(first, min(first + frames_per_chunk, length))
                level = psnr_db(truth.frames[span], rollout.frames[span])
                rows.append((key, chunk, 10 ** (-level / 10), level))
    table = pd.DataFrame(rows, columns=["key", "chunk", "mse", "psnr_db"])
    return table.astype({"chunk": int, "mse": float, "psnr_db": float})


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation of (N,) and (N,); None where it is not defined."""
    from scipy.stats import spearmanr

    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return None
    return float(spearmanr(a[known], b[known]).statistic)


def measure_signals(
    table: pd.DataFrame,
    wrong: np.ndarray,
    signals: list[str],
    *,
    wrong_actions: np.ndarray | None = None,
    chunks: pd.DataFrame | None = None,
    errors: pd.DataFrame | None = None,
    draws: int = DRAWS,
) -> list[Measured]:
    """One row per signal, the best first. table: rollouts with key, task, start_id, outcome and
    signals; wrong, wrong_actions: as ``wrong_verdicts`` answers; chunks, errors: signals and true
    errors of chunks."""
    clusters = start_states(table)
    paired = None if chunks is None or errors is None else chunks.merge(errors, on=["key", "chunk"])
    whole = None
    if errors is not None:
        whole = table.merge(errors.groupby("key")["mse"].mean().reset_index(), on="key")
    found = []
    for name in signals:
        scores = table[name].to_numpy(float)

        def of(labels: np.ndarray, rows: np.ndarray, scores: np.ndarray = scores) -> Area:
            rows = rows & np.isfinite(labels)
            return area(scores[rows], labels[rows] == 1, clusters[rows], draws=draws)

        every = np.ones(len(table), bool)
        found.append(
            Measured(
                signal=name,
                against_policy=of(wrong, every),
                against_actions=None if wrong_actions is None else of(wrong_actions, every),
                by_verdict={v: of(wrong, (table["outcome"] == v).to_numpy()) for v in DECIDED},
                chunk_error=None
                if paired is None or name not in paired
                else spearman(paired[name].to_numpy(float), paired["mse"].to_numpy()),
                rollout_error=None
                if whole is None
                else spearman(whole[name].to_numpy(float), whole["mse"].to_numpy()),
            )
        )
    return sorted(found, key=lambda m: -np.nan_to_num(m.against_policy.value))
