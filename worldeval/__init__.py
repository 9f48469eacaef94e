"""worldeval: evaluate and improve robot policies inside an action-conditioned world model.

Importing the package imports nothing else: every public name is loaded when it is first used, so
that ``worldeval --help`` answers at once and a checkpoint-free install stays light.

It sets OMP_WAIT_POLICY to PASSIVE, unless you set it or GOMP_SPINCOUNT. Else the threads of torch
wait for each other at full speed, and on a busy machine they take the cores from the thread that
they wait for. The variable is read when torch is loaded: import worldeval first.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if "GOMP_SPINCOUNT" not in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "ActionChunk": "types",
    "CameraSpec": "robots",
    "Drive": "live.drive",
    "Episode": "types",
    "EpisodeStore": "data.store.episodes",
    "Evaluation": "evaluation.evaluation",
    "Imagination": "imagination.env",
    "Judge": "types",
    "Labelling": "evaluation.labelling",
    "MetaWorld": "worlds.metaworld",
    "Observation": "types",
    "Outcome": "types",
    "Policy": "types",
    "PolicySpec": "types",
    "RobotSpec": "robots",
    "StartState": "types",
    "Studio": "live.studio",
    "Suite": "rollout.suite",
    "Synthesis": "synthesis.synthesize",
    "Verdict": "types",
    "World": "types",
    "WorldEvalError": "errors",
    "WorldStep": "types",
    "before_and_after": "evaluation.before_after",
    "connect_world": "worlds.served",
    "evaluate": "evaluation.evaluate",
    "export_lerobot": "synthesis.export",
    "load_judge": "judging.loading",
    "load_policy": "policies.loading",
    "odd_episodes": "synthesis.diagnosis.odd",
    "rollout_curves": "evaluation.curves",
    "run_suite": "rollout.engine",
    "synthesize": "synthesis.synthesize",
}
_RENAMED = {"run_suite": "run"}

__all__ = [
    "ActionChunk",
    "CameraSpec",
    "Drive",
    "Episode",
    "EpisodeStore",
    "Evaluation",
    "Imagination",
    "Judge",
    "Labelling",
    "MetaWorld",
    "Observation",
    "Outcome",
    "Policy",
    "PolicySpec",
    "RobotSpec",
    "StartState",
    "Studio",
    "Suite",
    "Synthesis",
    "Verdict",
    "World",
    "WorldEvalError",
    "WorldStep",
    "__version__",
    "before_and_after",
    "connect_world",
    "evaluate",
    "export_lerobot",
    "load_judge",
    "load_policy",
    "odd_episodes",
    "rollout_curves",
    "run_suite",
    "synthesize",
]

if TYPE_CHECKING:
    from worldeval.data.store.episodes import EpisodeStore
    from worldeval.errors import WorldEvalError
    from worldeval.evaluation.before_after import before_and_after
    from worldeval.evaluation.curves import rollout_curves
    from worldeval.evaluation.evaluate import evaluate
    from worldeval.evaluation.evaluation import Evaluation
    from worldeval.evaluation.labelling import Labelling
    from worldeval.imagination.env import Imagination
    from worldeval.judging.loading import load_judge
    from worldeval.live.drive import Drive
    from worldeval.live.studio import Studio
    from worldeval.policies.loading import load_policy
    from worldeval.robots import CameraSpec, RobotSpec
    from worldeval.rollout.engine import run as run_suite
    from worldeval.rollout.suite import Suite
    from worldeval.synthesis.diagnosis.odd import odd_episodes
    from worldeval.synthesis.export import export_lerobot
    from worldeval.synthesis.synthesize import Synthesis, synthesize
    from worldeval.types import (
        ActionChunk,
        Episode,
        Judge,
        Observation,
        Outcome,
        Policy,
        PolicySpec,
        StartState,
        Verdict,
        World,
        WorldStep,
    )
    from worldeval.worlds.metaworld import MetaWorld
    from worldeval.worlds.served import connect_world


def __getattr__(name: str) -> Any:
    if name == "testing":  # a module of its own: conformance checks and toys
        return import_module("worldeval.testing")
    if name not in _HOMES:
        raise AttributeError(f"module 'worldeval' has no attribute {name!r}")
    value = getattr(import_module(f"worldeval.{_HOMES[name]}"), _RENAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
