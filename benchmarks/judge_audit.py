"""Is a judge won over by sharpness? Matched pairs, and how often it is right, task by task.

    worldeval rollout --world metaworld --policy ... --out TRUE
    worldeval replay --label --store TRUE --out REPLAYED       # the same actions, imagined
    python benchmarks/judge_audit.py --judge checkpoints/judge --true TRUE \\
        --imagined REPLAYED/labelled --out runs/audit

A pair is a true rollout that failed (sharp frames) and an imagined one whose actions truly succeed
(blurred frames), of the same task. A judge of success gives the second the higher score; one that
is won over by sharp pictures, the first. Beside it, sharp successes against sharp failures: the
difference is what blur costs. Scores are kept in --out and not computed again. Prints markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from worldeval.data.store.episodes import EpisodeStore
from worldeval.evaluation.opening import stores_in
from worldeval.judging.learned import LearnedJudge
from worldeval.judging.loading import load_judge
from worldeval.metrics.roc import auroc


def scored(judge: LearnedJudge, place: Path, kept: Path) -> pd.DataFrame:
    """task, label (what truly came of it), score and outcome of every rollout with a label."""
    if kept.is_file():
        return pd.read_parquet(kept)
    rows = []
    for store in map(EpisodeStore.open, stores_in(place)):
        for number in range(len(store)):
            episode = store.episode(number)
            if episode.success is None:
                continue
            score = judge.score(episode)
            outcome = judge.calibration.outcome(judge.calibration.probability(score))
            rows.append((episode.key, episode.task, episode.success, score, outcome.value))
    table = pd.DataFrame(rows, columns=["key", "task", "label", "score", "outcome"])
    kept.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(kept)
    return table


def rates(table: pd.DataFrame) -> tuple[str, str, str]:
    """Rollouts, right among the decided, failures taken for successes."""
    decided = table[table["outcome"].isin(["success", "failure"])]
    said, label = decided["outcome"] == "success", decided["label"].astype(bool)
    failed = decided[~label]
    false = f"{100 * said[~label].mean():.0f} % of {len(failed)}" if len(failed) else "–"
    right = f"{100 * (said == label).mean():.1f} %" if len(decided) else "–"
    return str(len(table)), right, false


def ordered(successes: pd.DataFrame, failures: pd.DataFrame) -> str:
    """Share of pairs in which the success has the higher score, ties counted half."""
    if not len(successes) or not len(failures):
        return "–"
    both = np.concatenate([successes["score"], failures["score"]])
    label = np.arange(len(both)) < len(successes)
    return f"{100 * auroc(both, label):.1f} % of {len(successes) * len(failures)}"


def of_pairs(successes: pd.DataFrame, failures: pd.DataFrame) -> str:
    """The same over all tasks: pairs of one task each."""
    right = pairs = 0.0
    for task in sorted(set(successes["task"]) & set(failures["task"])):
        good = successes.loc[successes["task"] == task, "score"].to_numpy()
        bad = failures.loc[failures["task"] == task, "score"].to_numpy()
        right += (good[:, None] > bad).sum() + (good[:, None] == bad).sum() / 2
        pairs += len(good) * len(bad)
    return f"{100 * right / pairs:.1f} % of {pairs:.0f}" if pairs else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", type=Path, required=True)
    for name in ("true", "imagined"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    judge = load_judge(str(given.judge))
    assert isinstance(judge, LearnedJudge), "a judge without scores cannot be audited in this way"
    sharp, blurred = (
        scored(judge, place, given.out / f"{judge.name}-{name}.parquet")
        for name, place in (("true", given.true), ("imagined", given.imagined))
    )
    print(f"{judge.name}\n")
    print(
        "| task | true frames | right | failures taken for successes | imagined frames | right "
        "| failures taken for successes | blurred success above sharp failure "
        "| sharp success above sharp failure |"
    )
    print(f"|{'---|' * 9}")
    good, bad = (sharp[sharp["label"].astype(bool) == kind] for kind in (True, False))
    dreamt = blurred[blurred["label"].astype(bool)]
    for task in sorted(set(sharp["task"])):
        here = [part[part["task"] == task] for part in (sharp, blurred, dreamt, good, bad)]
        cells = (*rates(here[0]), *rates(here[1]), ordered(here[2], here[4]))
        print(f"| {' | '.join((task, *cells, ordered(here[3], here[4])))} |")
    pairs = (of_pairs(dreamt, bad), of_pairs(good, bad))
    print(f"| {' | '.join(('all', *rates(sharp), *rates(blurred), *pairs))} |")


if __name__ == "__main__":
    main()
