"""``worldeval trust``: tables beside the verdicts, second imaginations that resume, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.imagination.trust_world import recorded
from tests.world_model.test_model import autoencoder, model, robot
from worldeval.commands.trust import Trust as Verb
from worldeval.data.provenance import write_manifest
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.evaluation import trust as trust_tables
from worldeval.evaluation.folder import VERDICTS, read_trust
from worldeval.evaluation.opening import ImaginationOptions, stores_in
from worldeval.imagination.env import Imagination
from worldeval.imagination.replay import imagine_replays
from worldeval.imagination.trust.other_seeds import imagine_again
from worldeval.imagination.trust.signals import Trust
from worldeval.types import Outcome, Verdict
from worldeval.world_model.latent_rollout import FrameRollouts


class Bright:
    """A judge by brightness, so that verdicts differ between seeds."""

    name = "bright"

    def judge(self, episodes):
        told = []
        for episode in episodes:
            p = float(episode.frames[-1].mean() / 255)
            said = Outcome.SUCCESS if p > 0.5 else Outcome.FAILURE
            told.append(Verdict(key=episode.key, outcome=said, probability=p, judge=self.name))
        return told


@pytest.fixture
def starts(tmp_path) -> EpisodeStore:
    return recorded(tmp_path / "starts", range(3))


@pytest.fixture
def world(starts) -> Imagination:
    return Imagination(FrameRollouts(model(), autoencoder()), robot(), starts)


@pytest.fixture
def folder(tmp_path, world, starts, trust_folder, monkeypatch) -> Path:
    """Two judged stores of rollouts, in the world of ``world``; the verb's doors lead there."""
    for name in ("own", "zero"):
        place = tmp_path / "runs" / "rollouts" / name
        store = imagine_replays(world, starts, place, variant=name, chunks=2, progress=False)
        trust_tables.write_table(
            trust_tables.kept_verdicts(Bright(), store), place / trust_tables.VERDICTS
        )
    config = {"world_model": "this-one", "imagination": {"solver": None}}
    write_manifest(tmp_path / "runs", command="rollout", config=config, seed=0)
    monkeypatch.setattr(trust_tables, "open_imagination", lambda options: world)
    monkeypatch.setattr(trust_tables, "fingerprint", lambda uri: "this-one")
    monkeypatch.setattr("worldeval.judging.loading.load_judge", lambda uri: Bright())
    return tmp_path / "runs"


@pytest.fixture
def verb(folder, trust_folder) -> Verb:
    return Verb(
        folder=folder,
        checkpoint=trust_folder / "trust",
        autoencoder=trust_folder / "autoencoder",
        threads=1,
    )


def table(folder: Path, name: str = "own") -> pd.DataFrame:
    return pd.read_parquet(folder / "rollouts" / name / "trust.parquet")


def test_tables_lie_beside_the_verdicts_and_are_measured_once(verb, folder, monkeypatch, capsys):
    verb.run()
    told = table(folder)
    assert told.columns[:4].tolist() == ["key", "policy", "task", "start_id"]
    assert {"motion", "place_top", "latent_wrist", "judge_doubt", "distrust"} <= set(told)
    assert np.isfinite(told["motion"]).all() and told["trusted"].isna().all()
    assert read_trust(folder) is None, "without a calibration there is nobody to distrust"
    chunks = pd.read_parquet(folder / "rollouts" / "own" / "trust-chunks.parquet")
    assert len(chunks) == 3 * 2 and chunks["chunk"].max() == 1
    assert "no calibration" in capsys.readouterr().out
    monkeypatch.setattr(Trust, "measure", lambda *_: pytest.fail("it was measured already"))
    verb.run()
    pd.testing.assert_frame_equal(table(folder), told)


def test_second_imaginations_add_their_signals(verb, folder, monkeypatch):
    verb.run()
    monkeypatch.setattr(Trust, "measure", lambda *_: pytest.fail("frames were measured already"))
    replace(verb, seeds=1).run()
    told = table(folder)
    assert (told["seeds"] > 0).all() and (told["seeds_top_most"] >= told["seeds_top"]).all()
    again = EpisodeStore.open(folder / "again" / "1" / "own")
    assert again.keys == set(told["key"])
    assert told["seeds_verdict"].notna().all()
    given = replace(verb, again=(folder / "again" / "1",))
    given.run()
    pd.testing.assert_frame_equal(table(folder), told)
    verb.run()
    assert "seeds" not in table(folder), "signals are of the seeds that were asked for"


def test_an_interrupted_second_imagination_goes_on(world, starts, tmp_path):
    rollouts = imagine_replays(world, starts, tmp_path / "r", chunks=2, progress=False)
    settings = {"batch": 1, "progress": False}
    whole = imagine_again(world, rollouts, tmp_path / "whole", **settings)
    step, calls = world.step, []

    def failing(chunk, rows):
        calls.append(rows)
        if len(calls) == 4:  # in the middle of the second rollout
            raise KeyboardInterrupt
        return step(chunk, rows)

    world.step = failing
    with pytest.raises(KeyboardInterrupt):
        imagine_again(world, rollouts, tmp_path / "parts", **settings)
    assert len(EpisodeStore.open(tmp_path / "parts")) == 1
    parts = imagine_again(world, rollouts, tmp_path / "parts", **settings)
    assert parts.keys == whole.keys == rollouts.keys
    for key in rollouts.keys:
        first, second = rollouts.by_key(key), parts.by_key(key)
        assert np.array_equal(second.frames, whole.by_key(key).frames)
        assert np.allclose(first.poses, second.poses) and np.array_equal(
            first.actions, second.actions
        )
        assert first.extra["seed"] != second.extra["seed"]
        assert not np.array_equal(first.frames[1:], second.frames[1:])
    other = imagine_again(world, rollouts, tmp_path / "two", number=2, **settings)
    key = min(rollouts.keys)
    assert not np.array_equal(other.by_key(key).frames, whole.by_key(key).frames)


def test_what_was_rolled_out_anew_is_imagined_and_measured_anew(
    verb, folder, world, starts, tmp_path, monkeypatch
):
    replace(verb, seeds=1).run()
    place = folder / "rollouts" / "own"
    before, tables = table(folder), {}
    for name in ("trust-chunks.parquet", "trust.parquet", VERDICTS):
        tables[name] = (place / name).read_bytes()
    shutil.rmtree(place)
    imagine_replays(world, starts, tmp_path / "s", variant="shuffled", chunks=2, progress=False)
    shuffled = EpisodeStore.open(tmp_path / "s")
    layout = {n: v for n, v in vars(shuffled.layout).items()}
    with EpisodeStore.create(place, **layout) as store:  # other actions under the names of "own"
        for episode in shuffled:
            extra = episode.extra | {"policy": "own"}
            key = episode.key.replace("shuffled/", "own/")
            store.append(replace(episode, key=key, extra=extra))
    for name, content in tables.items():
        (place / name).write_bytes(content)
    with pytest.raises(MismatchError, match="holds other rollouts than `worldeval judge` saw"):
        verb.run()
    with pytest.raises(MismatchError, match="than `worldeval trust` saw"):
        read_trust(folder)
    trust_tables.write_table(trust_tables.kept_verdicts(Bright(), store), place / VERDICTS)
    with pytest.raises(ConfigError, match="with other actions than .* delete"):
        replace(verb, seeds=1).run()
    verb.run()
    assert not np.allclose(table(folder)["motion"], before["motion"])


def truth_for(folder: Path, tmp_path: Path) -> Path:
    tables = [pd.read_parquet(p) for p in sorted(folder.glob("rollouts/*/verdicts.parquet"))]
    whole = pd.concat(tables, ignore_index=True)
    whole["outcome"] = ["success", "failure", "failure"] * 2  # some are right, some are wrong
    other = {"success": "failure", "failure": "success"}
    said = pd.concat(tables, ignore_index=True)["outcome"]
    whole["outcome"] = [other[o] if i % 3 == 0 else o for i, o in enumerate(said)]
    path = tmp_path / "truth.parquet"
    whole.to_parquet(path)
    return path


def test_measured_against_the_truth_and_applied_elsewhere(verb, folder, tmp_path, capsys):
    truth = truth_for(folder, tmp_path)
    replace(verb, truth=truth, out=tmp_path / "cal").run()
    content = json.loads((tmp_path / "cal" / "trust.json").read_text())
    assert content["world_model"] == "this-one" and content["judges"] == ["bright"]
    assert "| motion |" in (tmp_path / "cal" / "trust.md").read_text()
    assert read_trust(folder) is None, "rollouts are not doubted by what was fitted to them"
    replace(verb, calibration=tmp_path / "cal").run()
    told = read_trust(folder)
    assert told is not None and told["distrust"].between(0, 1).all()
    capsys.readouterr()
    replace(verb, calibration=tmp_path / "cal", truth=truth).run()
    said = capsys.readouterr().out
    assert "mean absolute error" in said and "| motion |" in said


def test_the_checkpoints_own_calibration_for_others_leaves_the_signals(
    verb, folder, tmp_path, trust_folder, capsys
):
    """A judge of one's own is no reason to have no signals; a calibration that was given is."""
    replace(verb, truth=truth_for(folder, tmp_path), out=tmp_path / "cal").run()
    content = json.loads((tmp_path / "cal" / "trust.json").read_text())
    own = shutil.copytree(trust_folder, tmp_path / "own") / "trust"
    (own / "trust.json").write_text(json.dumps({**content, "judges": ["another"]}))
    replace(verb, checkpoint=own).run()
    assert "signals alone: trust was calibrated for judge" in capsys.readouterr().out
    table = pd.read_parquet(folder / "rollouts" / "own" / "trust.parquet")
    assert table["trusted"].isna().all() and table["motion"].notna().any()
    with pytest.raises(MismatchError, match="calibrated for judge"):
        replace(verb, calibration=own).run()


def test_doubts_of_other_verdicts_are_not_used(verb, folder, tmp_path):
    replace(verb, truth=truth_for(folder, tmp_path), out=tmp_path / "cal").run()
    replace(verb, calibration=tmp_path / "cal").run()
    for place in stores_in(folder):
        table = pd.read_parquet(place / VERDICTS)
        table.assign(judge="another").to_parquet(place / VERDICTS)
    with pytest.raises(MismatchError, match=r"judged by \['another'\], but trust.parquet doubts"):
        read_trust(folder)


def test_true_frames_of_the_same_actions_give_true_errors(verb, folder, tmp_path, world):
    truth = truth_for(folder, tmp_path)
    for name in (
        "own",
        "zero",
    ):  # the imagined rollout itself, carried out: no error, and its own outcome
        store = EpisodeStore.open(folder / "rollouts" / name)
        with EpisodeStore.create(
            tmp_path / "acted" / name, **{**vars(store.layout), "images": "lossless"}
        ) as acted:
            for episode in store:
                facts = {**episode.extra, "outcome": "success"}
                acted.append(replace(episode, extra=facts))
    errors = trust_tables.read_acted(tmp_path / "acted", [folder / "rollouts" / "own"], 4)[1]
    assert errors.groupby("key").size().tolist() == [2, 2, 2] and errors["mse"].max() == 0
    replace(verb, truth=truth, acted=tmp_path / "acted", out=tmp_path / "cal").run()
    rows = json.loads((tmp_path / "cal" / "trust.json").read_text())["measured"]
    assert all(row["against_actions"] is not None for row in rows)


def test_what_does_not_fit_is_refused_in_a_sentence(verb, folder, tmp_path, monkeypatch):
    truth = truth_for(folder, tmp_path)
    replace(verb, truth=truth, out=tmp_path / "cal").run()
    path = tmp_path / "cal" / "trust.json"
    content = json.loads(path.read_text())
    calibrated = replace(verb, calibration=path)

    path.write_text(json.dumps({**content, "world_model": "that-one"}))
    with pytest.raises(MismatchError, match="calibrated for world model 'that-one'"):
        calibrated.run()
    path.write_text(json.dumps({**content, "instrument": "x"}))
    with pytest.raises(MismatchError, match="trust checkpoint 'x'"):
        calibrated.run()
    with pytest.raises(ConfigError, match="cannot be read"):
        replace(verb, calibration=tmp_path / "nowhere.json").run()
    with pytest.raises(MismatchError, match="imagined with solver None, now it is 'heun'"):
        replace(verb, seeds=1, imagination=ImaginationOptions(solver="heun")).run()
    monkeypatch.setattr(trust_tables, "fingerprint", lambda uri: "that-one")
    with pytest.raises(MismatchError, match="was imagined by world model this-one"):
        replace(verb, seeds=1).run()
    monkeypatch.setattr(Bright, "name", "other")
    with pytest.raises(MismatchError, match=r"judged by \['bright'\]"):
        replace(verb, seeds=1).run()
    with pytest.raises(ConfigError, match="seeds is -1"):
        replace(verb, seeds=-1).run()
    with pytest.raises(ConfigError, match="give --truth too"):
        replace(verb, out=tmp_path / "cal").run()
    (folder / "rollouts" / "own" / "verdicts.parquet").unlink()
    with pytest.raises(DataError, match="is not judged"):
        verb.run()
