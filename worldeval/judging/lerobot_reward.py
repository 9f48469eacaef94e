"""A reward model of LeRobot as a judge: ``lerobot-reward:FOLDER?threshold=0.8``.

Enters: a checkpoint as LeRobot saves it (config.json, weights, the normalisation it was trained
with) or its name on the hub, and episodes. Leaves: verdicts. The model is asked as LeRobot asks it,
preprocess and ``compute_reward``, about a whole rollout once. Needs lerobot 0.6, where these models
are, in the environment (Python 3.12; docs/lerobot.md)::

    robometer          its success head against its own success_threshold: 1 or 0
    reward_classifier  1 or 0 for the last frame
    sarm               progress in [0, 1] at the last frame; needs threshold= and gap=
    topreward          log-probability that the video shows the task; needs threshold=

A reward above the threshold is a success. None of these numbers is a calibrated probability, so a
verdict has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from worldeval.data import digests
from worldeval.errors import ConfigError, JudgeError, MismatchError, MissingDependencyError
from worldeval.judging.without_judge import settled
from worldeval.settings import settings_from
from worldeval.types import Cost, Episode, Outcome, Verdict

SCHEME = "lerobot-reward"
STATE, IMAGES = "observation.state", "observation.image"
OWN = {"robometer": 0.5, "reward_classifier": 0.5}
"""Kinds that answer 1 or 0 by a threshold of their own -> what parts the two."""
FRAMES = 16
"""So many frames of a rollout are shown to a model that does not say how many it takes."""


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What may stand after the ``?``.

    threshold: rewards above it are successes; the model's own if None. view: of the rollouts, for
    the picture that the model looks at; the one of its name if None. gap: frames of a rollout
    between two frames that SARM looks at. name: of the judge.
    """

    threshold: float | None = None
    view: str | None = None
    gap: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.gap is not None and self.gap < 1:
            raise ConfigError(f"gap is {self.gap}, expected 1 or more frames")
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise ConfigError(f"threshold is {self.threshold}, expected a finite number")


class LeRobotRewardJudge:
    """A ``types.Judge``. Each episode is judged by itself, so batches cannot change a verdict."""

    def __init__(
        self, place: str, settings: RewardSettings | None = None, *, device: str = "cpu"
    ) -> None:
        """place: a folder, or a name on the hub. Raises MissingDependencyError without LeRobot."""
        self.settings = settings or RewardSettings()
        self._place = place
        self._model, self._before, self._config = _opened(place, device)
        self.kind = str(self._config.type)
        self.threshold = self._threshold()
        if self.kind == "sarm" and self.settings.gap is None:
            raise ConfigError(
                f"judge {place!r} looks at frames that were {self._config.frame_gap} rows of its "
                "data set apart; give gap=FRAMES, as many frames of a rollout in the same time"
            )
        folder = Path(place)
        facts = asdict(self.settings) | {
            "name": None,
            "of": digests.of_path(folder) if folder.is_dir() else place,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        self.name = self.settings.name or f"lerobot-{self.kind}@{digest}"

    @classmethod
    def from_uri(cls, uri: str, *, device: str = "cpu") -> LeRobotRewardJudge:
        """The judge that ``lerobot-reward:PLACE?name=value&...`` names."""
        place, _, query = uri.removeprefix(f"{SCHEME}:").partition("?")
        if not place:
            raise ConfigError(f"judge {uri!r} names no place; write {SCHEME}:FOLDER")
        given: dict[str, Any] = {}
        for pair in filter(None, query.split("&")):
            name, equals, text = pair.partition("=")
            if not equals or not text:
                raise ConfigError(
                    f"judge {uri!r}: cannot read {pair!r}, expected name=value pairs joined by & "
                    "after ?"
                )
            given[name] = unquote(text)
            if name not in ("view", "name"):
                with contextlib.suppress(ValueError):
                    given[name] = json.loads(given[name])
        return cls(place, settings_from(RewardSettings, given), device=device)

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """Verdicts in the order of ``episodes``. Raises MismatchError for views or states that the
        model does not know, JudgeError where it fails."""
        return [settled(episode, self.name) or self._verdict(episode) for episode in episodes]

    def reward(self, episode: Episode) -> tuple[float, tuple[int, ...]]:
        """The model's reward for a whole rollout, and the numbers of the frames it looked at."""
        import torch

        frames = self._moments(episode.length)
        batch: dict[str, Any] = {"task": [episode.instruction]}
        for key in self._image_keys():
            view = episode.views.index(self._view(key, episode))
            pictures = episode.frames[list(frames), view]
            shown = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)[None]
            if self.kind == "reward_classifier":  # it takes one picture, as its data set gives it
                shown = shown[:, -1].float() / 255
            batch[key] = shown
        if self.kind == "sarm":
            batch[self._config.state_key] = torch.from_numpy(self._state(episode, frames))[None]
            batch["index"] = batch["episode_index"] = torch.tensor([0])
        try:
            with torch.inference_mode():
                reward = self._model.compute_reward(self._before(batch))
            value = float(torch.as_tensor(reward).reshape(-1)[0])
        except (ValueError, KeyError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            raise JudgeError(
                f"LeRobot's {self.kind} at {self._place} failed on {episode.key!r} "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); was it saved by "
                "another version?"
            ) from error
        if not np.isfinite(value):
            raise JudgeError(
                f"LeRobot's {self.kind} at {self._place} gave the reward {value} for "
                f"{episode.key!r}, expected a finite number; look for damaged weights"
            )
        return value, tuple(sorted(set(frames)))

    def _verdict(self, episode: Episode) -> Verdict:
        began = time.perf_counter()
        value, frames = self.reward(episode)
        return Verdict(
            key=episode.key,
            outcome=Outcome.SUCCESS if value > self.threshold else Outcome.FAILURE,
            probability=None,
            judge=self.name,
            reason=f"reward {value:.4g}, above {self.threshold:g} is a success",
            frames=frames,
            cost=Cost(seconds=time.perf_counter() - began),
        )

    def _threshold(self) -> float:
        given, config = self.settings.threshold, self._config
        if self.kind in OWN:
            if given is not None and self.kind == "robometer":
                config.success_threshold = given
            elif given is not None:
                raise ConfigError(
                    f"judge {self._place!r} decides by itself; leave threshold={given:g} out"
                )
            return OWN[self.kind]
        own = getattr(config, "success_threshold", None)
        if given is None and own is not None and np.isfinite(own):
            given = float(own)
        if self.kind == "topreward":  # it shall say the number, not whether it is enough
            config.success_threshold = float("-inf")
        if given is None:
            what = "progress from 0 to 1" if self.kind == "sarm" else "a log-probability"
            raise ConfigError(
                f"judge {self._place!r} gives {what} and says nothing of when it is a success; "
                "give threshold=NUMBER"
            )
        return given

    def _image_keys(self) -> list[str]:
        key = getattr(self._config, "image_key", None)
        return [key] if key else [k for k in self._config.input_features if k.startswith(IMAGES)]

    def _view(self, key: str, episode: Episode) -> str:
        short, keys = key.rpartition(".")[2], self._image_keys()
        if self.settings.view is not None and len(keys) == 1:
            short = self.settings.view
        elif short not in episode.views and len(episode.views) == len(keys) == 1:
            short = episode.views[0]
        if short not in episode.views:
            raise MismatchError(
                f"judge {self.name!r} looks at {key!r}, and {episode.key!r} has the views "
                f"{', '.join(episode.views)}; give view=NAME, or rename them"
            )
        return short

    def _moments(self, length: int) -> tuple[int, ...]:
        """Which frames are shown, in the order of the model's video; the last is among them."""
        last = length - 1
        if self.kind == "reward_classifier":
            return (last,)
        if self.kind == "sarm":  # a window around the last frame, which stands for later ones
            steps = [d // self._config.frame_gap for d in self._config.observation_delta_indices]
            gap = self.settings.gap or 1
            return tuple(int(np.clip(last + step * gap, 0, last)) for step in steps)
        most = self._config.max_frames or FRAMES
        spaced = np.linspace(0, last, min(most, length))
        return tuple(int(number) for number in np.unique(np.rint(spaced)))

    def _state(self, episode: Episode, frames: Sequence[int]) -> np.ndarray:
        """(T, D) of the states that SARM was trained with, by their width."""
        steps = getattr(self._before, "steps", ())
        stats = next((s.stats for s in steps if STATE in (getattr(s, "stats", None) or {})), None)
        if stats is None:
            raise ConfigError(
                f"{self._place} has no normalisation of {STATE}, without which its numbers mean "
                "nothing; give the folder that lerobot-train saved, with its processors"
            )
        width = len(np.asarray(stats[STATE]["mean"]).reshape(-1))
        known = [episode.poses]
        if episode.joints is not None:
            known += [episode.joints, np.concatenate([episode.poses, episode.joints], axis=1)]
        for state in known:
            if state.shape[1] == width:
                return np.asarray(state[list(frames)], np.float32)
        raise MismatchError(
            f"judge {self.name!r} was trained with a state of {width} numbers, {episode.key!r} has "
            f"{' or '.join(str(state.shape[1]) for state in known)}; train it on an export of this "
            "robot"
        )


def _opened(place: str, device: str) -> tuple[Any, Any, Any]:
    """The model, what prepares its batches, and its configuration."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        rewards: Any = import_module("lerobot.rewards")
        configs: Any = import_module("lerobot.configs.rewards")
    except ImportError as error:
        try:
            here = f"lerobot {metadata.version('lerobot')} is here"
        except metadata.PackageNotFoundError:
            here = str(error)
        raise MissingDependencyError(
            f"a reward model of LeRobot needs lerobot 0.6 ({here}); pip install "
            "'lerobot[robometer,topreward,sarm]>=0.6,<0.7', with Python 3.12 in an environment of "
            "its own with worldeval beside it (docs/lerobot.md)"
        ) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it says where it loads from
            config = configs.RewardModelConfig.from_pretrained(place)
            config.device, config.pretrained_path = device, place
            if config.type == "robometer":
                config.reward_output = "success"
            model = rewards.make_reward_model(config)
            before, _ = rewards.make_reward_pre_post_processors(
                config, dataset_stats=_stats(Path(place))
            )
    except ImportError as error:  # of what a kind needs besides
        raise MissingDependencyError(
            f"{place} cannot be opened by LeRobot: {' '.join(str(error).split())}"
        ) from error
    except Exception as error:  # draccus, transformers and the hub each have errors of their own
        raise JudgeError(
            f"{place} cannot be opened by LeRobot as a reward model ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); give a folder with its config.json, or "
            "HF_HUB_OFFLINE=0 for one of the hub"
        ) from error
    if not hasattr(model, "compute_reward"):
        raise MissingDependencyError(
            f"lerobot {metadata.version('lerobot')} has no compute_reward; install lerobot 0.6"
        )
    model.eval()
    for step in getattr(before, "steps", ()):
        if callable(getattr(step, "eval", None)):  # SARM's would else turn back and misword
            step.eval()
    return model, before, config


def _stats(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The normalisation that lerobot-train saved beside the weights; None where there is none."""
    from safetensors.numpy import load_file

    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*_normalizer_processor.safetensors")):
        if "unnormalizer" not in path.name:
            for name, values in load_file(path).items():
                key, _, kind = name.rpartition(".")
                found.setdefault(key, {})[kind] = values
    return found or None
