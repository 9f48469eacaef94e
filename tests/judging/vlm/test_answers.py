"""From words to votes, from votes to an outcome: what cannot be read is nobody's vote."""

from __future__ import annotations

import pytest

from worldeval.judging.vlm.answers import REASON_CHARACTERS, Vote, count_votes, read_answer
from worldeval.types import Outcome

YES, NO, UNSURE = Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"reason": "open in frame 9", "answer": "yes"}', YES),
        ('{"answer": "No", "reason": "shut"}', NO),
        ('{"answer": "unsure", "reason": "hidden"}', UNSURE),
        ('{"Answer": "YES."}', YES),
        ('{"answer": true}', YES),
        ('{"answer": false}', NO),
        ('Here you are:\n```json\n{"reason": "r", "answer": "no"}\n```\nHope that helps!', NO),
        ("The drawer is open.\nAnswer: Yes", YES),
        ("**Answer:** **No**", NO),
        ("Final Answer: no, the drawer stays shut", NO),
        ("answer = cannot tell", UNSURE),
        ("Answer: not sure", UNSURE),
        ("{'reason': 'single quotes', 'answer': 'yes'}", YES),
        ('{"reason": "cut in the mid', None),
        ('{"reason": "no brace at the end", "answer": "yes"', YES),
        ("Yes.", YES),
        ("**no**", NO),
        # the last one counts
        ("Answer: No\nWait, frame 8 shows it open.\nAnswer: Yes", YES),
        ('{"answer": "yes"} No, on reflection: {"answer": "no"}', NO),
        ('{"answer": "yes"}\nAnswer: unsure', UNSURE),
        # and is not taken from the inside of a reason, a thought, or the question itself
        ('{"answer": "no", "reason": "the first answer: yes was wrong"}', NO),
        ("<think>Answer: yes? Answer: no?</think>Answer: unsure", UNSURE),
        ("<think>Answer: yes, since", None),
        ("Answer: Yes/No/Unsure", None),
        ('"answer" is "yes" or "no"', None),
        ("Answer: yes or no", None),
        # unreadable
        ("", None),
        ("The robot opens the drawer. Yes it does, I think.", None),
        ("Answer: 42", None),
        ("Answer: maybe", None),
        ("Answer: nothing happened", None),
        ('{"answer": null}', None),
        ('{"answer": ["yes"]}', None),
        ('["answer", "yes"]', None),
        ('{"score": 1}', None),
        ("{" * 50_000, None),
        ("I'm sorry, but I can't help with that.", None),
    ],
)
def test_reading_an_answer(text: str, outcome: Outcome | None) -> None:
    vote = read_answer(text)
    assert vote.readable == (outcome is not None)
    assert vote.outcome is (outcome or UNSURE)


def test_the_reason_is_the_models_own_on_one_line_and_short() -> None:
    assert read_answer('{"reason": "a\\n b", "answer": "yes"}').reason == "a b"
    assert read_answer("Reason: it is open\nAnswer: yes").reason == "it is open"
    assert read_answer("It is\nopen.\nAnswer: yes").reason == "It is open."
    long = read_answer('{"reason": "%s", "answer": "no"}' % ("x" * 999)).reason
    assert len(long) == REASON_CHARACTERS and long.endswith("…")


def votes(text: str) -> list[Vote]:
    """y, n, u (unsure) and x (unreadable), each with its place as the reason."""
    outcomes = {"y": YES, "n": NO, "u": UNSURE, "x": UNSURE}
    return [
        Vote(outcome=outcomes[c], reason=f"{c}{i}", readable=c != "x") for i, c in enumerate(text)
    ]


@pytest.mark.parametrize(
    ("given", "outcome", "probability"),
    [
        ("yyyyy", YES, 5.5 / 6),
        ("nynyy", YES, 3.5 / 6),
        ("nnn", NO, 0.5 / 4),
        ("y", YES, 0.75),
        ("yn", UNSURE, 0.5),  # a tie
        ("ynu", UNSURE, 0.5),
        ("yyu", YES, 2.5 / 3),
        ("yyxx", UNSURE, 2.5 / 3),  # half of all votes is no majority
        ("yyuxn", UNSURE, 2.5 / 4),
        ("nxxxx", UNSURE, 0.25),
        ("uux", UNSURE, None),
        ("xxx", UNSURE, None),
        ("", UNSURE, None),
    ],
)
def test_counting(given: str, outcome: Outcome, probability: float | None) -> None:
    ballot = count_votes(votes(given))
    assert ballot.outcome is outcome
    assert ballot.probability == (None if probability is None else pytest.approx(probability))


def test_the_reason_names_the_counts_and_the_first_reason_of_the_winning_side() -> None:
    assert count_votes(votes("nyyxy")).reason == "3 success, 1 failure, 1 unreadable of 5 votes: y1"
    assert count_votes(votes("yn")).reason == "1 success, 1 failure of 2 votes"
    assert count_votes(votes("ynu")).reason == "1 success, 1 failure, 1 unsure of 3 votes: u2"


def test_both_sides_are_treated_alike() -> None:
    """Swapping all yes and no swaps the outcome and mirrors the probability."""
    for given in ("yyn", "yyyn", "yxu", "yynnu", "y"):
        one = count_votes(votes(given))
        other = count_votes(votes(given.translate(str.maketrans("yn", "ny"))))
        assert {one.outcome, other.outcome} in ({YES, NO}, {UNSURE})
        assert one.probability is not None and other.probability is not None
        assert one.probability + other.probability == pytest.approx(1)
