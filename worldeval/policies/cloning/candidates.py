"""The shipped candidates: recipes for policies of truly different quality.

Enters: nothing. Leaves: settings of ``BCTrainConfig`` by name, from the best to the worst as far as
one can guess; how good each truly is, only the truth can say. Each spoils one thing that is also
spoilt in real life: few demonstrations, sloppy or slow ones, a missing camera, no ear for the
instruction, no sense of the own arm, training stopped early.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worldeval.errors import ConfigError
from worldeval.policies.cloning.config import BCTrainConfig


def candidates() -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from the defaults; ``steps`` are those of the loop."""
    return {
        "full": {"steps": 1800},
        "no-wrist": {"steps": 900, "cameras": ("left", "right")},
        "no-state": {"steps": 700, "demonstrations": 24, "use_state": False},
        "short": {"steps": 500},
        "one-eye": {"steps": 600, "demonstrations": 12, "cameras": ("left",)},
        "few-data": {"steps": 500, "demonstrations": 6},
        "deaf": {"steps": 800, "use_text": False},
        "slow": {"steps": 600, "demonstrations": 24, "label_gain": 0.4},
        "sloppy": {
            "steps": 600,
            "demonstrations": 8,
            "kinds": ("noisy",),
            "only_successful": True,
            "labels": "executed",
            "label_noise": 0.6,
        },
        "very-short": {"steps": 250},
        "tiny-data": {"steps": 300, "demonstrations": 2},
        "stopped-early": {"steps": 100},
    }


def candidate_configs(store: str, **shared: Any) -> dict[str, BCTrainConfig]:
    """The candidates as configurations on ``store``; ``shared`` settings apply to all of them,
    below each one's own."""
    base = BCTrainConfig(store=store, **shared)
    return {
        name: replace(base, loop=replace(base.loop, steps=settings.pop("steps")), **settings)
        for name, settings in candidates().items()
    }


def candidate_config(name: str, store: str, **shared: Any) -> BCTrainConfig:
    """One candidate's configuration."""
    configs = candidate_configs(store, **shared)
    if name not in configs:
        raise ConfigError(f"unknown candidate {name!r}, expected one of {', '.join(configs)}")
    return configs[name]
