"""Raw recordings to a store: what comes out, after kills and with damage among the episodes."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from worldeval.commands.prepare import Prepare
from worldeval.data.fit import check_store
from worldeval.data.store.episodes import EpisodeStore
from worldeval.data.video import write_mp4
from worldeval.errors import ConfigError, DataError, MismatchError
from worldeval.motion.panda import panda
from worldeval.world_model.latents import LatentCache
from worldeval.world_model.prepare import PrepareConfig, open_dataset, prepare

SIZE = (24, 32)


def config(source: Path, **changes) -> PrepareConfig:
    settings = {"source": source, "image_size": SIZE, "published_latents": True, "workers": 1}
    return PrepareConfig(**(settings | changes))


def contents(out: Path) -> list[tuple]:
    """All that a store holds, in its order, with its latents."""
    store, cache = EpisodeStore.open(out), LatentCache(out, "svd")
    return [
        (
            e.key, e.instruction, e.success, e.extra, e.frames.tobytes(), e.poses.tobytes(),
            e.actions.tobytes(), e.joints.tobytes(),
            cache.read(e.key).tobytes() if e.key in cache else None,
        )
        for e in store
    ]  # fmt: skip


@pytest.fixture
def three(record_ctrl_world) -> Path:
    for identity, frames in (("2", 5), ("10", 6), ("7", 8)):
        root = record_ctrl_world(identity, frames=frames)
    return root


def test_a_store_of_the_robot_with_latents_and_percentiles(three, tmp_path, row_of):
    report = prepare(config(three), tmp_path / "out", progress=False)
    assert (report.written, report.present, report.skipped) == (3, 0, [])
    store = EpisodeStore.open(tmp_path / "out")
    check_store(store, panda(action_space="absolute_pose", image_size=SIZE))
    assert [e.key for e in store] == ["train/2", "train/7", "train/10"]
    episode = store.by_key("train/7")
    raw = open_dataset(config(three)).episode("7")
    assert np.array_equal(episode.poses, raw.poses())
    assert np.array_equal(episode.joints, raw.joints())
    assert np.array_equal(episode.actions, raw.steps())
    assert (episode.instruction, episode.success) == ("do 7", True)
    assert episode.extra["start_id"] == "train/7" and episode.extra["split"] == "train"
    assert np.abs(row_of(episode.frames) - 3 * np.arange(8)[:, None]).max() < 1.5
    cache = LatentCache(tmp_path / "out", "svd")
    assert cache.missing(store.keys) == []
    assert np.array_equal(cache.read("train/7", frames=8)[3, :, 0, 0, 0], [1, 2, 3])
    facts = json.loads((tmp_path / "out/statistics.json").read_text())
    poses = np.concatenate([e.poses for e in store])
    assert np.allclose(facts["pose_p01"], np.percentile(poses, 1, axis=0))
    assert np.allclose(facts["pose_p99"], np.percentile(poses, 99, axis=0))
    assert facts["frames"] == 19 and facts["pose_names"][-1] == "gripper"
    assert len(list((tmp_path / "out").glob("videos/*/*/*.mp4"))) == 3  # compacted


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_datasets_are_recognised(record_lerobot, tmp_path, row_of, version):
    root = record_lerobot(version, lengths=(20, 23))
    report = prepare(config(root, published_latents=False), tmp_path / "out", progress=False)
    assert report.written == 2
    episode = EpisodeStore.open(tmp_path / "out").by_key("train/1")
    assert episode.actions.shape == (7, 3, 7) and episode.joints.shape == (8, 7)
    assert np.abs(row_of(episode.frames) - 3 * np.arange(8)[:, None]).max() < 1.5
    assert not (tmp_path / "out/latents").exists()


def test_frames_are_encoded_by_an_autoencoder(three, tmp_path):
    import torch

    from worldeval.data.video import to_model
    from worldeval.world_model.autoencoder import Autoencoder, AutoencoderConfig

    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(widths=(8, 8, 8), image_size=SIZE)).eval()
    model.save(tmp_path / "model")
    settings = config(three, published_latents=False, encoder=tmp_path / "model", limit=1)
    prepare(settings, tmp_path / "out", progress=False)
    raw = open_dataset(settings).episode("2")
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(to_model(raw.images(SIZE)))).numpy()
    read = LatentCache(tmp_path / "out", settings.digest).read("train/2")
    assert np.abs(read - expected).max() < 1e-2 * np.abs(expected).max()
    # Another maker's latents must not come among them, even under the same name.
    space = tmp_path / "out/latents" / settings.digest / "space.json"
    space.write_text(space.read_text().replace("encoder ", "someone else "))
    with pytest.raises(MismatchError, match="holds latents of source 'someone else"):
        prepare(settings, tmp_path / "out", progress=False)


def test_latents_are_added_to_a_store_that_has_none(three, tmp_path):
    out = tmp_path / "out"
    prepare(config(three, published_latents=False), out, progress=False)
    before = [e.frames.tobytes() for e in EpisodeStore.open(out)]
    report = prepare(config(three), out, progress=False)
    assert report.written == 3 and len(EpisodeStore.open(out)) == 3
    assert [e.frames.tobytes() for e in EpisodeStore.open(out)] == before
    assert LatentCache(out, "svd").missing(["train/2", "train/7", "train/10"]) == []
    assert prepare(config(three), out, progress=False).present == 3


def test_resuming_gives_what_one_run_gives(three, tmp_path):
    prepare(config(three), tmp_path / "whole", progress=False)
    prepare(config(three, limit=2), tmp_path / "parts", progress=False)
    prepare(config(three), tmp_path / "parts", progress=False)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    for name in ("statistics.json", "latents/svd/index.json"):
        one, other = (json.loads((tmp_path / n / name).read_text()) for n in ("whole", "parts"))
        assert one == other


def test_a_kill_and_two_workers_change_nothing(record_ctrl_world, tmp_path):
    for identity in range(8):
        root = record_ctrl_world(str(identity), frames=5)
    settings = config(root, published_latents=False)  # they want torch, which starts slowly
    prepare(settings, tmp_path / "whole", progress=False)
    out = tmp_path / "killed"
    code = (
        "from worldeval.world_model.prepare import PrepareConfig, prepare\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        f"    prepare(PrepareConfig(source=Path({str(root)!r}), image_size={SIZE}, "
        f"workers=2), {str(out)!r}, progress=False)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    child = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    first = out / "data/chunk-000/file-000.parquet"
    while not first.exists() and child.poll() is None:
        time.sleep(0.005)
    while not list(out.glob("meta/episodes/*/*.parquet")) and child.poll() is None:
        time.sleep(0.005)
    child.kill()  # SIGKILL in the middle of writing, most likely
    child.wait()
    child.stderr.close()
    assert 0 < len(EpisodeStore.open(out)) <= 8
    prepare(settings, out, progress=False)
    assert not (out / ".coded").exists()
    assert contents(out) == contents(tmp_path / "whole")
    assert EpisodeStore.open(out).verify() == []


def damage(root: Path) -> dict[str, str]:
    """Spoil some of the episodes; id -> what must be said of each."""
    (root / "videos/train/1/2.mp4").unlink()
    path = root / "videos/train/2/0.mp4"
    path.write_bytes(path.read_bytes()[:300])
    (root / "annotation/train/3.json").write_text('{"states": ')
    write_mp4(root / "videos/train/4/1.mp4", np.zeros((3, 18, 32, 3), np.uint8), 5)
    notes = json.loads((root / "annotation/train/5.json").read_text())
    notes["observation.state.gripper_position"][0] = float("nan")
    (root / "annotation/train/5.json").write_text(json.dumps(notes))
    shutil.rmtree(root / "latent_videos/train/6")
    return {
        "1": "1/2.mp4 is missing",
        "2": "2/0.mp4 cannot be read",
        "3": "3.json cannot be read",
        "4": "4/1.mp4 has 3,",
        "5": "NaN or infinity in row 0",
        "6": "no published latents",
        "8": "4 frames are shorter than a clip of 5",
    }


def test_damaged_episodes_are_named_and_the_others_prepared(record_ctrl_world, tmp_path, capsys):
    for identity in range(8):
        root = record_ctrl_world(str(identity), frames=5)
    record_ctrl_world("8", frames=4)
    expected = damage(root)
    verb = {"source": root, "out": tmp_path / "out", "image_size": SIZE, "workers": 1}
    assert Prepare(**verb, published_latents=True).run() == 1
    assert EpisodeStore.open(tmp_path / "out").keys == {"train/0", "train/7"}
    skipped = json.loads((tmp_path / "out/skipped.json").read_text())
    said = capsys.readouterr().err
    assert [entry["id"] for entry in skipped] == list(expected)
    for entry in skipped:
        assert expected[entry["id"]] in entry["reason"]
        assert f"skipped {entry['id']}: {entry['reason']}" in said
    assert Prepare(**verb, published_latents=True, skip_damaged=True).run() == 0
    # Mended, they join the others, and nothing is left to complain of.
    for identity in range(8):
        record_ctrl_world(str(identity), frames=5)
    (root / "annotation/train/8.json").unlink()
    assert Prepare(**verb, published_latents=True).run() == 0
    assert len(EpisodeStore.open(tmp_path / "out")) == 8
    assert not (tmp_path / "out/skipped.json").exists()


def test_any_error_of_an_episode_costs_that_episode(record_ctrl_world, tmp_path, capsys):
    """Not only those that were foreseen: a path that is a number, a height beyond float32."""
    for identity in range(4):
        root = record_ctrl_world(str(identity), frames=5, latents=False)
    folder = root / "annotation/train"
    for identity, change in (
        ("2", {"videos": [{"video_path": 3}] * 3}),
        ("3", {"observation.state.joint_position": [[1e300] * 7] * 14}),
    ):
        notes = json.loads((folder / f"{identity}.json").read_text()) | change
        (folder / f"{identity}.json").write_text(json.dumps(notes))
    verb = {"source": root, "out": tmp_path / "out", "image_size": SIZE, "workers": 1}
    assert Prepare(**verb).run() == 1
    said = capsys.readouterr().err
    assert "skipped 2:" in said and "skipped 3:" in said
    assert EpisodeStore.open(tmp_path / "out").keys == {"train/0", "train/1"}
    assert Prepare(**verb).run() == 1  # and again
    assert "0 episodes prepared, 2 were there, 2 skipped" in capsys.readouterr().out


def test_an_instruction_that_is_not_known_stays_unknown(record_ctrl_world, tmp_path):
    record_ctrl_world("1", frames=5, latents=False)
    root = record_ctrl_world("2", frames=5, latents=False, texts=["nan", ""])
    settings = config(root, published_latents=False)
    report = prepare(settings, tmp_path / "out", progress=False)
    assert any("1 episodes: no instruction is known" in warning for warning in report.warnings)
    told, silent = EpisodeStore.open(tmp_path / "out")
    assert told.instruction == "do 1" and "instruction_known" not in told.extra
    assert silent.instruction == "" and silent.extra["instruction_known"] is False
    settings = config(root, published_latents=False, instruction="put it there")
    report = prepare(settings, tmp_path / "given", progress=False)
    assert not any("instruction" in warning for warning in report.warnings)
    words = [episode.instruction for episode in EpisodeStore.open(tmp_path / "given")]
    assert words == ["do 1", "put it there"]


def test_memory_that_is_lacking_is_no_fault_of_an_episode(three, tmp_path, monkeypatch):
    def greedy(*_: object) -> None:
        raise MemoryError("all of it")

    monkeypatch.setattr("worldeval.world_model.prepare_episode.as_episode", greedy)
    with pytest.raises(MemoryError):
        prepare(config(three), tmp_path / "out", progress=False)


def test_poses_outside_the_percentiles_are_reported(record_ctrl_world, tmp_path):
    root = record_ctrl_world("1", frames=8, latents=False)
    low, high = [-9.0] * 7, [9.0] * 7
    low[2], high[2] = 2.0, 3.0  # no recorded height is there
    (root / "stat.json").write_text(json.dumps({"state_01": low, "state_99": high}))
    report = prepare(config(root, published_latents=False), tmp_path / "out", progress=False)
    assert any("hand_z_m (100%)" in warning for warning in report.warnings)
    assert any("episode train/1: 100%" in warning for warning in report.warnings)
    facts = json.loads((tmp_path / "out/statistics.json").read_text())
    assert facts["share_outside_bounds"] == [0, 0, 1, 0, 0, 0, 0]
    (root / "stat.json").write_text(json.dumps({"state_01": [-9.0] * 7, "state_99": [9.0] * 7}))
    report = prepare(config(root, published_latents=False), tmp_path / "fine", progress=False)
    assert report.warnings == []


def test_settings_and_folders_that_cannot_be_used(record_ctrl_world, three, tmp_path):
    for changes, words in (
        ({"layout": "rlds"}, "'rlds'"),
        ({"image_size": (180, 320)}, "multiples of 8"),
        ({"encoder": Path("x")}, "choose one"),
        ({"workers": 0}, "workers is 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            config(three, **changes)
    with pytest.raises(DataError, match="neither annotation/"):
        prepare(config(tmp_path / "nowhere"), tmp_path / "out", progress=False)
    prepare(config(three, limit=1), tmp_path / "out", progress=False)
    with pytest.raises(MismatchError, match="image_size"):
        prepare(config(three, image_size=(16, 32)), tmp_path / "out", progress=False)
    with pytest.raises(DataError, match=r"published latents are \(3, 4\)"):
        prepare(config(three, image_size=(16, 32)), tmp_path / "other", progress=False)


def test_real_episodes_are_prepared(droid, tmp_path):
    out = tmp_path / "out"
    settings = PrepareConfig(source=droid, split="val", published_latents=True, limit=1, workers=1)
    assert prepare(settings, out, progress=False).skipped == []
    (episode,) = EpisodeStore.open(out)
    assert episode.frames.shape == (33, 3, 192, 320, 3) and episode.actions.shape == (32, 3, 7)
    assert episode.instruction == "Move the green towel to the right of the lid"
    raw = open_dataset(settings).episode("199")
    error = raw.images((192, 320)).astype(np.float32) - episode.frames
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 38  # dB, of coding the video once more
    latents = LatentCache(out, "svd").read("val/199", frames=33)
    assert latents.shape == (33, 3, 4, 24, 40)


def test_importing_prepare_needs_no_torch():
    code = "import sys, worldeval.world_model.prepare; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_frames_coded_beside_the_store_are_those_coded_by_it(episode, layout, tmp_path):
    from worldeval.data.store.coding import code_views

    given = episode(3)
    with EpisodeStore.create(tmp_path / "plain", **layout) as plain:
        plain.append(given)
    with EpisodeStore.create(tmp_path / "moved", **layout) as moved:
        coded = code_views(given.frames, layout["fps"], tmp_path / "moved/.coded/3")
        moved.append(given, coded)
    assert np.array_equal(moved.frames(0), plain.frames(0))
    statistics = [(tmp_path / name / "meta/stats.json").read_text() for name in ("plain", "moved")]
    assert statistics[0] == statistics[1]
    assert not any(path.exists() for path in coded.files)
    with (
        EpisodeStore.create(tmp_path / "png", images="lossless", **layout) as lossless,
        pytest.raises(MismatchError, match="2 coded videos, the store keeps 0"),
    ):
        lossless.append(given, coded)
