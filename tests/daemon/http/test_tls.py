"""TLS: certificates read again, versions, HTTP/2, certificates of clients."""

from __future__ import annotations

import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trustme

from daemon.http.listen import Tls
from engine.errors import InvalidRequest
from tests.daemon.http.serving import serving
from tests.daemon.http.test_listen import LIMITS, small


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(directory: Path, authority: trustme.CA, serial: str) -> tuple[str, str]:
    issued = authority.issue_cert("127.0.0.1", common_name=serial)
    cert, key = directory / "cert.pem", directory / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return str(cert), str(key)


def shown(port: int, context: ssl.SSLContext) -> str:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        found = sock.getpeercert()
        assert found
        return dict(pair for part in found["subject"] for pair in part)["commonName"]


def test_tls(tmp_path: Path, authority: trustme.CA) -> None:
    tls = Tls(*write(tmp_path, authority, "first"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with serving(small, tls=tls, limits=LIMITS) as served, httpx.Client(verify=trusting) as client:
        url = f"https://127.0.0.1:{served.port}/"
        assert client.get(url).status_code == 200
        assert shown(served.port, trusting) == "first"
        write(tmp_path, authority, "second")
        tls.reload()
        assert client.get(url).status_code == 200  # the same connection
        assert shown(served.port, trusting) == "second"
        (tmp_path / "key.pem").write_text("nonsense")
        with pytest.raises(InvalidRequest, match="PEM files that belong together"):
            tls.reload()
        assert shown(served.port, trusting) == "second"
        old = ssl.create_default_context()
        authority.configure_trust(old)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            shown(served.port, old)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)  # who does not know the authority
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{served.port}/")


def test_http2(tmp_path: Path, authority: trustme.CA) -> None:
    cert, key = write(tmp_path, authority, "one")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(small, tls=Tls(cert, key), limits=LIMITS) as served:
        url = f"https://127.0.0.1:{served.port}/"
        told = subprocess.run(
            ["curl", "-sS", "--http2", "--cacert", tmp_path / "ca.pem", "-w", "%{http_version} %{http_code}",
             "-d", "x" * 50_000, url], capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert told.stdout.endswith("2 200") and '"size": 50000' in told.stdout, told


def test_too_much_over_http2(tmp_path: Path, authority: trustme.CA) -> None:
    """The answer arrives although headers of connections are none of HTTP/2's; the next request goes on."""
    cert, key = write(tmp_path, authority, "one")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    # Only the request is to be too slow: on a busy machine a handshake is as well.
    patient = replace(LIMITS, idle_s=20, stall_s=20)
    with serving(small, tls=Tls(cert, key), limits=patient) as served:
        url = f"https://127.0.0.1:{served.port}/"
        for path, size, status in (
            ("", 150_000, "413"),
            ("", 10, "200"),
            ("unread", 50_000, "200"),
            ("slow", 0, "503"),
        ):
            told = subprocess.run(
                ["curl", "-sS", "--http2", "--cacert", tmp_path / "ca.pem", "-w", " %{http_code}",
                 "--data-binary", "@-", url + path], input="x" * size, capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            assert told.stdout.endswith(f" {status}"), (path, told)


def test_client_certificates(tmp_path: Path, authority: trustme.CA) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    tls = Tls(*write(tmp_path, authority, "one"), str(tmp_path / "clients.pem"))
    with serving(small, tls=tls, limits=LIMITS) as served:
        url = f"https://127.0.0.1:{served.port}/"
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, verify=context)
        clients.issue_cert("someone@example.org").configure_cert(context)
        assert httpx.get(url, verify=context).status_code == 200
