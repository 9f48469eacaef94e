"""Imagined against true results: the scatter plot, the figures of agreement, task by task.

In: a ``Leaderboard``. Out: ``<section>`` elements; empty text where there is no data for one.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldeval.ranking.agreement import Agreement
from worldeval.ranking.agreement_statistics import STATISTICS
from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.policy_row import PolicyRow
from worldeval.reports.markup import card, escape, key, notes, section
from worldeval.reports.ranking.findings import percent
from worldeval.reports.ranking.scatter import scatter_svg

FAR_POINTS = 25
"""A cell of the per-task table is outlined where imagined and true rate differ by this much."""


def agreement_section(board: Leaderboard) -> str:
    if not board.agreement.policies:
        return ""
    cards = "".join(
        _figure(board.agreement, name, statistic.label, statistic.meaning)
        for name, statistic in STATISTICS.items()
        if statistic.meaning
    )
    if board.outcomes.same is not None:
        o = board.outcomes
        cards += card(
            "Same outcome",
            percent(o.same),
            f"{o.rollouts} single rollouts from the same start: {o.both_succeed} succeed in both, "
            f"{o.both_fail} fail in both, {o.only_imagined_succeeds} succeed only in imagination, "
            f"{o.only_true_succeeds} only in truth.",
        )
    left = "".join(
        f'<p class="hint">Without {escape(name)}: {escape(why)}.</p>'
        for name, why in board.excluded.items()
    )
    hint = (
        f"Each point is a policy, with Wilson intervals both ways. On the dashed line imagination "
        f"is exact; the solid line is the fit. Brackets are "
        f"{100 * board.agreement.confidence:.0f} % intervals from resampling the "
        f"{len(board.per_task)} tasks."
    )
    body = f'<div class="two"><div>{scatter_svg(board)}{left}</div>'
    body += f'<div class="figures">{cards}</div></div>'
    return section("Imagined against true", hint, notes(board.agreement.warnings) + body)


def _figure(agreement: Agreement, name: str, label: str, meaning: str) -> str:
    value = getattr(agreement, name)
    if value is None:
        return card(label, "–", f"{meaning} Not defined here: {agreement.reasons.get(name, '')}.")
    bounds = agreement.intervals.get(name)
    small = "" if bounds is None else f"[{bounds.low:.2f}, {bounds.high:.2f}]".replace("-", "−")
    # MMRV and regret matter at the second decimal: a point of success rate.
    return card(label, f"{value:.3f}".replace("-", "−"), meaning, small)


def tasks_section(board: Leaderboard) -> str:
    truth = any(row.true is not None for row in board.policies)
    doubts = board.controls.doubts
    header = "".join(_task(row.task, doubts.get(row.task, ())) for row in board.per_task)
    # Letters where they say something: not where all policies share one.
    telling = [len({row.letters for row in task.policies} - {""}) > 1 for task in board.per_task]
    body = ""
    for i, row in enumerate(board.policies):
        cells = "".join(
            _cell(task.policies[i], truth, letters)
            for task, letters in zip(board.per_task, telling, strict=True)
        )
        body += f'<tr><th class="name" scope="row">{escape(row.name)}</th>{cells}</tr>'
    hint = "Success in percent in each task."
    if any(telling):
        hint += (
            " Small letters: policies that share one cannot be told apart in that task; in a task "
            "without letters none can."
        )
    elif len(board.ranked) > 1 and len(board.per_task) > 1:
        hint += " In no single task can any two policies be told apart."
    if doubts:
        hint += " †: not to be believed there, see the controls."
    marks = ""
    if truth:
        hint += (
            f" Imagined on the left, true on the right; outlined where they differ by "
            f"{FAR_POINTS} points or more."
        )
        marks = key([("imagined", "imagined"), ("true", "true")])
    return section(
        "Task by task",
        hint,
        f'{marks}<div class="scroll"><table class="heat"><thead><tr><th class="name"></th>'
        f"{header}</tr></thead><tbody>{body}</tbody></table></div>",
    )


def _task(task: str, doubts: Sequence[str]) -> str:
    """The head of a task's column; marked, with the reasons, where a control says not to trust."""
    if not doubts:
        return f'<th class="task">{escape(task)}</th>'
    return f'<th class="task" title="{escape("; ".join(doubts))}">{escape(task)} †</th>'


def _cell(row: PolicyRow, truth: bool, with_letters: bool) -> str:
    halves, rates = "", []
    for side, tally in (("im", row.imagined), ("tr", row.true))[: 1 + truth]:
        rate = None if tally is None else tally.rate
        rates.append(rate)
        if rate is None:
            halves += "<span>–</span>"
            continue
        assert tally is not None
        tip = f"{tally.successes} of {tally.decided} decided"
        letters = f"<sup>{escape(row.letters)}</sup>" if side == "im" and with_letters else ""
        halves += (
            f'<span class="{side}" style="--v:{rate:.3f}" title="{tip}">{100 * rate:.0f}{letters}'
            f"</span>"
        )
    known = [rate for rate in rates if rate is not None]
    far = len(known) == 2 and abs(known[0] - known[1]) >= FAR_POINTS / 100 - 1e-9
    kind = "cell" + (" far" if far else "") + ("" if truth else " one")
    return f'<td><div class="{kind}">{halves}</div></td>'
