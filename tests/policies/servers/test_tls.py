"""TLS with a certificate of one's own: trusted where it is named, refused in one sentence else."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.policies.servers import stub_server as stub
from tests.policies.servers import test_one_call as plain
from worldeval import testing
from worldeval.errors import PolicyError
from worldeval.motion.panda import panda
from worldeval.policies.loading import load_policy
from worldeval.testing import TOY_ROBOT

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the key")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate of 127.0.0.1, and the server's side of it."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=worldeval -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


@pytest.fixture
def https(certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the plain tests speaks TLS."""

    class Secure(ThreadingHTTPServer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.socket = certificate[1].wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that does not trust it hangs up."""

    monkeypatch.setattr(plain, "ThreadingHTTPServer", Secure)


@pytest.mark.usefixtures("https")
def test_a_policy_behind_https_acts_as_in_process(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with plain.http_server(plain.ours(plain.hashed()), path="/") as at:
        served = load_policy(f"https://{at}", TOY_ROBOT)
        testing.check_served(served, plain.hashed(), TOY_ROBOT)
        served.close()


@pytest.mark.usefixtures("https")
def test_a_certificate_that_is_not_trusted_is_refused_at_once_in_one_sentence(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    with plain.http_server(plain.ours(plain.hashed()), path="/") as at:
        with pytest.raises(
            PolicyError,
            match=r"certificate of https://\S+ is not trusted .self.signed.*SSL_CERT_FILE=FILE",
        ):
            load_policy(f"https://{at}?wait_s=30", TOY_ROBOT)  # waiting would not mend it
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        named = at.replace("127.0.0.1", "localhost")
        with pytest.raises(PolicyError, match="Hostname mismatch.*correct the host's name"):
            load_policy(f"https://{named}?wait_s=30", TOY_ROBOT)
    assert time.monotonic() - began < 10


def test_a_server_without_tls_is_told() -> None:
    with (
        plain.http_server(plain.ours(plain.hashed()), path="/") as at,
        pytest.raises(PolicyError, match=rf"does not speak TLS .* is the server at http://{at}"),
    ):
        load_policy(f"https://{at}?wait_s=30", TOY_ROBOT)


def test_a_websocket_through_tls(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = panda("joint_velocity", image_size=(24, 40))
    with stub.StubServer(tls=certificate[1]) as server:
        for scheme in ("openpi", "roboarena", "vla-eval"):
            where = f"{scheme}://127.0.0.1:{server.port}?tls=true&wait_s=30&timeout_s=20"
            with pytest.raises(PolicyError, match=r"certificate of wss://\S+ is not trusted"):
                load_policy(where, robot)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        served = load_policy(f"openpi://127.0.0.1:{server.port}?tls=true&timeout_s=20", robot)
        assert served.spec.chunk == stub.STEPS
        served.close()
    with (
        stub.StubServer() as server,  # as one that dies while it is greeted
        pytest.raises(PolicyError, match=r"no policy server answers at wss://\S+ .SSLEOF"),
    ):
        load_policy(f"openpi://127.0.0.1:{server.port}?tls=true&timeout_s=20", robot)
