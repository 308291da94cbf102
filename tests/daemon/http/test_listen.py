"""Listeners: sockets, peers, limits, TLS, the end. Asked by real clients and by raw bytes."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio

from daemon import http
from daemon.http import problem, sockets
from daemon.http.guard import EXTENSION, Limits, Receive, Scope, Send
from engine.errors import AlreadyExists, Busy, InvalidRequest, NotFound
from tests.daemon.http.serving import Served, serving

WAITING = threading.Event()


async def small(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers by path: who asks, how long the body is, waits, streams, raises."""
    path = scope["path"]
    if path == "/slow":
        await trio.sleep(3600)
    if path == "/wait":
        WAITING.set()
        await trio.sleep(0.5)
    if path == "/bug":
        raise ZeroDivisionError("secret inner thing")
    size = 0
    while path not in ("/unread", "/endless"):
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    peer = http.peer.get()
    told = {"address": peer.address, "uid": peer.uid, "size": size}
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/endless":
        while not scope["extensions"][EXTENSION]["stopping"].is_set():
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
    await send({"type": "http.response.body", "body": body})


LIMITS = Limits(
    header=16 << 10,
    body=100_000,
    upload=300_000,
    request_s=0.6,
    idle_s=0.6,
    stall_s=0.6,
    connections=6,
    stop_s=1,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("s") / "api.sock"
    with serving(
        small, ["127.0.0.1:0", f"unix:{path}"], limits=LIMITS, names=frozenset({"box.example"})
    ) as one:
        yield one


@pytest.fixture
def url(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}"


def raw(served: Served, sent: bytes, wait: float = 5) -> bytes:
    """Send bytes, read until the server closes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=wait) as sock:
        sock.sendall(sent)
        found = b""
        while more := sock.recv(65536):
            found += more
    return found


def test_peer_is_known(served: Served, url: str) -> None:
    assert httpx.get(url).json() == {"address": "127.0.0.1", "uid": -1, "size": 0}
    local = httpx.Client(transport=httpx.HTTPTransport(uds=served.socket))
    with local:
        assert local.get("http://whatever.example/").json() == {
            "address": "", "uid": os.geteuid(), "size": 0,
        }  # fmt: skip


def test_no_server_header(url: str) -> None:
    headers = httpx.get(url).headers
    assert "server" not in headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


def test_unix_socket_has_its_mode_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(small, [f"unix:{path}"]):
        found = path.lstat()
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o660
    assert not path.exists()


def test_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serving(small, [f"unix:{path}"]), pytest.raises(Busy, match="another process answers"):
        sockets.listen([f"unix:{path}"])
    path.write_text("kept")
    with pytest.raises(AlreadyExists, match="no socket"):
        sockets.listen([f"unix:{path}"])
    assert path.read_text() == "kept"


def test_addresses_that_cannot_be(served: Served, tmp_path: Path) -> None:
    with pytest.raises(Busy, match="another process listens there"):
        sockets.listen([f"127.0.0.1:{served.port}"])
    for bind in (
        "127.0.0.1",
        "127.0.0.1:x",
        "127.0.0.1:70000",
        ":1",
        "::1:80",
        "unix:",
        "unix:" + "x" * 200,
    ):
        with pytest.raises(InvalidRequest):
            sockets.listen([bind])
    with pytest.raises(InvalidRequest, match="an address of this machine"):
        sockets.listen(["192.0.2.1:0"])
    with pytest.raises(NotFound, match="make its directory"):
        sockets.listen([f"unix:{tmp_path}/no/where"])


def test_all_or_none(served: Served, tmp_path: Path) -> None:
    with pytest.raises(Busy):
        sockets.listen([f"unix:{tmp_path}/s", f"127.0.0.1:{served.port}"])
    assert list(tmp_path.iterdir()) == []


def test_sockets_of_systemd(tmp_path: Path) -> None:
    """A process started as systemd starts one serves the descriptors it was given."""
    script = (
        "import os, sys\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from daemon.http import sockets\n"
        "ready = sockets.inherited()\n"
        "wanted = [ready[0].name, 'unix:' + sys.argv[1]]\n"
        "found = sockets.listen(wanted, ready=ready)\n"
        "assert found[0].socket.fileno() == 3 and not ready and not os.get_inheritable(3)\n"
        "assert 'LISTEN_FDS' not in os.environ and not sockets.inherited()\n"
        "print(found[0].name)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as one:

        def given() -> None:
            os.dup2(one.fileno(), 3, inheritable=True)

        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "s")], preexec_fn=given, close_fds=False,
            env={**os.environ, "LISTEN_FDS": "1"}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.strip() == f"127.0.0.1:{one.getsockname()[1]}", done.stderr


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]:99", "localhost", "BOX.example:1", "10.1.1.1", "box.example."]
)
def test_hosts_that_are_ours(url: str, host: str) -> None:
    assert httpx.get(url, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "[::1", "127.0.0.1.evil.example", "a:b:c", "1"],
)
def test_hosts_that_are_not(url: str, host: str) -> None:
    answer = httpx.get(url, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.headers["content-type"] == problem.MEDIA_TYPE
    assert answer.json()["kind"] == "permission_denied"


def test_browsers_of_elsewhere_are_refused(url: str) -> None:
    for origin in ("http://evil.example", "null", url.replace("http", "https")):
        assert httpx.get(url, headers={"Origin": origin}).status_code == 403
    assert httpx.get(url, headers={"Origin": url}).status_code == 200


def test_body_over_the_limit(url: str) -> None:
    for content in (bytes(100_001), iter([bytes(50_000)] * 3)):
        answer = httpx.post(url, content=content)
        assert answer.status_code == 413
        assert answer.json()["detail"].startswith("request body: expected at most 100000 bytes")
    assert httpx.post(url, content=bytes(100_000)).json()["size"] == 100_000
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert httpx.post(url, content=bytes(300_000), headers=form).json()["size"] == 300_000
    assert httpx.post(url, content=iter([bytes(400_000)]), headers=form).status_code == 413


def test_body_nobody_reads(url: str) -> None:
    """The answer arrives, whole, and the connection goes on or ends."""
    with httpx.Client() as client:
        for _ in range(3):
            answer = client.post(url + "/unread", content=iter([bytes(30_000)] * 3))
            assert answer.status_code == 200 and answer.json()["size"] == 0


def test_endless_body_is_cut(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
        sock.sendall(
            b"POST /unread HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with pytest.raises(OSError):  # noqa: PT012 - which of the calls it is, nobody can say
            while True:
                sock.sendall(b"8000\r\n" + bytes(0x8000) + b"\r\n")


def test_headers_over_the_limit(served: Served, url: str) -> None:
    assert (
        raw(served, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)[:12]
        == b"HTTP/1.1 431"
    )
    answer = httpx.get(url, headers={"X": "x" * 17_000})
    assert answer.status_code == 431
    assert httpx.get(url + "/" + "x" * 17_000).status_code == 431
    assert httpx.get(url, headers={"X": "x" * 15_000}).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/x\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_nonsense(served: Served, url: str, sent: bytes) -> None:
    answer = raw(served, sent)
    assert answer[:9] in (b"", b"HTTP/1.1 ")
    assert answer[9:12] in (b"", b"400", b"421")
    assert httpx.get(url).status_code == 200


def test_broken_http2(served: Served, url: str) -> None:
    for rest in (b"", bytes(100), b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff"):
        raw(served, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rest)
    assert httpx.get(url).status_code == 200


def test_slow_headers_are_cut(served: Served) -> None:
    began = time.monotonic()
    assert raw(served, b"GET / HTTP/1.1\r\nHost:") == b""
    assert time.monotonic() - began < 4


def test_slow_body_is_told(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n")
        sock.settimeout(0.1)
        answer = b""
        began = time.monotonic()
        while time.monotonic() - began < 5 and not answer:
            try:
                sock.send(b"x")
                answer = sock.recv(65536)
            except TimeoutError:
                continue
        sock.settimeout(1)
        while b"}" not in answer and (more := sock.recv(65536)):
            answer += more
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"sending the request took longer" in answer


def test_slow_answer_is_told(url: str) -> None:
    answer = httpx.get(url + "/slow")
    assert answer.status_code == 503 and answer.json()["retryable"] is True
    assert "retry-after" in answer.headers


def test_client_that_takes_nothing_is_cut(served: Served, url: str) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.2)
        with suppress(ConnectionError):
            while sock.recv(1 << 20):
                pass


def test_a_bug_is_a_number(url: str, expect_log: object) -> None:
    expect_log("bug [0-9a-f]{12} in GET '/bug'")  # type: ignore[operator]
    answer = httpx.get(url + "/bug")
    assert answer.status_code == 500
    assert len(answer.json()["reference"]) == 12
    assert "secret inner thing" not in answer.text and "Traceback" not in answer.text


def test_connections_at_once(served: Served, url: str) -> None:
    taken = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(6)]
    try:
        time.sleep(0.1)
        assert raw(served, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 503")
        with httpx.Client(transport=httpx.HTTPTransport(uds=served.socket)) as local:
            assert local.get("http://localhost/").status_code == 200
    finally:
        for sock in taken:
            sock.close()
    time.sleep(0.1)
    assert httpx.get(url).status_code == 200


def test_websockets_are_refused(url: str) -> None:
    headers = {
        "Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    assert httpx.get(url, headers=headers).status_code == 403


def test_what_is_under_way_ends_first() -> None:
    with serving(small, limits=Limits(stop_s=5)) as served:
        found: list[httpx.Response] = []
        url = f"http://127.0.0.1:{served.port}/wait"
        asking = threading.Thread(target=lambda: found.append(httpx.get(url)))
        asking.start()
        assert WAITING.wait(10)
        served.stop()
        asking.join()
        assert found[0].status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_the_end_has_a_limit() -> None:
    with serving(small, limits=Limits(stop_s=0.3)) as served:
        socks = []
        for path in (b"/slow", b"/endless"):
            sock = socket.create_connection(("127.0.0.1", served.port))
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            socks.append(sock)
        time.sleep(0.3)
        began = time.monotonic()
        served.stop()
        for sock in socks:
            sock.close()
    assert time.monotonic() - began < 5
