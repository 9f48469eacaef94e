"""``worldeval calibrate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldeval.errors import DataError
from worldeval.judge_calibration.assessing import AssessConfig

if TYPE_CHECKING:
    import pandas as pd

    from worldeval.judging.human import Label


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Measure how often a judge is right, for each policy and each task.

    Give it judged rollouts whose true outcome is known, best imagined ones of the policies and
    tasks that you will rank, from other start states. `worldeval rank --calibration` then corrects
    the rates for the judge's errors. Writes calibration.json and calibration.html.

    For example:
      worldeval rollout --policy checkpoints/policies/full --world imagination --out runs/cal
      worldeval judge runs/cal
      worldeval calibrate runs/cal --truth runs/cal-true --out runs/calibration
      worldeval calibrate runs/cal --truth mine.csv --labels yours.csv --out runs/calibration
      worldeval rank runs/mine --calibration runs/calibration --out runs/mine-ranked
    """

    folder: tyro.conf.Positional[Path]
    """Folder of rollouts, judged by `worldeval judge`, or a verdict table (parquet)."""
    truth: Path
    """What truly happened from the same start states: a folder of rollouts in a world that knows,
    or a table (CSV as spreadsheets save it, or parquet): labels of people (key or policy, task,
    start_id; rater; outcome), or true trials (policy, task, start_id, success 1 or 0)."""
    out: Path
    """Folder to write the calibration to."""
    labels: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Labels of people (csv), to see how far they agree with the judge and each other; repeat it
    for several."""
    judge: str | None = None
    """Name of the judge, where several have judged; the one asked last, if not given."""
    families: Path | None = None
    """population.json, or its folder, that says of which family each policy is. Corrections are
    tried on whole families left out, and where they do not help these, rankings do not show them
    for policies that are not calibrated."""
    config: Annotated[AssessConfig, tyro.conf.arg(name="")] = field(default_factory=AssessConfig)

    def run(self) -> None:
        from worldeval.data.provenance import write_manifest
        from worldeval.evaluation.opening import world_model_of
        from worldeval.judge_calibration.assessing import assess
        from worldeval.judge_calibration.label_tables import tables_by_rater
        from worldeval.judging.human import read_labels
        from worldeval.reports.judge.page import write_page
        from worldeval.reports.judge.text import to_text

        judged = judged_by(self.folder)
        name = choose(judged, self.judge)
        others = {other: table for other, table in judged.items() if other != name}
        for path in self.labels:
            labels = read_labels(path)
            _tell_unplaced(labels, judged[name], path)
            for rater, table in tables_by_rater(labels, judged[name]).items():
                others[rater if rater not in others else f"{rater} ({path.stem})"] = table
        assessment = assess(
            judged[name],
            true_outcomes(self.truth, judged[name]),
            others=others,
            world_model=world_model_of(self.folder),
            config=self.config,
        )
        if self.families is not None:
            from worldeval.judge_calibration.families import measured_on_families
            from worldeval.policies.population import families_of

            assessment = measured_on_families(assessment, families_of(self.families))
        write_manifest(
            self.out, command="calibrate", config=self, seed=self.config.seed, allow_changes=True
        )
        path = assessment.save(self.out)
        page = write_page(self.out / "calibration.html", assessment)
        encoding = (sys.stdout.encoding or "ascii").lower()
        print(to_text(assessment, unicode=encoding.startswith("utf")))
        print(f"\n{path}\n{page}")


def judged_by(place: Path) -> dict[str, pd.DataFrame]:
    """Judge -> its verdicts on the rollouts of a folder; first the one that was asked last.

    place: a folder of judged rollouts, or a verdict table.
    """
    import pandas as pd

    from worldeval.data.tables import read_verdict_table
    from worldeval.evaluation.folder import VERDICTS
    from worldeval.evaluation.opening import stores_in
    from worldeval.judging.tables import FOLDER

    paths = [place]
    if not place.is_file():
        stores = stores_in(place)
        paths = [store / VERDICTS for store in stores]
        missing = [path.parent for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{missing[0]} is not judged; run `worldeval judge {place}` first")
        paths += [path for store in stores for path in sorted((store / FOLDER).glob("*.parquet"))]
    parts: dict[str, list[pd.DataFrame]] = {}
    for path in paths:
        table = read_verdict_table(path)
        missing_columns = [name for name in ("judge", "key") if name not in table.columns]
        if missing_columns:
            raise DataError(
                f"{path} has the columns {list(table.columns)} and lacks {missing_columns}, "
                "expected a verdict table; make one with `worldeval judge`"
            )
        for judge, rows in table.groupby("judge", sort=False):
            # What verdicts.parquet holds of a judge, its own table holds too.
            known = parts.setdefault(str(judge), [])
            known.append(rows[~rows["key"].isin([key for part in known for key in part["key"]])])
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def choose(judged: dict[str, pd.DataFrame], wanted: str | None) -> str:
    """The judge of that name, which may be given without its version (``name@version``)."""
    names = list(judged)
    if not names:
        raise DataError("the verdict tables are empty; judge some rollouts first")
    if wanted is None:
        return names[0]
    fitting = [name for name in names if wanted in (name, name.partition("@")[0])]
    if len(fitting) != 1:
        raise DataError(
            f"judge is {wanted!r}, which fits {len(fitting)} of the judges of these rollouts, "
            f"expected exactly one of {names}"
        )
    return fitting[0]


def true_outcomes(place: Path, judged: pd.DataFrame) -> pd.DataFrame:
    """What truly happened to the judged rollouts.

    place: a folder of rollouts, or a table (parquet or CSV): of verdicts, of true trials, or, with
    a column ``rater``, labels of people, of whom the majority counts.
    """
    from worldeval.data.tables import Table
    from worldeval.evaluation import folder as verdicts
    from worldeval.judge_calibration.label_tables import majority_table
    from worldeval.judging.human import read_labels

    if not place.is_file():
        return verdicts.read_truth(place)
    if "rater" in Table.read(place).columns:
        labels = read_labels(place)
        _tell_unplaced(labels, judged, place)
        return majority_table(labels, judged).assign(judge=place.name)
    truth = verdicts.read_truth(place)
    return truth if "judge" in truth or "world" in truth else truth.assign(judge=place.name)


def _tell_unplaced(labels: Sequence[Label], judged: pd.DataFrame, path: Path) -> None:
    from worldeval.judge_calibration.label_tables import unplaced

    if told := unplaced(labels, judged):
        print(f"{path}: {told}")
