import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import CheckpointError, ConfigError, MismatchError
from worldeval.judging.augmentation import AugmentConfig
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.network import JudgeConfig, JudgeNetwork
from worldeval.judging.probability import Calibration
from worldeval.judging.progress import ProgressJudge, done_logit
from worldeval.judging.progress_training import ProgressTrainConfig, train_progress
from worldeval.judging.samples import FrameCache, Sampler
from worldeval.judging.survival import DistanceBins
from worldeval.judging.tables import judge_store
from worldeval.judging.validation import recalibrate

MakeStore = Callable[..., EpisodeStore]
BINS = (0, 1, 2, 3, 5)
CONFIG = JudgeConfig(views=("front", "side"), image_size=(16, 16), channels=(8, 16, 16), hidden=32,
                     text_buckets=64, text_dim=16, lag=0, use_poses=False)  # fmt: skip
PLAIN = AugmentConfig(shift_px=0, colour=0, drift=0, blur=0, noise=0)
LOOP = replace(ProgressTrainConfig().loop, steps=200, batch=32, learning_rate=6e-3, warmup=10,
               seed=1, threads=1, report_every=20)  # fmt: skip
TRAINING = ProgressTrainConfig(loop=LOOP, stride=1, smooth=1, augmentation=PLAIN, bins=BINS)
WORDS = {"left": ("move the dot to the left",), "right": ("move the dot to the right",)}
OPPOSED = {"left": "right", "right": "left"}


def toy_judge(**settings: Any) -> ProgressJudge:
    torch.manual_seed(0)
    network = JudgeNetwork(replace(CONFIG, outputs=len(BINS)))
    return ProgressJudge(network, Calibration(), bins=BINS, **settings)


def test_it_learns_how_far_the_dot_is_from_the_edge(make_store: MakeStore, tmp_path: Path) -> None:
    report = train_progress(
        CONFIG, tmp_path / "progress", training=TRAINING,
        stores=[make_store("true", range(1, 6)), make_store("dream", range(5, 7), "imagination")],
        validation=[make_store("v1", range(2, 5)), make_store("v2", range(5, 7), "imagination")],
        instructions=WORDS, opposed=OPPOSED, progress=False,
    )  # fmt: skip
    overall = report.summary["overall"]
    assert overall["total"] == 4 * 5 and overall["accuracy"] > 0.9
    assert overall["abstention"] <= 0.2
    text = (tmp_path / "progress" / "training" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] and lines[-1]["frames_off"] < 1

    judge = ProgressJudge.load(tmp_path / "progress")
    assert judge.bins.starts == BINS and judge.name.startswith("progress-judge@")
    unseen = make_store("new", range(7, 9))
    toward = unseen.episode(0)  # left, to the left: solved at frame 5
    away = unseen.episode(1)  # left, to the right
    assert np.abs(judge.frames_to_go(toward) - [5, 4, 3, 2, 1, 0, 0])[1:].mean() < 1.2
    progress = judge.progress(toward)
    assert progress.shape == (7,) and progress.dtype == np.float32
    assert progress[-1] > 0.8 > 0.5 > progress[0] and progress.max() <= 1
    assert judge.progress(away)[-1] < 0.4 and judge.progress(away).min() >= 0
    reward = judge.reward(toward)
    assert reward.shape == (6,) and reward.dtype == np.float32
    assert reward.sum() == pytest.approx(progress[-1] - progress[0], abs=1e-6)

    table = judge_store(judge, unseen)
    right = [
        row.outcome == ("success" if row.key.split("/")[1] == row.key.split("/")[2] else "failure")
        for row in table.itertuples()
    ]
    assert np.mean(right) > 0.8
    assert table["reason"].str.contains(r"^[01]\.\d\d of the way at frame \d").all()
    recalibrate(tmp_path / "progress", [unseen])  # the same way as for a classifier


def test_a_killed_training_goes_on_to_the_same_weights(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("true", range(1, 4))
    training = replace(TRAINING, loop=replace(LOOP, steps=8, save_every_s=0, report_every=4))
    arguments: dict[str, Any] = {
        "training": training, "stores": [store], "validation": [store], "instructions": WORDS,
        "opposed": OPPOSED, "progress": False,
    }  # fmt: skip
    train_progress(CONFIG, tmp_path / "unbroken", **arguments)

    class Killed(BaseException):
        pass

    draw = Sampler.draw

    def dying(self: Sampler, step: int) -> object:
        if step == 5:
            raise Killed
        return draw(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(Sampler, "draw", dying)
        with pytest.raises(Killed):
            train_progress(CONFIG, tmp_path / "broken", **arguments)
    train_progress(CONFIG, tmp_path / "broken", **arguments)
    one, other = (
        load_file(tmp_path / name / "training" / "state.safetensors")
        for name in ("unbroken", "broken")
    )
    assert one["step"] == other["step"] == 8
    for name in one.keys() - {"seconds"}:
        assert torch.equal(one[name], other[name]), name
    coarser = replace(training, bins=(0, 1, 2, 4, 5))
    with pytest.raises(ConfigError, match="bins"):
        train_progress(CONFIG, tmp_path / "broken", **{**arguments, "training": coarser})


def test_it_can_go_on_from_a_classifier(make_store: MakeStore, tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = SuccessClassifier(JudgeNetwork(CONFIG), Calibration())
    classifier.save(tmp_path / "classifier")
    store = make_store("true", range(1, 3))
    training = replace(
        TRAINING, start_from=tmp_path / "classifier",
        loop=replace(LOOP, steps=1, learning_rate=1e-9, weight_decay=0.0),
    )  # fmt: skip
    arguments: dict[str, Any] = {"stores": [store], "validation": [store], "instructions": WORDS,
                                 "opposed": OPPOSED, "progress": False}  # fmt: skip
    train_progress(CONFIG, tmp_path / "progress", training=training, **arguments)
    judge = ProgressJudge.load(tmp_path / "progress")
    earlier = SuccessClassifier.load(tmp_path / "classifier").network.state_dict()
    for name, tensor in judge.network.state_dict().items():
        if not name.startswith("answer."):
            assert torch.allclose(tensor, earlier[name], atol=1e-4), name
    assert judge.network.answer.weight.shape == (5, 32)
    with pytest.raises(MismatchError, match="start from a judge of the same views"):
        train_progress(
            replace(CONFIG, hidden=48), tmp_path / "wider", training=training, **arguments
        )


def test_draws_know_their_distance_or_how_long_nothing_came(
    make_store: MakeStore, tmp_path: Path
) -> None:
    cache = FrameCache.build([make_store("true", range(1, 4))], tmp_path / "cache", ("front",))
    sampler = Sampler(
        cache, lag=0, batch=256, seed=0, solved_share=0.3, near_share=0.0, near_frames=1,
        opposed_share=0.3, rewording_share=0.0, instructions=WORDS, opposed=OPPOSED,
    )  # fmt: skip
    batch = sampler.draw(0)
    dot = batch.images[:, -1, 0].mean(axis=1).max(axis=1).argmax(axis=1)  # (B,) its column
    steps = np.array([0, 1, 2, 3, 5, 7, 7])  # of the walk; it is solved from frame 5 on
    opposed = 0
    for column, distance, known, words in zip(
        dot, batch.distances, batch.known, batch.instructions, strict=True
    ):
        # The dot is two columns wide: in the middle, at 7, both ways are open.
        walked = 7 - column if words.endswith("left") else column - 7
        if known:
            assert steps[5 - distance] == walked, (column, distance)
        elif walked == -7 and distance == 0:
            opposed += 1  # at the other edge, or there with the opposite words
        else:
            assert distance == 6 - np.flatnonzero(steps == -walked)[0] or walked == -7
    assert np.array_equal(batch.labels == 1, batch.known & (batch.distances == 0))
    assert 0.3 < batch.known.mean() < 0.6 and opposed > 10


def test_done_is_the_odds_of_the_first_bin() -> None:
    logits = np.array([[2.0, 0.0, 1.0], [-500.0, 500.0, 0.0], [900.0, -900.0, 0.0]])
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    got = done_logit(logits)
    assert got[0] == pytest.approx(np.log(p[0] / (1 - p[0])))
    assert got[1:].tolist() == [-1000.0, 900.0]


def test_long_episodes_do_not_depend_on_how_they_are_cut(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, episode = toy_judge(), make_store("s", range(1, 2)).episode(0)
    whole = judge.progress(episode)
    monkeypatch.setattr("worldeval.judging.learned.FRAMES_AT_ONCE", 2)
    np.testing.assert_allclose(judge.progress(episode), whole, atol=1e-5)
    assert judge.progress(replace(episode, frames=episode.frames[:1])).shape == (1,)


def test_a_checkpoint_of_another_kind_or_shape_is_refused(tmp_path: Path) -> None:
    toy_judge().save(tmp_path / "progress")
    with pytest.raises(CheckpointError, match="holds a 'progress-judge' checkpoint"):
        SuccessClassifier.load(tmp_path / "progress")
    with pytest.raises(ConfigError, match="5 outputs, expected 8"):
        ProgressJudge(toy_judge().network, Calibration())
    with pytest.raises(ConfigError, match="starts is"):
        ProgressTrainConfig(bins=(0, 5))
    config = (tmp_path / "progress/config.json").read_text()
    (tmp_path / "progress/config.json").write_text(config.replace('"outputs": 5', '"outputs": 4'))
    with pytest.raises(CheckpointError, match="does not fit"):
        ProgressJudge.load(tmp_path / "progress")
    assert DistanceBins(starts=BINS).count == 5
