"""A small synthesis and a small recorded store, made without a world model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldeval import CameraSpec, EpisodeStore, Evaluation, RobotSpec
from worldeval.data.fit import robot_extra, store_fields
from worldeval.synthesis.dataset import Relabelled, write_dataset
from worldeval.synthesis.measuring import measure
from worldeval.synthesis.rules import chosen_rule
from worldeval.synthesis.selecting import Funnel, select
from worldeval.synthesis.showing import write_funnel

from .conftest import EVIL, VIEWS, judge, make_episode


def toy_robot() -> RobotSpec:
    """The robot of ``make_episode``."""
    level = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return RobotSpec(
        name="toy",
        action_space="toy-delta-position",
        action_names=("dx", "dy", "gripper"),
        action_low=(-1.0,) * 3,
        action_high=(1.0,) * 3,
        pose_names=("x_m", "y_m", "gripper"),
        pose_low=(-9.0,) * 3,
        pose_high=(9.0,) * 3,
        action_scale_m=0.01,
        control_hz=20.0,
        steps_per_frame=2,
        frames_per_chunk=4,
        image_size=(32, 32),
        cameras=tuple(
            CameraSpec(
                name=name, mount="fixed", fovy_rad=0.9, position_m=(0.0, 0.0, 1.0), rotation=level
            )
            for name in VIEWS
        ),
    )


def write_synthesis(
    out: Path,
    select_by: tuple[str, ...] = ("success", "distinct"),
    relabelled: Mapping[str, Relabelled] | None = None,
) -> Funnel:
    """12 imagined rollouts of two policies; those of "good" are judged solved, those of the other,
    whose name and instruction are a script, are not."""
    robot = toy_robot()
    facts = {"kind": "rollouts", **robot_extra(robot)}
    with EpisodeStore.create(out / "imagined", **store_fields(robot), extra=facts) as store:
        for policy in ("good", EVIL):
            for number in range(6):
                episode = make_episode(policy, number, group=str(number), noise=0.0)
                instruction = f"{EVIL} {episode.instruction}"
                store.append(replace(episode, instruction=instruction))
    judge(out / "imagined", {"good": "success", EVIL: "failure"})
    rules = [chosen_rule(text) for text in select_by]
    funnel = select(measure(Evaluation.open(out / "imagined"), ()), rules)
    told = {"judge": "stand-in@1", "imagined": str(out / "imagined")}
    imagined = EpisodeStore.open(out / "imagined")
    write_funnel(out, imagined, funnel, relabelled or {}, told)
    if funnel.kept:
        write_dataset(out / "dataset", imagined, funnel, facts=told, relabelled=relabelled)
    return funnel


def write_recordings(place: Path) -> None:
    """8 recorded episodes, of which the last stands still."""
    robot = toy_robot()
    with EpisodeStore.create(place, **store_fields(robot), extra=robot_extra(robot)) as store:
        for number in range(8):
            made = make_episode("ann", 2 * number)
            poses = made.poses if number < 7 else np.repeat(made.poses[:1], len(made.poses), 0)
            store.append(replace(made, poses=poses, success=number % 2 == 0, extra={}))
