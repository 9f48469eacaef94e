"""Trust: signals are nought on true frames and grow with what is wrong in imagined ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.imagination.trust_world import CONFIG, draw, episode, recorded, training, walk
from tests.world_model.test_model import robot
from worldeval.data.checkpoint import digest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import CheckpointError, DataError, MismatchError
from worldeval.imagination.trust.calibration import signals_in
from worldeval.imagination.trust.observing import Observed
from worldeval.imagination.trust.reference import Reference, neighbour_distance
from worldeval.imagination.trust.signals import Seed, Trust, check_layout, of_verdicts, rollouts_of
from worldeval.imagination.trust.training import reading_errors, train_trust
from worldeval.rollout.recording import open_rollouts
from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig


def means(trust: Trust, some) -> dict[str, float]:
    """Signals, averaged over chunks and episodes."""
    tables = [trust.chunks(e).drop(columns="chunk").mean() for e in some]
    return (sum(tables) / len(tables)).to_dict()


def test_true_frames_kept_as_rollouts_are_have_signals_of_nought(trust, tmp_path) -> None:
    store = rollouts(tmp_path / "store", range(60, 72))
    assert store.layout.images == "video"
    signals = trust.measure(store).drop(columns=["key", "chunk"]).mean()
    for name in ("motion", "place", "motion_top", "place_wrist", "views", "blur", "jump"):
        assert abs(signals[name]) < 0.5, (name, signals[name])
    for name in ("latent_top", "latent_wrist", "pose_distance"):
        assert abs(signals[name]) < 0.7, (name, signals[name])


def test_signals_grow_with_how_far_the_seen_motion_leaves_the_commanded(trust) -> None:
    read = []
    for size in (0.0, 0.05, 0.1, 0.2):
        some = []
        for number in range(60, 66):
            _, poses = walk(number)
            drift = size * np.linspace(0, 1, len(poses))
            seen = poses + np.stack([drift, -drift, 0 * drift, 0 * drift], 1)
            some.append(episode(number, name="e", poses_seen=seen.astype(np.float32)))
        read.append(means(trust, some))
    for name in ("place", "place_top", "place_wrist"):
        values = [signals[name] for signals in read]
        assert values == sorted(values) and values[-1] > values[0] + 0.5, (name, values)
    assert read[-1]["motion"] > read[0]["motion"]


def test_views_that_tell_different_stories_disagree(trust) -> None:
    told = []
    for size in (0.0, 0.15):
        some = []
        for number in range(60, 66):
            made = episode(number, name="e")
            _, poses = walk(number)
            shifted = draw((poses + [size, 0, 0, 0]).astype(np.float32))
            made.frames[:, 1] = shifted[:, 1]
            some.append(made)
        told.append(means(trust, some))
    assert told[1]["views"] > told[0]["views"] + 0.3
    assert told[1]["place_top"] == pytest.approx(told[0]["place_top"], abs=1e-5)


def test_blur_jumps_and_strange_pictures_are_seen(trust) -> None:
    plain = [episode(n, name="e") for n in range(60, 66)]
    usual = means(trust, plain)
    rng = np.random.default_rng(0)
    flicker, blurred, strange = [], [], []
    for made in plain:
        noise = rng.integers(-60, 60, (len(made.frames), 1, 1, 1, 1))
        jumping = np.clip(made.frames.astype(int) + noise, 0, 255).astype(np.uint8)
        flicker.append(replace(made, frames=jumping))
        soft = made.frames.copy()
        soft[1:] = 40 + (soft[1:].astype(int) - 40) // 3
        blurred.append(replace(made, frames=soft))
        other = made.frames.copy()
        other[1:, :, ::2] = 255
        strange.append(replace(made, frames=other))
    assert means(trust, flicker)["jump"] > usual["jump"] + 1
    assert means(trust, blurred)["blur"] > usual["blur"] + 1
    assert means(trust, strange)["latent_top"] > usual["latent_top"] + 0.5


def test_poses_far_from_the_training_data_are_far(trust) -> None:
    made = episode(60, name="e")
    away = replace(made, poses=made.poses + np.float32([3, 0, 0, 0]))
    near, far = (trust.chunks(e)["pose_distance"].mean() for e in (made, away))
    assert far > near + 1


def test_spread_over_seeds_is_the_rms_in_percent_of_white(trust) -> None:
    made = episode(60, name="e")
    other = replace(made, frames=np.full_like(made.frames, 100))
    base = replace(made, frames=np.full_like(made.frames, 100))
    base.frames[5:9, 0] = 151  # the second chunk of the first view: 51 of 255 are 20 %
    table = trust.chunks_apart(base, [other])
    assert table["seeds_top"].tolist() == pytest.approx([0, 20, 0, 0])
    assert table["seeds_wrist"].tolist() == [0] * 4
    assert table["seeds"].tolist() == pytest.approx([0, 10, 0, 0])
    twice = trust.chunks_apart(base, [other, base])
    assert twice["seeds_top"].tolist() == pytest.approx([0, 10, 0, 0])
    with pytest.raises(DataError, match="not of the same actions"):
        trust.chunks_apart(base, [episode(61, name="other")])


def rollouts(root, numbers, **extra) -> EpisodeStore:
    with open_rollouts(root, robot(2)) as store:
        for number in numbers:
            facts = {"policy": "p", "start_id": f"s{number}", "outcome": "undecided", **extra}
            store.append(episode(number, name=f"p/s{number}", **facts))
    return EpisodeStore.open(root)


def test_a_rollout_is_the_mean_and_the_worst_of_its_chunks(trust, tmp_path) -> None:
    store = rollouts(tmp_path / "store", [60, 61])
    with EpisodeStore.open(store.root) as writing:
        writing.append(
            episode(62, name="p/bad", policy="p", start_id="bad", outcome="error", error="oh")
        )
    store = EpisodeStore.open(store.root)
    chunks = trust.measure(store)
    assert chunks.groupby("key").size().to_dict() == {"p/s60": 4, "p/s61": 4}
    table = rollouts_of(store, chunks)
    assert table["key"].tolist() == ["p/s60", "p/s61", "p/bad"]
    mine = chunks[chunks["key"] == "p/s60"]
    assert table["motion"][0] == pytest.approx(mine["motion"].mean())
    assert table["motion_most"][0] == pytest.approx(mine["motion"].max())
    assert np.isnan(table["motion"][2]), "an error has no signals"
    assert not any(table.columns.duplicated())


def test_the_judge_is_a_signal_too(trust, tmp_path) -> None:
    import pandas as pd

    table = pd.DataFrame({"key": ["b", "a"]})
    verdicts = pd.DataFrame(
        {"key": ["a", "b"], "judge": "j", "outcome": ["success", "failure"],
         "probability": [0.9, 0.4]}
    )  # fmt: skip
    others = [verdicts.assign(probability=[0.5, 0.4]), verdicts.assign(probability=[0.9, 0.8])]
    told = of_verdicts(table, verdicts, others)
    assert told["outcome"].tolist() == ["failure", "success"]
    assert told["judge_doubt"].tolist() == pytest.approx([0.8, 0.2])
    assert told["seeds_verdict"].tolist() == pytest.approx([0.2, 0.2])
    with pytest.raises(DataError, match="1 rollouts have no verdict, such as 'b'"):
        of_verdicts(table, verdicts[:1])
    with pytest.raises(DataError, match=r"lacks \['probability'\]"):
        of_verdicts(table, verdicts.drop(columns="probability"))


def test_neighbours_by_hand() -> None:
    known = np.array([[0.0, 0], [3, 4], [100, 0]])
    assert neighbour_distance(np.array([[0.0, 0]]), known) == pytest.approx([(0 + 5 + 100) / 3])


def test_a_checkpoint_comes_back_and_knows_its_autoencoder(trust, trust_folder, tmp_path) -> None:
    again = Trust.load(trust.save(tmp_path / "trust"), trust_folder / "autoencoder")
    made = episode(60, name="e")
    for name, column in trust.chunks(made).items():
        assert again.chunks(made)[name].to_numpy() == pytest.approx(column.to_numpy()), name
    assert digest(tmp_path / "trust") == digest(trust_folder / "trust")
    card = reading_errors(trust)
    assert set(card) == {"top", "wrist", "together"} and card["top"]["x"]["pose"] < 0.1
    torch.manual_seed(1)
    other = AutoencoderConfig(widths=(8, 8, 8), latent_channels=2, image_size=(16, 16))
    Autoencoder(other).save(tmp_path / "other")
    with pytest.raises(MismatchError, match="give the autoencoder that it was trained with"):
        Trust.load(trust_folder / "trust", tmp_path / "other")
    with pytest.raises(CheckpointError, match="expected 'trust'"):
        Trust.load(trust_folder / "autoencoder", trust_folder / "autoencoder")
    with pytest.raises(KeyError):
        Reference.of({})


def test_another_robot_or_other_views_are_refused(tmp_path) -> None:
    layout = recorded(tmp_path / "store", range(0)).layout
    check_layout(CONFIG, layout, "here")
    for change, said in (
        ({"robot_type": "panda"}, "robot 'panda'"),
        ({"views": ("top", "side")}, r"views \('top', 'side'\)"),
        ({"image_size": (32, 32)}, "image size"),
        ({"pose_names": ("x", "y", "z", "w")}, "pose names"),
    ):
        with pytest.raises(MismatchError, match=said):
            check_layout(CONFIG, replace(layout, **change), "here")


def trained(out: Path, folder: Path, validation: Path) -> None:
    train_trust(
        CONFIG,
        out,
        training=training(1),
        stores=[EpisodeStore.open(folder / "training")],
        validation=[EpisodeStore.open(validation)],
        autoencoder=folder / "autoencoder",
        progress=False,
    )


def test_training_and_validation_may_not_share_episodes(tmp_path, trust_folder) -> None:
    with pytest.raises(MismatchError, match="in both the training and the validation stores"):
        trained(tmp_path / "out", trust_folder, trust_folder / "training")


def test_validation_in_which_nothing_moves_is_told(tmp_path, trust_folder) -> None:
    still = replace(episode(7, name="still"), poses=np.zeros((17, 4), np.float32))
    with open_rollouts(tmp_path / "still", robot(2)) as store:
        store.append(still)
    with pytest.raises(DataError, match="too few or too much alike to tell 4 speeds apart"):
        trained(tmp_path / "out", trust_folder, tmp_path / "still")


def test_a_seed_that_is_not_complete_is_named(tmp_path) -> None:
    import pandas as pd

    seed = Seed(stores=(rollouts(tmp_path / "again", [60]),), verdicts=pd.DataFrame())
    assert seed.episode("p/s60").key == "p/s60"
    with pytest.raises(DataError, match="'p/s61' was not imagined again"):
        seed.episode("p/s61")


def test_the_recipe_of_a_signal_one_entry_reaches_every_table(trust, tmp_path, monkeypatch) -> None:
    per_frame = Trust._per_frame

    def with_mine(self: Trust, seen: Observed) -> dict[str, np.ndarray]:
        return {**per_frame(self, seen), "calm": -seen.log_change.mean(1)}

    monkeypatch.setattr(Trust, "_per_frame", with_mine)
    store = rollouts(tmp_path / "store", [60, 61])
    chunks = trust.measure(store)
    table = rollouts_of(store, chunks)
    assert table["calm"][0] == pytest.approx(chunks.loc[chunks["key"] == "p/s60", "calm"].mean())
    assert {"calm", "calm_most"} <= set(signals_in(table))
