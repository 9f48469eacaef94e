"""Which policy is better than which, how sure that is, and what it would take to know.

In: a ``Leaderboard``. Out: ``<section>`` elements; empty text for fewer than two ranked policies.
"""

from __future__ import annotations

from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.pairwise import POWER, Comparison
from worldeval.reports.markup import NOTHING, escape, name_cell, points, section, table
from worldeval.reports.ranking.findings import percent

_CORRECTIONS = {
    "holm": "corrected for the number of pairs (Holm)",
    "bonferroni": "corrected for the number of pairs (Bonferroni)",
    "none": "each pair taken alone",
}


def pairs_section(board: Leaderboard) -> str:
    found = board.pairwise
    if not found.comparisons:
        return ""
    paired = sum(pair.paired for pair in found.comparisons)
    how = {
        len(found.comparisons): "Policies are compared start state by start state",
        0: "Policies are compared by their counts, since their start states differ",
    }.get(paired, f"{paired} pairs are compared start state by start state, the others by counts")
    hint = (
        f"Is the policy of the row better, in imagination, than that of the column? Points of "
        f"success rate; bold "
        f"and coloured where that is more than chance, in brackets where it may be chance. "
        f"{found.told_apart} of {len(found.comparisons)} pairs differ. {how}; the chance of "
        f"calling equal policies different is {100 * found.alpha:.3g} %, "
        f"{_CORRECTIONS[found.correction]}."
    )
    return section("Who is better than whom?", hint, _matrix(board))


def _matrix(board: Leaderboard) -> str:
    names = [row.name for row in board.ranked]
    header = "".join(f'<th class="up"><span>{escape(name)}</span></th>' for name in names[1:])
    body = ""
    # Below the diagonal is the same with the other sign: half of it is enough to read.
    for i, row in enumerate(names[:-1]):
        cells = "".join(
            "<td></td>" if j <= i else _cell(board, row, column)
            for j, column in enumerate(names)
            if j
        )
        body += f'<tr><th class="name" scope="row">{escape(row)}</th>{cells}</tr>'
    return (
        '<div class="scroll"><table class="matrix"><thead><tr><th class="name"></th>'
        f"{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(board: Leaderboard, row: str, column: str) -> str:
    pair = board.pairwise.between(row, column)
    if pair is None or pair.difference is None:
        return f'<td title="{escape(f"{row} and {column}: nothing to compare")}">{NOTHING}</td>'
    sign = 1 if pair.b == row else -1
    ahead = sign * pair.difference
    shown = points(ahead)
    title = escape(_sentence(pair, board.pairwise.distinguishable(pair), board.confidence))
    if not board.pairwise.distinguishable(pair):
        return f'<td class="open" title="{title}">({shown})</td>'
    kind = "ahead" if ahead > 0 else "behind"
    return f'<td class="{kind}" title="{title}">{shown}</td>'


def _sentence(pair: Comparison, distinguishable: bool, confidence: float) -> str:
    assert pair.difference is not None and pair.low is not None and pair.high is not None
    better, worse, sign = (pair.b, pair.a, 1) if pair.difference >= 0 else (pair.a, pair.b, -1)
    low, high = sorted((sign * pair.low, sign * pair.high))
    unit = "start states" if pair.paired else "rollouts each"
    return (
        f"{better} minus {worse}: {points(abs(pair.difference))} points "
        f"({100 * confidence:.0f} % interval {points(low)} to {points(high)}), "
        f"{pair.rollouts} {unit}, p = {pair.p_value:.2g}, corrected {pair.adjusted:.2g}: "
        f"{'more than chance' if distinguishable else 'cannot be told apart'}"
    )


def plans_section(board: Leaderboard) -> str:
    """How many rollouts would separate neighbours that cannot be told apart."""
    plans = board.pairwise.plans
    if not plans:
        return ""
    heads = [
        ("To separate", False),
        ("from", False),
        ("Rates", True),
        ("There are", True),
        ("You need", True),
        ("As one of all pairs", True),
    ]
    rows = []
    for plan in plans:
        equal = '<span class="soft">equal: no number does</span>'
        rows.append(
            [
                name_cell(plan.a),
                name_cell(plan.b),
                f"{percent(plan.rate_a)}, {percent(plan.rate_b)}",
                str(plan.have),
                equal if plan.rollouts is None else _count(plan.rollouts),
                NOTHING if plan.rollouts_among_all is None else _count(plan.rollouts_among_all),
            ]
        )
    hint = (
        f"Neighbours in the ranking that cannot be told apart. Rollouts of each policy that find "
        f"the difference with a chance of {100 * POWER:.0f} %, if the rates are as observed; from "
        f"the same start states often fewer do. The last column is stricter: it keeps the chance "
        f"of any mistake over all pairs of the leaderboard."
    )
    return section("What it would take", hint, table(heads, rows))


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")
