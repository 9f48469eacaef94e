"""From a LeRobot dataset of any robot to a ranking, by the command line alone.

Everything is as small as it may be; what is shown is that no verb has to be told of the robot.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.readers.robot_made import ALOHA, SO101, Made, make_robot_dataset
from worldeval.cli import main
from worldeval.data.fit import robot_of_checkpoint
from worldeval.data.store.episodes import EpisodeStore
from worldeval.worlds.named import robot_of_store

LOOP = "--loop.steps 2 --loop.batch 2 --loop.device cpu --loop.threads 1"
CASES = (
    pytest.param(SO101, "v3.0", id="so101-v3.0"),
    pytest.param(SO101, "v2.1", id="so101-v2.1"),
    pytest.param(ALOHA, "v3.0", id="aloha-v3.0"),
)


@pytest.mark.heavy
@pytest.mark.parametrize(("kind", "version"), CASES)
def test_from_dataset_to_ranking(
    kind: Made, version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_robot_dataset(tmp_path / "source", kind, version, (61, 55, 61, 55))
    store, judge = tmp_path / "store", tmp_path / "judge"
    autoencoder, world = tmp_path / "autoencoder", tmp_path / "world-model"
    policy, rollouts = tmp_path / "policy", tmp_path / "rollouts"

    def run(words: str, expected: int = 0) -> None:
        code = main(words.split())
        assert code == expected, capsys.readouterr().err

    run(f"prepare --source {source} --out {store} --image-size 32 32 --workers 1")
    sizes = "--model.widths 8 8 8 --model.image-size 32 32"
    run(f"train autoencoder --store {store} --out {autoencoder} {sizes} {LOOP}")
    run(f"train world-model --store {store} --autoencoder {autoencoder} --out {world} {LOOP}")
    imagined = f"--world-model {world} --starts {store} --sampler-steps 1"
    run(f"replay --store {store} --chunks 1 --out {tmp_path / 'replay'} {imagined}")
    small = "--channels 8 8 8 --hidden 8 --labels executed"
    run(f"train policy --store {store} --out {policy} {small} {LOOP}")
    run(f"train judge --store {store} --validation {store} --out {judge} {LOOP}")
    run(f"rollout --policy {policy} --policy zero --chunks 1 --out {rollouts} {imagined}")
    run(f"judge {rollouts} --judge {judge}")
    run(f"rank {rollouts} --out {tmp_path / 'ranking'}")
    made = (autoencoder, world, policy, judge)
    kept = robot_of_store(EpisodeStore.open(store))
    assert [robot_of_checkpoint(folder) for folder in made] == [kept] * len(made)
    board = json.loads((tmp_path / "ranking/leaderboard.json").read_text())
    assert {row["name"] for row in board["policies"]} == {"policy", "zero"}
