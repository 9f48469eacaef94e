"""From a policy, a world model and instructions to a dataset: the verb ``synthesize`` does this.

Enters: a policy's URI, start states, how varied the rollouts shall be, who judges, rules. Leaves: a
folder with the imagined rollouts (an ``Evaluation``), ``dataset`` (a store of what the rules kept),
``funnel.json`` and ``report.html``. What is there already is not made again: the same command goes
on where it was killed and ends with the same dataset.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from worldeval import shipped
from worldeval.errors import ConfigError, DataError
from worldeval.evaluation.opening import ImaginationOptions
from worldeval.evaluation.stage import StageOptions
from worldeval.synthesis.variety import Variety

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.evaluation.evaluation import Evaluation
    from worldeval.judging.progress import ProgressJudge
    from worldeval.synthesis.dataset import Relabelled
    from worldeval.synthesis.selecting import Funnel
    from worldeval.types import Judge

BATCH = 16
IMAGINED, DATASET, FUNNEL = "imagined", "dataset", "funnel.json"
SELECT = ("success", "trust", "artefacts", "distinct")
"""The rules, where none are given."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Who judges the imagined rollouts, and which of them are kept."""

    judge: str | None = None
    """Who says which rollouts succeed, as for `worldeval judge`; the shipped judge, if not given.
    It is asked about the task in the suite's own words, whatever the policy was told."""
    select: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A rule, with settings as in 'success?threshold=0.9'; repeat it, they are applied in the order
    given. There are advantage, artefacts, distinct, labels, progress, quota, success, trust. If
    none is given: success, trust (where it is known), artefacts, distinct. 'all' keeps all."""
    progress: str | None = None
    """Judge of progress, such as checkpoints/progress: for the rule progress and starts near
    failure."""
    labels: Path | None = None
    """Table of labels that people gave, for the rule labels."""
    hindsight: bool = False
    """Let a failed rollout take another known task of its scene that the judge says it achieved,
    if it had not achieved it at its start. Measured with the shipped judge: 8 of 28 were right."""
    instructions: Literal["told", "drawn"] = "told"
    """Under which words a kept rollout is learned from: those that the policy was told, or others
    for the same task, drawn: the suite's, half of them reworded. So what a policy does when it is
    told in words that it understands teaches it the words that it does not."""


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """What a run of ``synthesize`` made, or ``Synthesis.open`` found.

    pool: folder of all imagined rollouts. dataset: store of those that were kept. funnel: what was
    kept, stage by stage. seconds: by part, of wall_s. frames: imagined in this run.
    """

    folder: Path
    pool: Path
    dataset: Path
    funnel: Funnel
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    frames: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: str | Path) -> Synthesis:
        """What an earlier ``synthesize`` wrote to ``folder``; its dataset is not there if nothing
        was kept. DataError if nothing was selected there."""
        from worldeval.data.files import load_json
        from worldeval.synthesis.selection_file import read_selection

        out = Path(folder)
        funnel, pool = read_selection(out), out / IMAGINED
        if not pool.is_dir():  # --pool: it was imagined elsewhere
            try:
                pool = Path(str(load_json(out / FUNNEL)["imagined"]))
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise DataError(
                    f"{out / FUNNEL} does not say where the rollouts were imagined; run the same "
                    "`worldeval synthesize` again: nothing is imagined again"
                ) from error
        notes = funnel.notes
        return cls(folder=out, pool=pool, dataset=out / DATASET, funnel=funnel, notes=notes)

    @property
    def imagined(self) -> Evaluation:
        """All imagined rollouts, judged."""
        from worldeval.evaluation.evaluation import Evaluation

        return Evaluation.open(self.pool)

    @property
    def store(self) -> EpisodeStore:
        """The dataset, opened."""
        from worldeval.data.store.episodes import EpisodeStore

        return EpisodeStore.open(self.dataset)

    def text(self) -> str:
        """The funnel, where the time went, and where the dataset is."""
        from worldeval.reports.synthesis.text import funnel_text, time_text

        parts = [
            funnel_text(self.funnel.counts()),
            *self.notes,
            time_text(self.seconds, self.wall_s, self.frames),
            f"{len(self.funnel.kept)} rollouts kept: {self.dataset}",
            str(self.folder / "report.html"),
        ]
        return "\n".join(part for part in parts if part)

    def __repr__(self) -> str:
        return self.text()


def synthesize(
    policy: str | Path | None = None,
    *,
    out: str | Path,
    suite: str | Path | None = None,
    starts: str | Path | None = None,
    world_model: str | Path | None = None,
    judge: str | Path | None = None,
    select: str | Sequence[str] = (),
    variety: Variety | None = None,
    progress: str | Path | None = None,
    labels: str | Path | None = None,
    hindsight: bool = False,
    instructions: Literal["told", "drawn"] = "told",
    pool: str | Path | None = None,
    seed: int | None = None,
    chunks: int | None = None,
    tasks: str | Sequence[str] = (),
    per_task: int | None = None,
    batch: int = BATCH,
    threads: int = 2,
    device: str | None = None,
) -> Synthesis:
    """Imagine varied rollouts of a policy, and keep the good ones as a dataset in ``out``.

    policy: as for `worldeval rollout`. suite: JSON file of the start states; starts: a store whose
    episodes begin at them (every episode, where no suite is given). variety: how varied the
    rollouts shall be. judge, select, progress, labels, hindsight, instructions: as of ``Choice``.
    pool: a folder of an earlier synthesis to select from, instead of imagining. seed: of all
    randomness, the suite's if None. chunks, tasks, per_task: a part of the suite.

    Raises DataError, and writes no dataset, if nothing survives the selection.
    """
    options = StageOptions(
        suite=None if suite is None else Path(suite),
        chunks=chunks,
        task=(tasks,) if isinstance(tasks, str) else tuple(tasks),
        per_task=per_task,
        imagination=ImaginationOptions(
            world_model=None if world_model is None else Path(world_model),
            starts=None if starts is None else Path(starts),
            device=device,
        ),
        batch=batch,
        threads=threads,
    )
    choice = Choice(
        judge=None if judge is None else str(judge),
        select=(select,) if isinstance(select, str) else tuple(select),
        progress=None if progress is None else str(progress),
        labels=None if labels is None else Path(labels),
        hindsight=hindsight,
        instructions=instructions,
    )
    return synthesize_stage(
        options,
        None if policy is None else str(policy),
        Path(out),
        choice,
        variety or Variety(),
        pool=None if pool is None else Path(pool),
        seed=seed,
    )


def synthesize_stage(
    options: StageOptions,
    policy: str | None,
    out: Path,
    choice: Choice,
    variety: Variety,
    *,
    pool: Path | None = None,
    seed: int | None = None,
    verb: Any = None,
) -> Synthesis:
    """``synthesize`` with all options of the stage. verb: the options as given, for run.json."""
    from worldeval.evaluation.evaluation import Evaluation
    from worldeval.judging.loading import load_judge
    from worldeval.synthesis.asking import MeaningJudge
    from worldeval.synthesis.pool import fill_pool, pool_of

    clock = Clock()
    rules, notes = _rules(choice.select), []
    uri = choice.judge or str(shipped.path(shipped.JUDGE))
    judge = load_judge(uri)  # what is misspelt is reported before the work
    asked = MeaningJudge(judge)
    progress = _progress(choice.progress)
    needs = {name for rule in rules for name in rule.rule.needs}
    _check(variety, needs, progress, choice, options, policy, pool, seed)
    if pool is None:
        folder = out / IMAGINED
        notes += fill_pool(
            options, str(policy), folder, variety, uri, asked, progress,
            seed=seed, clock=clock, verb=verb or options,
        )  # fmt: skip
    else:
        folder = pool_of(pool)
    run = Evaluation.open(folder)
    with clock.part("judging"):
        run.judge(judge if uri.startswith("human:") else asked)
    return _select(run, out, choice, rules, judge, progress, options, clock, notes)


def _select(
    run: Evaluation,
    out: Path,
    choice: Choice,
    rules: list[Any],
    judge: Judge,
    progress: ProgressJudge | None,
    options: StageOptions,
    clock: Clock,
    notes: list[str],
) -> Synthesis:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.synthesis.dataset import write_dataset
    from worldeval.synthesis.hindsight import hindsight
    from worldeval.synthesis.measuring import measure
    from worldeval.synthesis.retelling import retold
    from worldeval.synthesis.selecting import select
    from worldeval.synthesis.showing import write_funnel

    drawn = choice.instructions == "drawn"
    trusting = any("trusted" in rule.rule.needs for rule in rules)
    if trusting:
        with clock.part("trust"):
            run.measure_trust(options.imagination)
        if run.trust is None and not choice.select:
            rules = [rule for rule in rules if rule.rule.name != "trust"]
            notes.append("The rule trust was left out: which rollouts to trust is not known.")
    with clock.part("selecting"):
        needs = {name for rule in rules for name in rule.rule.needs}
        tables = measure(run, needs, progress=progress, labels=choice.labels)
        if drawn:
            tables = retold(tables)
        funnel = select(tables, rules)
        imagined = EpisodeStore.open(run.stores[0])
        changed: dict[str, Relabelled] = {}
        if choice.hindsight:
            changed, said = hindsight(imagined, funnel, judge)
            notes += said
    funnel = replace(funnel, notes=tuple(notes))
    facts = {
        "rules": [str(rule) for rule in rules],
        "judge": judge.name,
        "imagined": str(run.folder),
        **({"instructions": choice.instructions} if drawn else {}),
    }
    nothing = not funnel.kept and not changed
    with clock.part("report"):
        write_funnel(out, imagined, funnel, changed, facts)
    if nothing:
        raise DataError(
            f"{funnel.why_nothing()}; no dataset was written. {out / 'report.html'} shows what was "
            "imagined; relax that rule with --select, give more --variations, or another "
            "policy"
        )
    with clock.part("writing"):
        write_dataset(out / DATASET, imagined, funnel, facts=facts, relabelled=changed)
    return Synthesis(
        folder=out,
        pool=run.folder,
        dataset=out / DATASET,
        funnel=funnel,
        seconds=clock.seconds,
        wall_s=clock.wall_s,
        frames=clock.frames,
        notes=tuple(notes),
    )


class Clock:
    """Where the time of a run goes."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.frames = 0

    @property
    def wall_s(self) -> float:
        return time.perf_counter() - self._began

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def _rules(given: Sequence[str]) -> list[Any]:
    from worldeval.synthesis.rules import chosen_rule

    if list(given) == ["all"]:
        return []
    return [chosen_rule(text) for text in (given or SELECT)]


def _progress(uri: str | None) -> ProgressJudge | None:
    from worldeval.judging.progress import ProgressJudge

    return None if uri is None else ProgressJudge.load(uri)


def _check(
    variety: Variety,
    needs: Collection[str],
    progress: ProgressJudge | None,
    choice: Choice,
    options: StageOptions,
    policy: str | None,
    pool: Path | None,
    seed: int | None,
) -> None:
    """Raise what can be known to be wrong before anything is imagined."""
    from worldeval.evaluation.corrections import why_no_trust
    from worldeval.evaluation.opening import fingerprint
    from worldeval.synthesis.measuring import check_given
    from worldeval.synthesis.tables import ADVANTAGE, DISTRUST, TRIED_ONCE, TRUSTED

    if pool is None and not policy:
        raise ConfigError(
            "no policy was given, expected one whose rollouts are imagined: --policy URI (or "
            "--pool FOLDER, to select from what was imagined before)"
        )
    if pool is not None:
        said = {f.name: (getattr(variety, f.name), f.default) for f in fields(variety)}
        said |= {name: (getattr(options, name), None) for name in ("suite", "chunks", "per_task")}
        said |= {"task": (options.task, ()), "policy": (policy, None), "seed": (seed, None)}
        if idle := [name for name, (given, unsaid) in said.items() if given != unsaid]:
            raise ConfigError(
                f"{', '.join(idle)} cannot be chosen for a pool, whose rollouts are imagined "
                f"already; leave {'it' if len(idle) == 1 else 'them'} out, or leave out --pool to "
                "imagine others"
            )
    if options.world != "imagination":
        raise ConfigError(
            f"world is {options.world!r}, but synthesis is done in imagination; `worldeval record` "
            "and `worldeval rollout` act in other worlds"
        )
    check_given(needs, progress=progress, labels=choice.labels)
    if pool is None and choice.select and {TRUSTED, DISTRUST} & set(needs):
        for note in why_no_trust([], fingerprint(str(options.imagination.folder))):
            raise ConfigError(f"{note.rstrip('.')}; select without the rule trust")
    if pool is None and ADVANTAGE in needs and variety.samples == 1:
        raise ConfigError(TRIED_ONCE)
    if variety.near_failures and progress is None:
        raise ConfigError(
            "starts near failure need a judge that measures progress; give one with --progress, "
            "such as checkpoints/progress"
        )
