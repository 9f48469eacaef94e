"""What a phrase says of success; what leaves a doubt says nothing."""

from __future__ import annotations

import json

import pytest

from worldeval.judging.vlm.answers import read_answer
from worldeval.judging.vlm.phrases import outcome_of
from worldeval.types import Outcome

YES, NO = Outcome.SUCCESS, Outcome.FAILURE
SAID = {
    YES: (
        "yes", "Success.", "successful", "the robot succeeded", "Yes, it is open in frame 8",
        "Yes - the robot did not drop it", "true", "The attempt was successful",
        "success: true", "Success: the drawer is open", "the robot succeeded in opening the drawer",
        "the drawer was opened successfully", "task_success = yes",
    ),
    NO: (
        "no", "success was not achieved", "did not succeed", "no success", "didn't succeed",
        "isn\u2019t a success", "failed to succeed", "never succeeded", "without success",
        "success has not been reached", "lack of success", "unsuccessful", "it failed",
        "No, it did not succeed", "no: success was not reached", "No the drawer is shut",
        "not completed successfully", "success: false", "success=False", "task_success: no",
        "zero success", "lacks success", "success criteria not met",
    ),
    None: (
        "failure was avoided", "no failure", "did not fail", "not a failure", "success and failure",
        "yes, but it failed", "No, it succeeded", "no doubt it succeeded", "partial success",
        "almost a success", "cannot confirm success", "success or failure", "yes/no",
        "neither success nor failure", "not only a success", "No failure: the drawer opened",
        "success would need the drawer to be open", "the task failed successfully", "ja", "oui",
        "not true", "maybe", "", "success is unlikely", "far from successful", "success: 0",
        "anything but successful", "success rate: 0%", "success: none", "success was short-lived",
        "succeeded in nothing", "success remains elusive", "success criterion unmet",
        "un-successful", "non-success", "false success", "incomplete success", "nothing failed",
        "failure to fail",
        "non-failure", "yes and no", "yes? no.", "yes (no)", "yes -> no", "yes, partially",
        "yes, if touching it counts", "yes-ish", "true negative", "no, I mean yes", "no? yes.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("phrase", "outcome"), [(phrase, o) for o, phrases in SAID.items() for phrase in phrases]
)
def test_a_phrase_counts_by_what_surrounds_its_words(phrase, outcome) -> None:
    assert outcome_of(phrase) is outcome
    for text in (f"Answer: {phrase}", json.dumps({"answer": phrase}), phrase):
        vote = read_answer(text)
        assert (vote.outcome if vote.readable else None) is outcome, text


def test_words_of_other_languages_count_where_they_are_given() -> None:
    words = {"ja": YES, "nein": NO, "nicht": NO}
    assert outcome_of("Ja.", words) is YES and outcome_of("nein, sie ist zu", words) is NO
    assert outcome_of("ja oder nein", words) is None and outcome_of("jawohl", words) is None
    assert read_answer("Answer: Nein", words).outcome is NO


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"verdict": "success"}', YES),
        ('{"success": false, "reason": "shut"}', NO),
        ('{"success": true, "answer": "no"}', NO),  # what was asked for counts
        ('<thinking>Answer: yes</thinking>{"answer": "no"}', NO),
        ("[THINK]it is open[/THINK]Answer: yes", YES),
        ("<thinking>Answer: yes", None),
        ('<|channel|>analysis<|message|>Is it "Answer: yes"? I must look', None),
        ("<|channel|>analysis<|message|>Answer: no?<|channel|>final<|message|>Answer: yes", YES),
    ],
)
def test_other_keys_and_other_thoughts(text, outcome) -> None:
    vote = read_answer(text)
    assert (vote.outcome if vote.readable else None) is outcome
