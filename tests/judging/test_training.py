import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError
from worldeval.judging.augmentation import AugmentConfig, _blurred, augment
from worldeval.judging.classifier import SuccessClassifier
from worldeval.judging.network import JudgeConfig
from worldeval.judging.samples import FrameCache, Sampler, labels_of
from worldeval.judging.tables import judge_store
from worldeval.judging.training import JudgeTrainConfig, train_judge
from worldeval.judging.validation import recalibrate
from worldeval.types import Episode

MakeStore = Callable[..., EpisodeStore]
CONFIG = JudgeConfig(views=("front", "side"), image_size=(16, 16), channels=(8, 16, 16), hidden=32,
                     text_buckets=64, text_dim=16, lag=0, use_poses=False)  # fmt: skip
PLAIN = AugmentConfig(shift_px=0, colour=0, drift=0, blur=0, noise=0)
LOOP = replace(JudgeTrainConfig().loop, steps=160, batch=32, learning_rate=6e-3, warmup=10,
               seed=1, threads=1, report_every=20)  # fmt: skip
TRAINING = JudgeTrainConfig(loop=LOOP, stride=1, smooth=2, augmentation=PLAIN)
WORDS = {"left": ("move the dot to the left",), "right": ("move the dot to the right",)}
OPPOSED = {"left": "right", "right": "left"}


def test_overfits_the_dot_at_the_edge_named_by_text(make_store: MakeStore, tmp_path: Path) -> None:
    report = train_judge(
        CONFIG, tmp_path / "judge", training=TRAINING,
        stores=[make_store("true", range(1, 6)), make_store("dream", range(5, 7), "imagination")],
        validation=[make_store("v1", range(2, 5)), make_store("v2", range(5, 7), "imagination")],
        instructions=WORDS, opposed=OPPOSED,
    )  # fmt: skip
    overall = report.summary["overall"]
    assert overall["total"] == 4 * 5
    assert overall["accuracy"] > 0.95 and overall["abstention"] <= 0.2
    worlds = {row["world"]: row["total"] for row in report.summary["worlds"]}
    assert worlds == {"recorded": 12, "imagination": 8}
    text = (tmp_path / "judge" / "training" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == list(range(20, 161, 20))
    assert lines[-1]["loss"] < 0.2 < lines[0]["loss"]
    assert not (tmp_path / ".judge.frames").exists()

    judge = SuccessClassifier.load(tmp_path / "judge")
    unseen = make_store("new", range(7, 9))
    table = judge_store(judge, unseen, tmp_path / "verdicts.parquet")
    assert set(table["judge"]) == {judge.name} and "@" in judge.name
    right = [
        row.outcome == ("success" if row.key.split("/")[1] == row.key.split("/")[2] else "failure")
        for row in table.itertuples()
    ]
    assert np.mean(right) > 0.8

    before = judge.calibration
    again = recalibrate(tmp_path / "judge", [unseen], target=0.9)
    assert again.summary["overall"]["total"] == 8
    fresh = SuccessClassifier.load(tmp_path / "judge")
    assert fresh.calibration != before
    weights = zip(fresh.network.parameters(), judge.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_killed_training_goes_on_to_the_same_weights(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("true", range(1, 4))
    training = replace(TRAINING, loop=replace(LOOP, steps=12, save_every_s=0, report_every=3))
    arguments: dict[str, Any] = {
        "training": training, "stores": [store], "validation": [store], "instructions": WORDS,
        "opposed": OPPOSED,
    }  # fmt: skip
    train_judge(CONFIG, tmp_path / "unbroken", **arguments)

    class Killed(BaseException):
        pass

    draw = Sampler.draw

    def dying(self: Sampler, step: int) -> object:
        if step == 7:  # after the row of step 6
            raise Killed
        return draw(self, step)

    monkeypatch.setattr(Sampler, "draw", dying)
    with pytest.raises(Killed):
        train_judge(CONFIG, tmp_path / "broken", **arguments)
    drawn = []
    monkeypatch.setattr(Sampler, "draw", lambda self, step: drawn.append(step) or draw(self, step))
    train_judge(CONFIG, tmp_path / "broken", **arguments)
    assert drawn == list(range(7, 12))
    one, other = (
        load_file(tmp_path / name / "training" / "state.safetensors")
        for name in ("unbroken", "broken")
    )
    assert one["step"] == other["step"] == 12
    for name in one.keys() - {"seconds"}:
        assert torch.equal(one[name], other[name]), name
    lines = (tmp_path / "broken/training/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6, 9, 12]

    faster = replace(training, loop=replace(training.loop, learning_rate=1e-3))
    with pytest.raises(ConfigError, match="learning_rate"):
        train_judge(CONFIG, tmp_path / "broken", **{**arguments, "training": faster})


def sampler_of(store: EpisodeStore, folder: Path, **changes: Any) -> Sampler:
    cache = FrameCache.build([store], folder, ("front", "side"))
    arguments: dict[str, Any] = {
        "lag": 2, "batch": 64, "seed": 0, "solved_share": 0.5, "near_share": 0.5, "near_frames": 2,
        "opposed_share": 0.5, "rewording_share": 0.0, "instructions": WORDS, "opposed": OPPOSED,
    }  # fmt: skip
    return Sampler(cache, **{**arguments, **changes})


def test_draws_are_balanced_and_labels_true(make_store: MakeStore, tmp_path: Path) -> None:
    sampler = sampler_of(make_store("true", range(1, 4)), tmp_path / "cache")
    assert len(sampler.groups) == 4  # two tasks, two outcomes
    batch = sampler.draw(0)
    assert batch.images.shape == (64, 3, 2, 3, 16, 16) and batch.poses.shape == (64, 2, 4)
    now = batch.images[:, -1, 0].mean(axis=1)  # (B, H, W)
    dot_column = now.max(axis=1).argmax(axis=1)
    for column, label, words in zip(dot_column, batch.labels, batch.instructions, strict=True):
        there = column < 2 if words.endswith("left") else column >= 14
        assert label == there, (column, words)
    same = sampler.draw(0)
    assert np.array_equal(batch.images, same.images) and batch.instructions == same.instructions
    assert not np.array_equal(batch.labels, sampler.draw(1).labels)


def test_opposed_words_need_a_wording(make_store: MakeStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no wording"):
        sampler_of(make_store("true", range(1, 2)), tmp_path / "c", instructions={})


def test_the_cache_is_made_again_only_when_a_store_has_changed(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("true", range(1, 3))
    first = FrameCache.build([store], tmp_path / "cache", ("side",))
    assert first.frames.shape == (8 * 7, 1, 16, 16, 3)
    assert np.array_equal(first.frames[:7, 0], store.episode(0).frames[:, 1])
    monkeypatch.setattr(EpisodeStore, "episode", lambda *_: pytest.fail("decoded again"))
    FrameCache.build([store], tmp_path / "cache", ("side",))
    monkeypatch.undo()
    more = FrameCache.build([store, make_store("b", range(3, 4), "x")], tmp_path / "cache",
                            ("side",))  # fmt: skip
    assert len(more.rows) == 12

    # Other pictures under the same keys, lengths and outcomes.
    episodes = [store.episode(i) for i in range(len(store))]
    shutil.rmtree(store.root)
    again = make_store("true", range(0))
    for episode in episodes:
        episode.frames = 255 - episode.frames
        again.append(episode)
    again.close()
    cache = FrameCache.build([again], tmp_path / "cache", ("side",))
    assert np.array_equal(cache.frames[:7, 0], again.episode(0).frames[:, 1])
    assert not np.array_equal(cache.frames[:7], first.frames[:7])


def test_labels_without_flags_claim_only_what_is_known() -> None:
    def episode(success: bool | None, flags: list[bool] | None) -> Episode:
        return Episode(
            key="k", task="t", instruction="", views=("v",),
            frames=np.zeros((4, 1, 8, 8, 3), np.uint8), poses=np.zeros((4, 4), np.float32),
            actions=np.zeros((3, 3, 4), np.float32), success=success,
            success_at=None if flags is None else np.array(flags),
        )  # fmt: skip

    assert labels_of(episode(True, [False, True, False, True]))[0].tolist() == [0, 1, 1, 1]
    assert labels_of(episode(True, [False, True, False, True]))[1].tolist() == [0, 1, 0, 1]
    assert labels_of(episode(True, None))[0].tolist() == [-1, -1, -1, 1]
    assert labels_of(episode(False, None))[0].tolist() == [0, 0, 0, 0]
    assert labels_of(episode(None, None))[0].tolist() == [-1, -1, -1, -1]


def test_training_needs_both_outcomes(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("true", range(1, 2))
    cache = FrameCache.build([store], tmp_path / "cache", ("front",))
    cache.rows = [row for row in cache.rows if row.success]
    with pytest.raises(DataError, match="successes and failures"):
        Sampler(cache, lag=0, batch=2, seed=0, solved_share=0.5, near_share=0.5, near_frames=2,
                opposed_share=0, rewording_share=0, instructions={}, opposed={})  # fmt: skip


def test_augmentation_moves_all_moments_alike_and_spares_the_start() -> None:
    rng = np.random.default_rng(0)
    images = torch.zeros(8, 2, 2, 3, 16, 16) - 0.5
    images[..., 8, 8] = 0.5
    shifted = augment(images, AugmentConfig(shift_px=2, colour=0, drift=0, blur=0, noise=0), rng)
    peaks = shifted[:, :, :, 0].flatten(-2).argmax(-1)  # (B, moments, V)
    assert torch.equal(peaks[:, 0], peaks[:, 1]) and len(peaks.unique()) > 4
    rows, columns = peaks // 16, peaks % 16
    assert (rows - 8).abs().max() <= 2 and (columns - 8).abs().max() <= 2

    blurred = augment(images, AugmentConfig(shift_px=0, colour=0, drift=0, blur=1, noise=0.1), rng)
    assert torch.equal(blurred[:, 0], images[:, 0])
    assert (blurred[:, 1] != images[:, 1]).any(dim=-1).any()
    assert torch.equal(augment(images, PLAIN, rng), images)


def test_blur_of_a_point_is_the_binomial_kernel() -> None:
    image = torch.zeros(1, 1, 1, 1, 9, 9)
    image[..., 4, 4] = 1
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7] = taps[:, None] * taps
    torch.testing.assert_close(_blurred(image)[0, 0, 0, 0], expected)
    torch.testing.assert_close(_blurred(torch.ones(1, 1, 1, 1, 6, 6)), torch.ones(1, 1, 1, 1, 6, 6))
