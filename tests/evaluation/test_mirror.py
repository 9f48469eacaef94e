"""A run at a URL: real bytes over HTTP to a server that speaks S3, and what goes wrong between."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import fsspec
import pytest

from tests.evaluation.network import Proxy
from tests.evaluation.test_execution import ran, same, words
from worldeval import cli
from worldeval.data.mirror import Mirror
from worldeval.data.remote import RemoteFolder, url_of
from worldeval.data.store.episodes import EpisodeStore
from worldeval.errors import ConfigError, MismatchError, MissingDependencyError, StoreError
from worldeval.evaluation.execution import mirroring
from worldeval.evaluation.execution.mirroring import mirrored
from worldeval.evaluation.execution.parts import held_keys

__all__ = ["words"]
# Of aiohttp and botocore: connections that they leave to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def few(words: list[str]) -> list[str]:
    """Four rollouts."""
    return [*words, "--per-task=1"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mirroring, "EVERY_S", 0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a server that speaks S3."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed: `make setup`")
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.close()


@pytest.fixture
def bucket(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a folder in an empty bucket of its own."""
    pytest.importorskip("s3fs")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}"),
    ):
        monkeypatch.setenv(name, value)
    name = f"results-{proxy.port}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/night"


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    return fs, str(root)


@pytest.fixture(params=["s3", "memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    return "memory://night/one" if request.param == "memory" else f"file://{tmp_path}/there/night"


def test_a_run_lies_there_as_it_lies_here_and_can_be_read_from_there(
    url: str, tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one"
    ran("rollout", *few, "--out", out, "--mirror", url, "--shard=1/2")
    fs, root = filesystem(url)
    assert fs.exists(f"{root}/.parts/shard-1-of-2/meta/info.json")
    ran("evaluate", *few, "--out", out, "--mirror", url)
    fs.invalidate_cache()
    there = {name[len(root) :].strip("/"): name for name in fs.find(root)}
    here = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert {n for n in here if not n.startswith(".")} == {n for n in there if n[0] != "."}
    assert not any(".parts" in name for name in there)
    for name in here & there.keys():
        content = (out / name).read_bytes()
        mark = fs.info(there[name]).get("ETag")  # S3 tells the MD5 of what it has
        if mark is None:
            assert fs.cat_file(there[name]) == content, name
        else:
            assert mark.strip('"') == hashlib.md5(content).hexdigest(), name
    ran("status", url)
    assert "4 of 4 rollouts, all made" in capsys.readouterr().out
    ran("rank", out, "--out", tmp_path / "ranked")
    ran("rank", url, "--out", tmp_path / "ranked-there")
    boards = [tmp_path / n / "leaderboard.json" for n in ("ranked", "ranked-there")]
    assert boards[0].read_text() == boards[1].read_text()
    ran("gather", tmp_path / "again", "--from", url)
    ran("evaluate", *few, "--out", tmp_path / "again")
    same(out, tmp_path / "again")


def test_another_machine_goes_on_from_there(
    tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = f"file://{tmp_path}/there"
    ran("rollout", *few, "--out", tmp_path / "first", "--mirror", bucket)
    shutil.rmtree(tmp_path / "first")
    count = len(held_keys_at(bucket, tmp_path))
    ran("rollout", *few, "--out", tmp_path / "second", "--mirror", bucket)
    assert f"{count} rollouts" in capsys.readouterr().err
    assert held_keys(tmp_path / "second") == held_keys_at(bucket, tmp_path)


def rollouts_begun(out: Path) -> bool:
    """Whether there is one within half a minute."""
    for _ in range(3000):
        if (out / "meta" / "info.json").exists() and held_keys(out):
            return True
        time.sleep(0.01)
    return False


def held_keys_at(url: str, tmp_path: Path) -> set[str]:
    place = tmp_path / f"copy-{time.monotonic_ns()}"
    Mirror(place, RemoteFolder(url)).fetch(films=True)
    return held_keys(place)


def test_verdicts_on_rollouts_there_are_sent_there(
    bucket: str, tmp_path: Path, few: list[str]
) -> None:
    out = tmp_path / "one"
    ran("rollout", *few, "--out", out, "--mirror", bucket)
    labels = tmp_path / "labels.csv"
    facts = [EpisodeStore.open(out).facts(n) for n in range(4)]
    rows = [f"{f['key']},me,{'success' if n % 2 else 'failure'}" for n, f in enumerate(facts)]
    labels.write_text("\n".join(["key,rater,outcome", *rows]) + "\n")
    ran("judge", bucket, f"--judge=human:{labels}")
    fs, root = filesystem(bucket)
    assert fs.exists(f"{root}/verdicts.parquet")
    ran("rank", bucket, "--out", tmp_path / "ranked")


@pytest.mark.parametrize("mode", ["hold", "stall", "500", "cut"])
def test_a_network_that_fails_for_a_while_holds_nobody_up(
    mode: str,
    bucket: str,
    proxy: Proxy,
    tmp_path: Path,
    few: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("worldeval.data.remote.STALL_S", 0.5)
    out = tmp_path / "one"
    told: list[bool] = []

    def trouble() -> None:
        if rollouts_begun(out):
            with monkeypatch.context() as meanwhile:  # a busy machine is slow to begin and to end
                meanwhile.setattr("worldeval.data.remote.PATIENCE_S", 0.5)
                proxy.mode = mode
                time.sleep(2)
            told.append(True)
            proxy.mode = "pass"

    making = threading.Thread(target=trouble)
    making.start()
    ran("rollout", *few, "--out", out, "--mirror", bucket)
    making.join()
    assert told
    assert held_keys_at(bucket, tmp_path) == held_keys(out)
    del capsys


def test_a_kill_at_any_moment_leaves_whole_rollouts_there(tmp_path: Path, few: list[str]) -> None:
    """What was put so far is stopped after each single file: a reader sees whole rollouts."""
    bucket, out = "memory://killed/run", tmp_path / "one"
    ran("rollout", *few, "--out", out)
    sent = 0
    seen = set()
    while True:
        remote = RemoteFolder(bucket)
        put, left = remote.put, [sent]

        def some(name: str, content: Path | bytes, put=put, left=left) -> None:  # type: ignore[no-untyped-def]
            if left[0] <= 0:
                raise StoreError("killed")
            left[0] -= 1
            put(name, content)

        remote.put = some  # type: ignore[method-assign]
        fs, root = filesystem(bucket)
        if fs.exists(root):
            fs.rm(root, recursive=True)
        (out / ".mirrored.json").unlink(missing_ok=True)
        mirror = Mirror(out, remote)
        try:
            assert mirror.acquire()
            mirror.put()
        except StoreError:
            pass
        else:
            break
        finally:
            mirror.release()
        place = tmp_path / "copy" / str(sent)
        Mirror(place, RemoteFolder(bucket)).fetch(films=True)
        if (place / "meta" / "info.json").exists():
            store = EpisodeStore.open(place)
            assert store.verify() == []
            seen.add(len(store))
        sent += 5
    assert seen <= {4}
    assert held_keys_at(bucket, tmp_path) == held_keys(out)


def test_a_store_that_grows_while_it_is_sent_is_never_seen_in_halves(
    tmp_path: Path, words: list[str]
) -> None:
    url, out, stop = "memory://grows/run", tmp_path / "one", threading.Event()
    counts: list[int] = []
    errors: list[Exception] = []

    def read() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            place = tmp_path / "copies" / str(number)
            try:
                Mirror(place, RemoteFolder(url)).fetch(films=True)
                for info in place.glob("**/meta/info.json"):
                    store = EpisodeStore.open(info.parent.parent)
                    assert store.verify() == []
                counts.append(len(held_keys(place)) if place.exists() else 0)
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    ran("rollout", *words, "--batch=1", "--out", out, "--mirror", url)
    stop.set()
    reader.join()
    assert not errors
    assert counts == sorted(counts) and len(set(counts)) > 2


def wrong(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main([*map(str, words)]) == 2
    told = capsys.readouterr().err.strip()
    assert "Traceback" not in told and len(told.splitlines()) == 1, told
    return told


def test_first_mistakes_are_told_in_a_sentence_before_anything_is_made(
    bucket: str,
    server: int,
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ["rollout", *words, "--out", tmp_path / "run"]
    assert "is no URL, expected one such as" in wrong(capsys, *run, "--mirror", "runs/there")
    assert "is no URL" in wrong(capsys, *run, "--mirror", "s3://")
    assert "another store that fsspec knows" in wrong(capsys, *run, "--mirror", "s4://b/run")
    none = wrong(capsys, *run, "--mirror", "s3://no-such-bucket-here/run")
    assert "create the bucket" in none
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("worldeval.data.remote.PATIENCE_S", 0.3)
    assert "look at the network" in wrong(capsys, *run, "--mirror", bucket)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "credentials" in wrong(capsys, *run, "--mirror", bucket)
    assert not held_keys(tmp_path / "run")


def test_wrong_credentials_are_told_in_a_sentence(
    bucket: str, proxy: Proxy, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(Proxy):
        def _serve(self, client: socket.socket) -> None:
            body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>"
            with client:
                client.recv(65536)
                head = f"HTTP/1.1 403 no\r\nContent-Length: {len(body)}\r\n"
                client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)

    refusing = Refusing(proxy.port)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{refusing.port}"
    told = wrong(capsys, "rollout", *words, "--out", tmp_path / "run", "--mirror", bucket)
    assert "correct the URL or the credentials" in told
    refusing.close()


def test_a_url_of_another_run_is_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/there"
    for number in (1, 2):
        ran("rollout", *words, f"--shard={number}/2", "--out", tmp_path / str(number))
    ran("rollout", *words, "--shard=1/2", "--out", tmp_path / "1", "--mirror", url)
    second = ["rollout", *words, "--shard=2/2", "--out", tmp_path / "2", "--mirror", url]
    assert "holds another run" in wrong(capsys, *second)
    assert "no folder here" in wrong(capsys, "resume", url)
    assert "holds no rollouts" in wrong(capsys, "status", f"file://{tmp_path}/nothing")


def test_of_two_runs_that_begin_at_one_url_in_the_same_moment_one_stops_sending(
    tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/there"
    for name in ("first", "second"):
        ran("rollout", *few, "--out", tmp_path / name)
    with (
        pytest.raises(MismatchError, match="holds another run"),
        mirrored(tmp_path / "first", url),
    ):
        # What the second does, had it looked before the first had sent anything.
        (tmp_path / "there/run.json").write_bytes((tmp_path / "second/run.json").read_bytes())
        kept = sorted((tmp_path / "there").rglob("*"))
        until = time.monotonic() + 20
        while "nothing more is sent" not in (told := capsys.readouterr().err):
            assert time.monotonic() < until, told
            time.sleep(0.05)
        (tmp_path / "first/note.txt").write_text("new")
    assert sorted((tmp_path / "there").rglob("*")) == kept


def test_rollouts_that_lie_there_alone_are_not_overwritten(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url, out = f"file://{tmp_path}/there", tmp_path / "run"
    run = ["rollout", *words, "--out", out, "--mirror", url]
    ran(*run, "--per-task=1")
    shutil.copytree(out, tmp_path / "earlier")
    ran(*run, "--per-task=2")
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "earlier", out)
    assert "take them in first" in wrong(capsys, *run)
    ran("gather", out, "--from", url)
    ran(*run, "--per-task=2")
    assert len(held_keys(out)) == 8


def test_the_end_of_a_run_says_what_could_not_be_sent(
    bucket: str,
    proxy: Proxy,
    tmp_path: Path,
    few: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("worldeval.data.remote.PATIENCE_S", 0.2)
    monkeypatch.setattr(mirroring, "LAST_S", 0.5)
    out = tmp_path / "one"

    def trouble() -> None:
        if rollouts_begun(out):
            proxy.mode = "500"

    making = threading.Thread(target=trouble)
    making.start()
    assert cli.main(["rollout", *few, f"--out={out}", f"--mirror={bucket}"]) == 2
    making.join()
    assert "run the same command again" in capsys.readouterr().err
    proxy.mode = "pass"
    ran("rollout", *few, "--out", out, "--mirror", bucket)
    assert held_keys_at(bucket, tmp_path) == held_keys(out)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'worldeval\[s3\]'"):
        RemoteFolder("s3://bucket/run")


def test_folders_are_no_urls(tmp_path: Path) -> None:
    assert url_of(Path("s3://bucket/run")) == "s3://bucket/run"
    assert url_of(Path("file:///tmp/run/")) == "file:///tmp/run"
    for place in ("runs/mine", "C:/runs", "/tmp/a:b", "human:labels.csv"):
        assert url_of(place) is None
    with pytest.raises(ConfigError, match="is no URL"):
        RemoteFolder("runs/mine")
