"""``VisionLanguageJudge``: asks a vision-language model whether the robot did as it was told.

Enters: episodes; only frames, views, instruction and task are looked at. Leaves: one ``Verdict``
each, with a probability, the model's reason, the frames it saw, and what it cost. Any server that
speaks the OpenAI chat completions will do. One at home, with Ollama or vLLM::

    ollama pull qwen3-vl:8b
    worldeval judge runs/mine --judge 'vlm:http://localhost:11434/v1?model=qwen3-vl:8b&frames=8'

    vllm serve Qwen/Qwen3-VL-8B-Instruct --port 8000 --limit-mm-per-prompt '{"image": 8}'
    worldeval judge runs/mine \\
        --judge 'vlm:http://localhost:8000/v1?model=Qwen/Qwen3-VL-8B-Instruct&ask=n'

and one that is paid for, with at most a request a second and a price list::

    worldeval judge runs/mine --judge 'vlm:https://api.openai.com/v1?model=gpt-4.1-mini\\
    &key_env=OPENAI_API_KEY&requests_per_minute=60&price_in=0.4&price_out=1.6&cache=answers'

What is asked stands in ``prompt.py`` and ``pictures.py``, how answers become votes and
votes an outcome in ``answers.py``, what is done about failures in ``client.py``, all
settings in ``settings.py``.

**When the server fails.** Not having been answered says nothing about a rollout, so it gives no
verdict, not even UNDECIDED: after the attempts a JudgeError stops the judging. Every answer was
kept the moment it came, so the same command goes on from there and asks only for the rest.

**Cost** is what the answers took when they were given, kept with them: a second run from the cache
gives the same verdicts, cost included, and asks nothing. ``spent`` is what this object has asked.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

from worldeval.errors import JudgeError
from worldeval.judging.vlm import prompt
from worldeval.judging.vlm.answers import Vote, count_votes, read_answer
from worldeval.judging.vlm.cache import AnswerCache, question_key
from worldeval.judging.vlm.client import ChatClient, Stopped
from worldeval.judging.vlm.reply import REFUSAL, Choice, Reply
from worldeval.judging.vlm.settings import VisionLanguageSettings, settings_from_uri
from worldeval.judging.vlm.unread import explained
from worldeval.judging.without_judge import settled
from worldeval.types import Cost, Episode, Outcome, Verdict

TOKENS_PER_PRICE = 1_000_000
CUT_OFF = "length"
"""``finish_reason`` of an answer that reached max_tokens."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    """Some votes on one rollout: those from number ``first`` on."""

    content: list[dict[str, Any]]
    first: int
    count: int


class VisionLanguageJudge:
    """A ``types.Judge``. Episodes are judged one by one, so batches cannot change a verdict."""

    def __init__(self, settings: VisionLanguageSettings) -> None:
        """Nothing is asked yet. Raises ConfigError where the API key is not in the environment."""
        self.settings = settings
        self.digest = _signature(settings).rpartition("@")[2]
        """Of all that bears on a verdict, whatever the judge is called."""
        self.name = settings.name or _signature(settings)
        self._client = ChatClient(settings.endpoint)
        self._cache = AnswerCache(settings.cache) if settings.cache is not None else None
        self._answered: list[Reply] = []

    @classmethod
    def from_uri(cls, uri: str) -> VisionLanguageJudge:
        """The judge that ``vlm:ADDRESS?model=NAME&...`` names; see ``settings.py``."""
        return cls(settings_from_uri(uri))

    def __repr__(self) -> str:
        return f"VisionLanguageJudge({self.name!r} at {self.settings.endpoint.url!r})"

    @property
    def spent(self) -> Cost:
        """What this object has asked for so far; answers from the cache cost it nothing."""
        return self._cost(self._answered)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """Verdicts in the order of ``episodes``; as many at once as there may be requests.

        Raises JudgeError where the server cannot be asked or refuses, and StoreError where the
        cache cannot be used.
        """
        at_once = self.settings.endpoint.concurrency
        verdicts: list[Verdict] = []
        for first in range(0, len(episodes), at_once):
            verdicts += self._judge_together(episodes[first : first + at_once])
        return verdicts

    def _judge_together(self, episodes: Sequence[Episode]) -> list[Verdict]:
        known = [settled(episode, self.name) for episode in episodes]
        asked = [
            self._questions(episode) if verdict is None else []
            for episode, verdict in zip(episodes, known, strict=True)
        ]
        replies = self._ask_all([question for questions in asked for question in questions])
        verdicts = []
        for episode, verdict, questions in zip(episodes, known, asked, strict=True):
            answered = [reply for question in questions for reply in replies[id(question)]]
            verdicts.append(verdict or self._verdict(episode, answered))
        return verdicts

    def _questions(self, episode: Episode) -> list[_Question]:
        settings = self.settings
        moments = settings.pictures.moments(episode.length)
        content = prompt.content(episode, moments, settings.pictures, settings.rubric)
        votes = settings.poll.votes
        if settings.poll.ask == "n":
            return [_Question(content=content, first=0, count=votes)]
        return [_Question(content=content, first=vote, count=1) for vote in range(votes)]

    def _ask_all(self, questions: Sequence[_Question]) -> dict[int, list[Reply]]:
        """The replies to each question, by its ``id``; several are on their way at once."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.settings.endpoint.concurrency, thread_name_prefix="vlm")
        same: dict[str, Future[list[Reply]]] = {}
        futures: dict[int, Future[list[Reply]]] = {}
        try:
            for question in questions:
                # Rollouts that look the same are asked about once.
                key = question_key(self._body(question), question.first)
                if key not in same:
                    same[key] = pool.submit(self._ask, question, stop)
                futures[id(question)] = same[key]
            wait(same.values(), return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C
            stop.set()
            raise
        finally:
            # What is on its way comes home, and into the cache; nothing new is begun.
            pool.shutdown(wait=True, cancel_futures=True)
        failures = [
            failure
            for future in same.values()
            if not future.cancelled() and (failure := future.exception()) is not None
        ]
        for failure in failures:
            if isinstance(failure, JudgeError) and self._cache is not None:
                raise JudgeError(
                    f"{failure}; all answers until then are kept in {self._cache.folder}, so the "
                    "same command goes on from there"
                ) from failure
            if not isinstance(failure, Stopped):
                raise failure
        return {number: future.result() for number, future in futures.items()}

    def _body(self, question: _Question) -> bytes:
        return self.settings.poll.body(question.content, vote=question.first, count=question.count)

    def _ask(self, question: _Question, stop: threading.Event) -> list[Reply]:
        """Replies whose choices are ``question.count`` together: a server may ignore ``n``."""
        replies: list[Reply] = []
        first, count = question.first, question.count
        while count > 0:
            try:
                reply = self._reply(
                    self._body(replace(question, first=first, count=count)), first, stop
                )
            except BaseException:
                stop.set()  # here already, so that no other thread begins anything
                raise
            replies.append(replace(reply, choices=reply.choices[:count]))
            first, count = first + len(reply.choices), count - len(reply.choices)
        return replies

    def _reply(self, body: bytes, vote: int, stop: threading.Event) -> Reply:
        key = question_key(body, vote)
        kept = self._cache.get(key) if self._cache is not None else None
        if kept is not None:
            return kept
        reply = self._client.ask(body, stop)
        # An answer without any text is not worth keeping: once the server is set up it may speak.
        if self._cache is not None and all(choice.text.strip() for choice in reply.choices):
            self._cache.put(key, reply)
        self._answered.append(replace(reply, choices=()))
        return reply

    def _verdict(self, episode: Episode, replies: Sequence[Reply]) -> Verdict:
        choices = [choice for reply in replies for choice in reply.choices]
        votes = [self._vote(choice) for choice in choices]
        ballot = count_votes(votes)
        unread = [c for c, vote in zip(choices, votes, strict=True) if not vote.readable]
        return Verdict(
            key=episode.key,
            outcome=ballot.outcome,
            probability=ballot.probability,
            judge=self.name,
            reason=ballot.reason + explained(unread, self.settings.poll.max_tokens),
            frames=self.settings.pictures.moments(episode.length),
            cost=self._cost(replies),
        )

    def _vote(self, choice: Choice) -> Vote:
        cut = choice.thoughts and choice.finish == CUT_OFF  # what it would come to is not known
        if cut or choice.source == REFUSAL:
            return Vote(outcome=Outcome.UNDECIDED, reason="", readable=False)
        return read_answer(choice.text, self.settings.extra_words)

    def _cost(self, replies: Sequence[Reply]) -> Cost:
        """The sum over ``replies``; no dollars without prices, or where tokens are not counted."""
        settings = self.settings
        sent = sum(reply.prompt_tokens or 0 for reply in replies)
        completion = sum(reply.completion_tokens or 0 for reply in replies)
        dollars = None
        counted = all(None not in (r.prompt_tokens, r.completion_tokens) for r in replies)
        if settings.price_in is not None and settings.price_out is not None and counted:
            dollars = sent * settings.price_in + completion * settings.price_out
            dollars /= TOKENS_PER_PRICE
        return Cost(
            seconds=sum(reply.seconds for reply in replies),
            requests=sum(reply.requests for reply in replies),
            prompt_tokens=sent,
            completion_tokens=completion,
            dollars=dollars,
        )


def _signature(settings: VisionLanguageSettings) -> str:
    """Name of the judge: the model, and a digest of all that bears on a verdict.

    Two judges of one name give the same verdicts, as far as the model is the same under its name;
    a calibration of one is a calibration of the other.
    """
    facts: dict[str, Any] = {
        "poll": asdict(replace(settings.poll, extra={})) | {"extra": dict(settings.poll.extra)},
        "pictures": asdict(settings.pictures),
        "rubric": [settings.rubric.default, dict(settings.rubric.tasks)],
        "prompt": [prompt.OPENING, prompt.RULES],
    }
    if settings.extra_words:
        facts["words"] = {word: outcome.value for word, outcome in settings.extra_words.items()}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"vlm-{settings.poll.model}@{digest[:8]}"
