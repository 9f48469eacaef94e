"""The vision-language judge against a real server: what it sends, what it makes of the answers,
what that costs. Failures stand in test_failures.py, the cache in test_cache.py."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.judging.vlm.server import Asked, completion, episode, error, vote
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import JudgeError
from worldeval.judging.loading import load_judge
from worldeval.judging.tables import judge_store
from worldeval.judging.vlm.pictures import GAP_PX
from worldeval.types import Cost, Judge, Outcome


def test_a_verdict(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("yes", "the drawer is open in frame 8")])
    judge: Judge = judge_at(server, frames=3)
    (verdict,) = judge.judge([episode()])
    assert verdict.key == "p/1" and verdict.judge == judge.name
    assert verdict.outcome is Outcome.SUCCESS and verdict.probability == 0.75
    assert verdict.reason == "1 success of 1 votes: the drawer is open in frame 8"
    assert verdict.frames == (0, 4, 8)
    assert verdict.cost.requests == 1 and verdict.cost.seconds > 0
    assert (verdict.cost.prompt_tokens, verdict.cost.completion_tokens) == (1000, 20)
    assert verdict.cost.dollars is None


def test_what_is_sent(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("no")])
    judge_at(server, frames=3, image="png", temperature=0.5, seed=40, max_tokens=77).judge(
        [episode()]
    )
    (asked,) = server.asked
    body = {key: value for key, value in asked.body.items() if key != "messages"}
    assert body == {"model": "m", "temperature": 0.5, "seed": 40, "max_tokens": 77}
    assert "authorization" not in asked.headers
    assert [tuple(picture[0, 0]) for picture in asked.pictures] == [
        (0, 100, 0), (80, 100, 0), (160, 100, 0),
    ]  # fmt: skip
    assert {picture.shape for picture in asked.pictures} == {(6, 16 + GAP_PX, 3)}
    # each picture right after the number of its frame
    parts = asked.body["messages"][0]["content"]
    before = [parts[i - 1]["text"] for i, p in enumerate(parts) if p["type"] == "image_url"]
    assert before == ["Frame 0:", "Frame 4:", "Frame 8:"]
    for words in ("open the drawer", "front, wrist", "artefact", "unsure", "JSON"):
        assert words in asked.text
    # blind: whose rollout it is, and of which world, must not sway the model
    for hidden in ("clever", "imagination", "p/1", "drawer-open/7"):
        assert hidden not in json.dumps(asked.body)


def test_a_grid_is_one_picture_with_its_frames_named(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("no")])
    judge_at(server, layout="grid", stride=4).judge([episode()])
    assert len(server.asked[0].pictures) == 1
    assert "frames 0, 4, 8" in server.asked[0].text


def test_each_vote_has_its_own_seed_and_the_majority_wins(
    serve: Callable, judge_at: Callable
) -> None:
    def by_seed(asked: Asked) -> bytes:
        return vote("no" if asked.body["seed"] in (10, 13) else "yes", str(asked.body["seed"]))

    server = serve(by_seed)
    (verdict,) = judge_at(server, votes=5, seed=10).judge([episode()])
    assert sorted(asked.body["seed"] for asked in server.asked) == [10, 11, 12, 13, 14]
    assert verdict.outcome is Outcome.SUCCESS
    assert verdict.probability == pytest.approx(3.5 / 6)
    assert verdict.reason == "3 success, 2 failure of 5 votes: 11"
    assert verdict.cost.requests == 5 and verdict.cost.prompt_tokens == 5000


def test_votes_without_seeds_are_votes_of_their_own(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("yes"), vote("yes"), vote("no")])
    (verdict,) = judge_at(server, votes=3, seed="none").judge([episode()])
    assert len(server.asked) == 3 and "seed" not in server.asked[0].body
    assert verdict.reason.startswith("2 success, 1 failure")
    assert judge_at(server, votes=3, seed="none").judge([episode()]) == [verdict]
    assert len(server.asked) == 3


@pytest.mark.parametrize("answers", ["yes no", "yes hm", "hm hm", "unsure yes no"])
def test_ties_and_unreadable_answers_are_undecided(
    serve: Callable, judge_at: Callable, answers: str
) -> None:
    words = answers.split()
    server = serve([completion(f"Answer: {word}") for word in words])
    (verdict,) = judge_at(server, votes=len(words)).judge([episode()])
    assert verdict.outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("content", [None, "", "I cannot help with that."])
def test_a_refusal_of_the_model_is_undecided(
    serve: Callable, judge_at: Callable, content: str | None
) -> None:
    (verdict,) = judge_at(serve([completion(content)])).judge([episode()])
    assert verdict.outcome is Outcome.UNDECIDED and verdict.probability is None
    assert verdict.reason.startswith("1 unreadable of 1 votes")


def test_answers_that_are_cut_off_say_so(serve: Callable, judge_at: Callable) -> None:
    server = serve([completion("<think>let me see", finish="length")])
    (verdict,) = judge_at(server, max_tokens=3).judge([episode()])
    assert verdict.outcome is Outcome.UNDECIDED
    assert "1 cut off at max_tokens=3" in verdict.reason


def test_a_server_that_takes_n_is_asked_once(serve: Callable, judge_at: Callable) -> None:
    server = serve([completion("Answer: yes", "Answer: yes", "Answer: no", tokens=(1000, 60))])
    (verdict,) = judge_at(server, votes=3, ask="n").judge([episode()])
    assert [asked.body["n"] for asked in server.asked] == [3]
    assert verdict.reason.startswith("2 success, 1 failure of 3 votes")
    assert verdict.cost.requests == 1 and verdict.cost.completion_tokens == 60


def test_a_server_that_ignores_n_is_asked_for_the_rest(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("yes"), vote("no"), vote("no")])
    (verdict,) = judge_at(server, votes=3, ask="n").judge([episode()])
    assert [asked.body.get("n", 1) for asked in server.asked] == [3, 2, 1]
    assert [asked.body["seed"] for asked in server.asked] == [0, 1, 2]
    assert verdict.outcome is Outcome.FAILURE


def test_more_choices_than_asked_for_are_not_counted(serve: Callable, judge_at: Callable) -> None:
    server = serve([completion("Answer: yes", "Answer: no", "Answer: no")])
    (verdict,) = judge_at(server).judge([episode()])
    assert verdict.outcome is Outcome.SUCCESS


def test_verdicts_come_in_the_order_of_the_episodes_however_late(
    serve: Callable, judge_at: Callable
) -> None:
    two = threading.Barrier(2)

    def later_is_faster(asked: Asked) -> bytes:
        colour = int(asked.pictures[0][0, 0, 2])
        if colour < 2:
            two.wait(timeout=10)
        time.sleep((5 - colour) * 0.02)
        return vote("yes" if colour % 2 else "no", str(colour))

    server = serve(later_is_faster)
    episodes = [episode(f"p/{i}", colour=i) for i in range(6)]
    verdicts = judge_at(server, concurrency=3, image="png").judge(episodes)
    assert [v.key for v in verdicts] == [e.key for e in episodes]
    assert [v.reason.split(": ")[1] for v in verdicts] == list("012345")
    assert 2 <= server.most_at_once <= 3


def test_one_request_at_a_time_where_so_wished(serve: Callable, judge_at: Callable) -> None:
    server = serve(lambda asked: time.sleep(0.01) or vote("yes"))
    judge_at(server, votes=4, concurrency=1).judge([episode(), episode("p/2", colour=9)])
    assert len(server.asked) == 8 and server.most_at_once == 1


def test_rollouts_that_cannot_be_asked_about_cost_nothing(
    serve: Callable, judge_at: Callable
) -> None:
    server = serve([vote("yes")])
    broken = episode("p/2", extra={"outcome": "error", "error": "the policy died"})
    short = episode("p/3", length=1)
    verdicts = judge_at(server).judge([episode(), broken, short])
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == [Outcome.SUCCESS, Outcome.ERROR, Outcome.UNDECIDED]
    assert verdicts[1].reason == "the policy died"
    assert verdicts[1].cost == verdicts[2].cost == Cost()
    assert len(server.asked) == 1
    assert judge_at(server).judge([]) == []


def test_a_store_is_judged_into_a_table(
    serve: Callable, tmp_path: Path, make_store: Callable[..., EpisodeStore]
) -> None:
    def by_instruction(asked: Asked) -> bytes:
        return vote("yes" if "left" in asked.text else "no")

    server = serve(by_instruction)
    uri = f"vlm:{server.url}?model=m&votes=2&price_in=1&price_out=0&cache={tmp_path / 'answers'}"
    table = judge_store(load_judge(uri), make_store("store", range(1)))
    assert dict(table.groupby("task")["outcome"].first()) == {"left": "success", "right": "failure"}
    assert set(table["tokens"]) == {2 * 1020} and table["dollars"].tolist() == [2e-3] * 4
    assert set(table["frames"]) == {"0 1 2 3 4 5 6"}


def test_dollars(serve: Callable, judge_at: Callable) -> None:
    server = serve([completion("Answer: yes", tokens=(1_500, 40))])
    judge = judge_at(server, votes=2, price_in=2.5, price_out=10)
    (verdict,) = judge.judge([episode()])
    expected = 2 * (1_500 * 2.5 + 40 * 10) / 1e6
    assert verdict.cost.dollars == pytest.approx(expected) == judge.spent.dollars


def test_tokens_that_are_not_counted_have_no_price(serve: Callable, judge_at: Callable) -> None:
    server = serve([completion("Answer: yes", tokens=None)])
    (verdict,) = judge_at(server, price_in=2.5, price_out=10).judge([episode()])
    assert verdict.cost.prompt_tokens == 0 and verdict.cost.dollars is None


def test_the_rate_limit_spaces_requests(serve: Callable, judge_at: Callable) -> None:
    server = serve([vote("yes")])
    began = time.monotonic()
    judge_at(server, votes=5, requests_per_minute=1200).judge([episode()])
    assert server.asked[-1].at_s - began >= 4 * 60 / 1200


def test_a_field_that_the_server_does_not_take_has_a_remedy(
    serve: Callable, judge_at: Callable
) -> None:
    told = "Unsupported value: 'temperature' does not support 0.7 with this model."
    server = serve([error("400 Bad Request", told, param="temperature")])
    with pytest.raises(JudgeError, match="HTTP 400 .Unsupported value.*temperature=none"):
        judge_at(server).judge([episode()])
    assert len(server.asked) == 1
