"""One URI, one judge. No torch is imported until a learned judge is asked for.

Enters: ``checkpoints/judge`` (the folder of a checkpoint; its kind says which judge it is),
``human:labels.csv`` (``human.py``), ``vlm:http://host/v1?model=NAME`` (``vlm/``),
``lerobot-reward:FOLDER?threshold=0.8`` (a reward model of LeRobot, ``lerobot_reward.py``), or
``scheme:rest`` of another package, whose entry point ``worldeval.judges`` makes it from ``rest``.
Leaves: a ``types.Judge``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from worldeval import registry
from worldeval.data import checkpoint
from worldeval.errors import CheckpointError, ConfigError, WorldEvalError
from worldeval.types import Judge

LEARNED = {
    "judge": "classifier:SuccessClassifier",
    "progress-judge": "progress:ProgressJudge",
    "margin-judge": "margin:MarginJudge",
    "path-judge": "path:PathJudge",
}
"""Kind of the checkpoint -> module and class."""


def load_judge(uri: str | Path, *, device: str = "cpu") -> Judge:
    """The judge that ``uri`` names.

    Raises ConfigError for what is no URI of a judge, CheckpointError for a checkpoint of something
    else, DataError for labels that cannot be read.
    """
    text = str(uri)
    scheme, _, rest = text.partition(":")
    if scheme == "human":
        from worldeval.judging.human import HumanJudge

        return HumanJudge.read(rest)
    if scheme == "vlm":
        from worldeval.judging.vlm.judge import VisionLanguageJudge

        judge: Judge = VisionLanguageJudge.from_uri(text)
        return judge
    if scheme == "lerobot-reward":
        from worldeval.judging.lerobot_reward import LeRobotRewardJudge

        return LeRobotRewardJudge.from_uri(text, device=device)
    folder = Path(uri)
    if scheme not in (".", "..") and not folder.exists():
        make = registry.registered("judges", scheme)
        if make is not None:
            return _registered(make, scheme, rest)
    if rest and not folder.exists():
        known = ("human", "vlm", "lerobot-reward", *registry.entries("judges"))
        raise ConfigError(
            f"judge is {text!r}, expected the folder of a checkpoint, human:LABELS.csv, "
            "vlm:http://HOST/v1?model=NAME or lerobot-reward:FOLDER"
            f"{registry.did_you_mean(scheme, known)}"
        )
    kind = checkpoint.read_header(folder)["kind"]
    if kind not in LEARNED:
        raise CheckpointError(
            f"{folder} holds a {kind!r} checkpoint, expected one of {sorted(LEARNED)}; give the "
            "folder of a judge"
        )
    module, name = LEARNED[kind].split(":")
    learned: Judge = getattr(import_module(f"worldeval.judging.{module}"), name).load(
        folder, device=device
    )
    return learned


def _registered(make: Callable[[str], Any], scheme: str, rest: str) -> Judge:
    """What another package makes of ``rest``, if it is a judge."""
    try:
        made = make(rest)
    except WorldEvalError:
        raise
    except Exception as error:  # a stranger's judge may raise anything
        raise ConfigError(
            f"judge {f'{scheme}:{rest}'!r} cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(getattr(made, "name", None), str) or not callable(
        getattr(made, "judge", None)
    ):
        raise ConfigError(
            f"judge {f'{scheme}:{rest}'!r} is a {type(made).__name__}, expected a name and a "
            "method judge; see worldeval.types.Judge"
        )
    judge: Judge = made
    return judge
