"""The link of a ``Remote``: what is sent again and what is not, whom it trusts, what errors become."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from daemon.client import Remote, link
from daemon.contract import MountSpec
from daemon.http import wire
from daemon.http.listen import Tls
from engine.errors import (
    TABLE,
    Busy,
    HoldfastError,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
)
from tests.daemon.http.world import World, world


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("w")) as found:
        found.fill("m")
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_PAUSES", (0.01, 0.02, 0.03))


@contextmanager
def answering(*answers: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request of each connection, and answers so; None: it hangs up instead."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                sock, _ = server.accept()
                with sock:
                    asked.append(sock.recv(65536))
                    if answer is not None:
                        sock.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join(5)


def answer(status: str, body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n{more}\r\n".encode() + body


def unanswered(match: str = "see that it runs") -> pytest.RaisesExc[LocationUnavailable]:
    return pytest.raises(LocationUnavailable, match=match)


EMPTY = answer("200 OK", b'{"items": [], "cursor": ""}')


def test_errors_come_back_as_their_class() -> None:
    for kind in TABLE:
        told = {
            "kind": kind.kind.slug,
            "detail": "thing: expected x; do y",
            "status": kind.kind.http,
        }
        found = wire.revived_error(told, kind.kind.http)
        assert type(found) is kind and str(found) == "thing: expected x; do y"
    assert isinstance(wire.revived_error(None, 404), NotFound)
    assert isinstance(wire.revived_error(["?"], 431), InvalidRequest)
    assert type(wire.revived_error({"kind": "new", "detail": "d"}, 599)) is HoldfastError
    assert "abc" in str(
        wire.revived_error({"kind": "internal", "detail": "d", "reference": "abc"}, 500)
    )


def test_what_reads_is_asked_again() -> None:
    with answering(None, None, EMPTY) as (url, asked), Remote(url) as far:
        assert far.mounts() == []
    assert len(asked) == 3
    with answering(None, None, None, None) as (url, asked), Remote(url) as far, unanswered():
        far.mounts()
    assert len(asked) == 4


def test_what_changes_is_asked_again_with_its_key_only() -> None:
    body = b'{"changed": ["x"]}'
    with answering(None, answer("200 OK", body)) as (url, asked), Remote(url) as far:
        assert far.reload_config() == ["x"]
    keys = {
        line
        for each in asked
        for line in each.split(b"\r\n")
        if line.lower().startswith(b"idempotency")
    }
    assert len(asked) == 2 and len(keys) == 1
    for act in (lambda far: far.create_token("admin", []), lambda far: far.delete_mount("m"),
                lambda far: far.attach_log("s", "n", [b"x"])):  # fmt: skip
        with (
            answering(None) as (url, asked),
            Remote(url) as far,
            pytest.raises(LocationUnavailable),
        ):
            act(far)
        assert len(asked) == 1


def test_an_answer_that_was_lost_is_waited_for() -> None:
    busy = answer(
        "409 Conflict", b'{"kind": "busy", "detail": "still runs"}', "application/problem+json"
    )
    with (
        answering(None, busy, answer("200 OK", b'{"changed": []}')) as (url, asked),
        Remote(url) as far,
    ):
        assert far.reload_config() == []
    assert len(asked) == 3
    with (
        answering(busy) as (url, asked),
        Remote(url) as far,
        pytest.raises(Busy, match="still runs"),
    ):
        far.reload_config()


def test_redirections_are_not_followed() -> None:
    with answering(EMPTY) as (elsewhere, seen):
        away = answer("307 Temporary Redirect", b"", more=f"Location: {elsewhere}/v1/mounts\r\n")
        with answering(away) as (url, _), Remote(url, token="secret") as far:
            with pytest.raises(LocationUnavailable, match="redirection"):
                far.mounts()
            assert seen == []
        socket.create_connection(("127.0.0.1", int(elsewhere.rpartition(":")[2]))).close()


NO_ANSWERS = [
    b"", b"nonsense", b"[]", b'{"items": 1, "cursor": ""}', b'{"items": [{"name": 1}], "cursor": ""}',
    b'{"items": [{}], "cursor": ""}', b"[" * 100_000, b"\xff", b"null",
]  # fmt: skip


@pytest.mark.parametrize("body", NO_ANSWERS)
def test_answers_that_are_none(body: bytes) -> None:
    with answering(answer("200 OK", body)) as (url, _), Remote(url) as far:  # noqa: SIM117 - one line too long
        with unanswered("answer of the daemon"):
            far.mounts()


def test_a_newer_daemon_may_say_more() -> None:
    known = '{"name": "m", "chunking": "auto", "quota": 0, "max_files": 0, "points": 0, "state": "stopped"'
    with (
        answering(answer("200 OK", (known + ', "more": [1]}').encode())) as (url, _),
        Remote(url) as far,
    ):
        assert far.mount("m").name == "m"


# httpcore leaves the socket it could not connect to the collector of garbage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_addresses_that_are_none(tmp_path: Path) -> None:
    for address in ("", "nowhere", "ftp://x", "http://", "https://user:word@host", "http://[::1"):
        with pytest.raises(InvalidRequest):
            Remote(address)
    with pytest.raises(InvalidRequest, match="PEM"):
        Remote("https://localhost", ca=str(tmp_path / "none"))
    for address in (f"unix:{tmp_path}/none", "http://127.0.0.1:1"):
        with Remote(address) as far, pytest.raises(LocationUnavailable, match="see that it runs"):
            far.mounts()


def test_tokens_that_are_refused(one: World) -> None:
    with Remote(one.url) as far, pytest.raises(PermissionDenied, match="no token"):
        far.mounts()
    with Remote(one.url, token="hf_0") as far, pytest.raises(PermissionDenied):
        far.mounts()
    text = one.token("restorer", "m", lifetime_s=10)
    with Remote(one.url, token=text) as far:
        assert far.mount("m").points == 1 and far.status()["role"] == "restorer"
        with pytest.raises(PermissionDenied, match="role"):
            far.create_mount(MountSpec("n"))
        one.clock.now += 11 * 10**9
        with pytest.raises(PermissionDenied, match="expired"):
            far.mounts()


def test_a_token_in_the_clear_is_told(expect_log: Callable[[str], None]) -> None:
    expect_log("the token goes to 192.0.2.1 in the clear")
    Remote("http://192.0.2.1:9", token="hf_x").close()
    Remote("http://localhost:9", token="hf_x").close()


def test_lists_longer_than_a_page(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.client.remote.PAGE", 2)
    with Remote(f"unix:{one.served.socket}") as far:
        for number in range(5):
            far.create_token("auditor", [], label=str(number))
        assert far.tokens() == one.service.tokens()
        assert [each.number for each in far.audit(after=1, limit=3)] == [2, 3, 4]
        assert len(far.audit()) == len(one.acts())


def test_an_upload_that_fails_on_our_side(one: World) -> None:
    def content() -> Iterator[bytes]:
        yield b"begin"
        raise OSError("the disk is gone")

    with Remote(f"unix:{one.served.socket}") as far:
        session = far.begin("m")
        with pytest.raises(OSError, match="disk is gone"):
            far.attach_log(session.id, "x", content())
        done = far.commit(session.id)
        assert done.detail.attachments == []


def test_a_download_that_is_cut(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_more: object) -> Iterator[bytes]:
        yield b"some"
        time.sleep(0.05)
        raise InvalidRequest("no more")

    monkeypatch.setattr(one.service, "tar", broken)
    with Remote(f"unix:{one.served.socket}") as far:
        pieces = far.tar("m@latest")
        with pytest.raises(LocationUnavailable):
            list(pieces)
        assert far.mount("m").name == "m"


def test_tls(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key"))
    (tmp_path / "cert").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    for name, each in (("ca", authority), ("other", stranger)):
        each.cert_pem.write_to_path(str(tmp_path / name))
    tls = Tls(str(tmp_path / "cert"), str(tmp_path / "key"))
    with world(tmp_path, tls=tls) as one:
        token = one.token()
        with Remote(one.url, token=token, ca=str(tmp_path / "ca")) as far:
            assert far.create_mount(MountSpec("m")).name == "m"
        for ca in ("", str(tmp_path / "other")):
            with Remote(one.url, token=token, ca=ca) as far, unanswered("certificate"):
                far.mounts()


def test_a_certificate_is_shown_to_who_asks_for_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("127.0.0.1", "client"):
        issued = authority.issue_cert(name)
        issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / name))
    ca, ours, theirs = (str(tmp_path / name) for name in ("ca", "client", "127.0.0.1"))
    authority.cert_pem.write_to_path(ca)
    with world(tmp_path, tls=Tls(theirs, theirs, ca)) as one:
        token = one.token()
        with Remote(one.url, token=token, ca=ca, cert=ours) as far:
            assert far.create_mount(MountSpec("m")).name == "m"
        with Remote(one.url, token=token, ca=ca) as far, pytest.raises(HoldfastError):
            far.mounts()
    with pytest.raises(InvalidRequest, match="certificate and its key"):
        Remote("https://localhost", cert=ca)


def test_secrets_are_in_no_log(one: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = one.token("admin")
    with Remote(one.url, token=text) as far:
        made, secret = far.create_token("writer", [])
        assert secret.startswith(f"hf_{made.id}_")
    for record in caplog.records:
        if record.name.startswith("holdfast"):
            assert text[16:] not in record.getMessage() and secret[16:] not in record.getMessage()
