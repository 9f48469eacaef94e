"""What is known of each policy: the interval plot, the table of rates, true trials, trust.

In: a ``Leaderboard``. Out: ``<section>`` elements; empty text where there is no data for one.
"""

from __future__ import annotations

from worldeval.ranking.leaderboard.leaderboard import Leaderboard, TrustSummary
from worldeval.ranking.leaderboard.policy_row import PolicyRow
from worldeval.reports.markup import (
    NOTHING,
    escape,
    estimate_cell,
    name_cell,
    points,
    rate_cell,
    section,
    table,
)
from worldeval.reports.ranking.findings import NO_HELP, percent, typical_gain, weighting
from worldeval.reports.ranking.forest import forest_key, forest_svg


def leaderboard_section(board: Leaderboard) -> str:
    hint = (
        f"Success rate over decided rollouts; {weighting(board)}. A rollout that the judge leaves "
        f"undecided or that broke off with an error is not a failure and is counted separately. A "
        f"bar is the {100 * board.confidence:.0f} % interval: where the rate lies, if more "
        f"rollouts like these were made."
    )
    if len(board.ranked) > 1:
        hint += " Policies that share a letter cannot be told apart."
    if said := board.said_of_corrections:
        hint += f" {said[0].upper()}{said[1:]}"
    plot = f'{forest_key(board)}<div class="scroll">{forest_svg(board)}</div>'
    return section("Leaderboard", hint, plot + _table(board))


def _table(board: Leaderboard) -> str:
    rows = board.policies
    columns: list[tuple[str, bool, list[str]]] = [
        ("#", False, [_rank(row) for row in rows]),
        ("Policy", False, [name_cell(row.name) for row in rows]),
    ]
    if len(board.ranked) > 1:
        columns.append(("Alike", False, [_letters(row.letters) for row in rows]))
    columns.append(("Imagined", True, [rate_cell(row.imagined) for row in rows]))
    if any(row.trusted is not None for row in rows):
        columns.append(("Trusted", True, [rate_cell(row.trusted) for row in rows]))
    if any(row.corrected is not None for row in rows):
        columns.append(("Judge-corrected", True, [_corrected(row) for row in rows]))
    if {row.corrected.errors_of for row in rows if row.corrected} - {"given", "own"}:
        words = [NOTHING if row.corrected is None else row.corrected.errors_of for row in rows]
        columns.append(("Errors of", False, words))
    if any(row.joined is not None for row in rows):
        columns.append(("With true trials", True, [_joined(row) for row in rows]))
    if any(row.true is not None for row in rows):
        columns.append(("True", True, [rate_cell(row.true) for row in rows]))
        columns.append(("Difference", True, [_difference(row) for row in rows]))
    columns.append(("Decided", True, [str(row.imagined.decided) for row in rows]))
    for head in ("undecided", "errors"):
        counts = [getattr(row.imagined, head) for row in rows]
        if any(counts):
            columns.append((head.capitalize(), True, [str(count) for count in counts]))
    return table(
        [(head, number) for head, number, _ in columns],
        zip(*(cells for _, _, cells in columns), strict=True),
    )


def _rank(row: PolicyRow) -> str:
    return f'<span class="soft">{"–" if row.rank is None else row.rank}</span>'


def _letters(letters: str) -> str:
    return f'<span class="letters">{escape(letters)}</span>' if letters else NOTHING


def _corrected(row: PolicyRow) -> str:
    if row.corrected is None:
        return NOTHING
    return estimate_cell(row.corrected.rate, row.corrected.low, row.corrected.high)


def _joined(row: PolicyRow) -> str:
    if row.joined is None:
        return NOTHING
    return estimate_cell(row.joined.estimate, row.joined.low, row.joined.high)


def _difference(row: PolicyRow) -> str:
    if row.true is None or row.true.rate is None or row.imagined.rate is None:
        return NOTHING
    return points(row.imagined.rate - row.true.rate)


def trials_section(board: Leaderboard) -> str:
    """A few true trials alone, and joined with imagination."""
    rows = [row for row in board.policies if row.joined is not None]
    if not rows:
        return ""
    cells = []
    for row in rows:
        joined = row.joined
        assert joined is not None
        alone = joined.real_only
        gain = NOTHING if joined.narrower is None else f"{100 * joined.narrower:.0f} %"
        cells.append(
            [
                name_cell(row.name),
                str(joined.trials),
                estimate_cell(alone.rate, alone.low, alone.high),
                estimate_cell(joined.estimate, joined.low, joined.high),
                gain,
                str(joined.imagined),
            ]
        )
    heads = [
        ("Policy", False),
        ("True trials", True),
        ("From these alone", True),
        ("With imagination", True),
        ("Narrower by", True),
        ("Imagined rollouts", True),
    ]
    if typical_gain(board) is None:
        hint = f"Success rates in truth. {NO_HELP}"
    else:
        explained = max(row.joined.explained for row in rows if row.joined is not None)
        hint = (
            f"Success rates in truth. Imagination is used only as far as it foretells the true "
            f"trials: here it explains {percent(explained)} of the difference between those that "
            f"succeed and those that fail. The imagined rate itself is not trusted: where it "
            f"flatters, the true trials correct it."
        )
    return section("With a few true trials", hint, table(heads, cells))


def trust_section(board: Leaderboard) -> str:
    """Rates with and without the rollouts in which imagination left reality."""
    if board.trust is None:
        return ""
    trust = board.trust
    hint = (
        f"{trust.distrusted} of {trust.decided} decided rollouts look as if the imagination had "
        f"left reality. Where they are left out, they count as undecided."
    )
    (bad, of_bad), (few, of_few) = trust.wrong_distrusted, trust.wrong_trusted
    if of_bad and of_few:
        hint += (
            f" Of the distrusted verdicts {100 * bad / of_bad:.0f} % are wrong ({bad} of {of_bad})"
            f", of the others {100 * few / of_few:.0f} % ({few} of {of_few})."
        )
    heads = [
        ("Policy", False),
        ("With all", True),
        ("Without distrusted", True),
        ("Change", True),
        ("Distrusted", True),
    ]
    rows = []
    for row in board.policies:
        if row.trusted is None:
            continue
        known = row.imagined.rate is not None and row.trusted.rate is not None
        change = (row.trusted.rate or 0) - (row.imagined.rate or 0) if known else None
        rows.append(
            [
                name_cell(row.name),
                rate_cell(row.imagined),
                rate_cell(row.trusted),
                points(change),
                f"{row.imagined.decided - row.trusted.decided} of {row.imagined.decided}",
            ]
        )
    return section(
        "With and without distrusted rollouts", hint, table(heads, rows) + _signals(trust)
    )


def _signals(trust: TrustSummary) -> str:
    """What each signal was worth where trust was calibrated, the failing ones too."""
    if not trust.signals:
        return ""
    heads = [("Signal", False), ("Tells wrong verdicts", True), ("Counts", False)]
    rows = []
    for signal in trust.signals:
        area = "–"
        if signal.auroc is not None:
            area = f"{signal.auroc:.2f} [{signal.low:.2f}, {signal.high:.2f}]"
        rows.append([escape(signal.signal), area, "yes" if signal.counts else "off"])
    here = "" if trust.auroc is None else f" Together they reach {trust.auroc:.2f} here."
    return (
        '<details><summary>How useful the signals are</summary><p class="hint">Measured where '
        "trust was calibrated, on rollouts whose truth is known: how often a wrong verdict looks "
        "more doubtful than a right one (AUROC; 1: always, 0.5: a coin, below: it points the wrong "
        f"way). One that fails is off.{here}</p>{table(heads, rows)}</details>"
    )
