"""What a leaderboard allows to say, in plain sentences: for the terminal and for the report.

In: a ``Leaderboard``. Out: sentences (text, not HTML) without jargon; none where there is no data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.policy_row import PolicyRow
from worldeval.ranking.outcome_counts import OutcomeCounts

MOST_NAMES = 4
"""A sentence lists so many policies; more are counted."""
LEAST_GAIN = 0.02
"""Intervals that are narrower by less are not called narrower: chance does that too."""
NO_HELP = (
    "Imagination does not help here: it does not tell which true trials succeed, so these rates "
    "and intervals are those of the true trials alone, or nearly."
)


def findings(board: Leaderboard) -> tuple[list[str], list[str]]:
    """What is said first: sentences about the order of the policies, and what the evidence allows.

    Of the latter there is one paragraph per kind of evidence.
    """
    if not board.ranked:
        return ["No policy has a decided rollout: nothing can be ranked."], []
    kinds = (_truth(board), _joined(board), _corrected(board), _trust(board))
    evidence = [" ".join(sentences) for sentences in kinds if sentences]
    if not board.agreement.policies and not any(row.joined for row in board.policies):
        evidence.append(
            "These are rates in imagination, as a judge saw them: whether they hold in truth "
            "was not checked here."
        )
    return [_best(board), *_rivals(board)], evidence


def typical_gain(board: Leaderboard) -> float | None:
    """By how much of their width joined intervals are narrower, median; None if it is nothing."""
    gains = sorted(row.joined.narrower or 0.0 for row in board.policies if row.joined is not None)
    typical = gains[len(gains) // 2] if gains else 0.0
    return typical if typical >= LEAST_GAIN else None


def percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.0f} %"


def bounds(tally: OutcomeCounts) -> str:
    """The interval in percent, as "63–80"."""
    return f"{100 * tally.interval.low:.0f}–{100 * tally.interval.high:.0f}"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c", "a, b, c and 7 more"."""
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def weighting(board: Leaderboard) -> str:
    """How the tasks weigh, as the end of a sentence."""
    if board.weights == "rollouts":
        return "every decided rollout weighs the same"
    if board.weights == "equal":
        return "every task weighs the same"
    shares = ", ".join(f"{row.task} {100 * (row.weight or 0):.0f} %" for row in board.per_task)
    return f"the tasks weigh {shares}"


def _best(board: Leaderboard) -> str:
    first = [row for row in board.ranked if row.rank == 1]
    best = first[0].imagined
    tasks = f"{len(board.per_task)} task" + ("s" if len(board.per_task) > 1 else "")
    return (
        f"{listed([row.name for row in first])} {'share' if len(first) > 1 else 'takes'} the first "
        f"place of {len(board.policies)} in imagination: {percent(best.rate)} success on {tasks} "
        f"({100 * board.confidence:.0f} % interval {bounds(best)})."
    )


def _rivals(board: Leaderboard) -> list[str]:
    """Which of the others could be the best as well."""
    first, *others = board.ranked
    if not others:
        return ["There is no other policy to compare it with."]
    pairs = {row.name: board.pairwise.between(first.name, row.name) for row in others}
    open_ = [
        name for name, pair in pairs.items() if pair and not board.pairwise.distinguishable(pair)
    ]
    closed = len(others) - len(open_)
    who = first.name if others[0].rank == 1 else "it"
    if not open_:
        those = {1: "The only other policy is", 2: "Both others are"}.get(
            closed, f"All {closed} others are"
        )
        said = [f"{those} worse by more than chance."]
    elif not closed:
        said = [
            f"But {who} cannot be told apart from {listed(open_)}: with so few rollouts the "
            f"best policy is not known."
        ]
    else:
        those = "other is" if closed == 1 else f"other {closed} are"
        said = [
            f"But {who} cannot be told apart from {listed(open_)}; the {those} worse by more "
            f"than chance."
        ]
    if len(others) > 1 and open_:
        count = len(board.pairwise.comparisons)
        said.append(f"Of all {count} pairs of policies {board.pairwise.told_apart} differ.")
    return said


def _truth(board: Leaderboard) -> list[str]:
    agreement = board.agreement
    if not agreement.policies:
        return []
    if agreement.pearson is None:
        why = agreement.reasons.get("pearson", "too few policies")
        return [f"How well that agrees with the truth cannot be told: {why}."]
    regret = agreement.top1_regret or 0.0
    shared = agreement.sharing > 1
    taken = "the wrong one of the imagined winners" if shared else "the imagined winner"
    choice = (
        "the imagined winner is the true one"
        if regret == 0
        else f"taking {taken} costs {100 * regret:.1f} points of true success"
    )
    return [
        f"Over the {agreement.policies} policies with true results the rates correlate with "
        f"r = {agreement.pearson:.3f}, and among these {choice}."
    ]


def _joined(board: Leaderboard) -> list[str]:
    rows = [row for row in board.policies if row.joined is not None]
    if not rows:
        return []
    joined = [row.joined for row in rows if row.joined is not None]
    best = max(rows, key=lambda row: row.joined.estimate if row.joined else -1.0)
    assert best.joined is not None
    trials = sum(rate.trials for rate in joined)
    rivals = sum(rate.high >= best.joined.low for rate in joined) - 1
    open_ = f"; {rivals} {'other' if rivals == 1 else 'others'} may be as good" if rivals else ""
    said = (
        f"With {trials} true trials of {len(rows)} {'policy' if len(rows) == 1 else 'policies'} "
        f"joined in, {best.name} has the highest true rate: {percent(best.joined.estimate)} "
        f"({100 * best.joined.low:.0f}–{100 * best.joined.high:.0f}{open_})."
    )
    typical = typical_gain(board)
    if typical is None:
        return [said, NO_HELP]
    return [
        said,
        f"Imagination makes these intervals {100 * typical:.0f} % narrower than the true trials "
        f"alone, as {1 / (1 - typical) ** 2:.1f} times as many trials would.",
    ]


def _corrected(board: Leaderboard) -> list[str]:
    said = _moved(
        board,
        lambda row: None if row.corrected is None else row.corrected.rate,
        "Corrected for the judge's errors, as they were measured,",
    )
    rates = [row.corrected for row in board.ranked if row.corrected is not None]
    if len(rates) > 1:
        best = max(rates, key=lambda rate: rate.rate)
        rivals = sum(rate.high >= best.low for rate in rates) - 1
        said.append(
            f"With what is not known of these errors, {rivals} "
            f"{'other' if rivals == 1 else 'others'} may be as good as the first."
            if rivals
            else "Nor does what is not known of these errors put it in question."
        )
    return said


def _trust(board: Leaderboard) -> list[str]:
    if board.trust is None:
        return []
    trust = board.trust
    if not trust.distrusted:
        return [f"None of the {trust.decided} verdicts is distrusted."]
    said = [
        f"In {trust.distrusted} of {trust.decided} decided rollouts the imagination seems to have "
        f"left reality."
    ]
    (bad, of_bad), (few, of_few) = trust.wrong_distrusted, trust.wrong_trusted
    if of_bad and of_few:
        said.append(
            f"Their verdicts are wrong in {100 * bad / of_bad:.0f} %, the others in "
            f"{100 * few / of_few:.0f} %."
        )
    said += _error_by_trust(board)
    return said + _moved(
        board,
        lambda row: None if row.trusted is None else row.trusted.rate,
        "Without these rollouts",
    )


def _error_by_trust(board: Leaderboard) -> list[str]:
    errors = board.errors_by_trust
    if errors is None:
        return []
    plain, trusted = (100 * error for error in errors)
    if trusted >= plain:
        return [
            f"Leaving them out does not help: the rates err by {trusted:.1f} points on average, "
            f"by {plain:.1f} with them."
        ]
    return [
        f"Without them the rates err by {trusted:.1f} points on average over the policies, with "
        f"them by {plain:.1f}."
    ]


def _moved(board: Leaderboard, rate: Callable[[PolicyRow], float | None], begin: str) -> list[str]:
    """By how much other rates differ from the imagined ones, and whether they change the winner."""
    other = {row.name: rate(row) for row in board.ranked}
    known = {name: value for name, value in other.items() if value is not None}
    if not known:
        return []
    plain = {row.name: row.imagined.rate or 0.0 for row in board.ranked if row.name in known}
    furthest = max(known, key=lambda name: abs(known[name] - plain[name]))
    points = 100 * (known[furthest] - plain[furthest])
    if abs(points) < 0.5:
        return [f"{begin} no rate moves by a point."]
    unit = "point" if round(abs(points)) == 1 else "points"
    said = f"{begin} rates move by up to {abs(points):.0f} {unit} ({furthest} {points:+.0f})"
    before, after = _winners(plain), _winners(known)
    if set(before) & set(after):
        return [f"{said}, and the first place stays."]
    return [f"{said}, and the first place goes to {listed(after)}."]


def _winners(rates: Mapping[str, float]) -> list[str]:
    most = max(rates.values())
    return [name for name, rate in rates.items() if most - rate < 1e-9]


def plans(board: Leaderboard, most: int) -> Iterable[str]:
    """What it takes to tell neighbours apart; the first ``most``, best policies first."""
    every = board.pairwise.plans
    yield from (plan.sentence for plan in every[:most])
    if len(every) > most:
        yield f"{len(every) - most} more pairs of neighbours cannot be told apart."
