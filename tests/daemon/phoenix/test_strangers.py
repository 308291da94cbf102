"""What nobody should send to the Phoenix-compatible API, and who may not ask it: a clear answer, never a 500."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.http import phoenix
from daemon.http import phoenix_rules as rules
from daemon.http.gate import Gate
from daemon.http.phoenix_access import Settings, within
from daemon.http.upload import safe_name
from daemon.state import State
from engine import Store
from tests.daemon.phoenix.rig import BASE, MOUNT, Rig, as_it_is, listening

# --- routes and names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/druva-phoenix/v1", f"{BASE}/mounts", f"{BASE}/mounts/testmount", f"{MOUNT}/backup/",
     f"{MOUNT}/Backup", f"{BASE}/mounts/a/b/backup", f"{MOUNT}/restores", "/v1/mounts", f"{BASE}x/mounts/t/backup",
     "/druva-phoenix/v2/mounts/testmount/backup", f"{MOUNT}/restores/1/2"],
)  # fmt: skip
def test_unknown_routes_are_a_true_404(rig: Rig, path: str) -> None:
    assert rig.ask("GET", path)[:2] == (404, rules.OWN_CODES + 10)


def test_a_known_path_with_another_method_is_a_405_that_says_which(rig: Rig) -> None:
    answer = rig.client.request("PATCH", f"{MOUNT}/backup")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, PUT")
    assert rig.ask("GET", f"{MOUNT}/uploadlog")[0] == 405
    assert rig.client.head(f"{MOUNT}/backup").status_code == 405


@pytest.mark.parametrize(
    "name",
    ["TESTMOUNT", "..", "%2e%2e", ".", "%2Fetc", "a%2Fb", "testmount%00", "%ff%fe", "x" * 10_000, "-rf", "test%20mount",
     "testmount%2F", "%252e", "t%c3%a9st", "testmount;", "$(id)", "testmount%0a"],
)  # fmt: skip
def test_a_bad_name_is_a_mount_that_is_not_there(rig: Rig, name: str) -> None:
    for method, rest in (
        ("GET", "backup"),
        ("POST", "backup"),
        ("PUT", "backup"),
        ("DELETE", "restores/7"),
    ):
        status, found = as_it_is(rig, method, f"{BASE}/mounts/{name}/{rest}")
        assert (status, found["error_code"]) == (200, rules.NO_MOUNT.code)


@settings(max_examples=60)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.binary(min_size=1, max_size=60),
    st.sampled_from(["backup", "uploadlog", "restores/1"]),
)
def test_no_name_is_ever_a_500(served: Rig, method: str, name: bytes, rest: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in name)
    status, found = as_it_is(served, method, f"{BASE}/mounts/{quoted}/{rest}")
    assert status < 500
    assert found["error_code"] > 0 or name == b"testmount"


def test_raw_nonsense_on_the_line_is_no_500(rig: Rig) -> None:
    address = (rig.client.base_url.host, rig.client.base_url.port)
    for path in (
        b"//",
        b"/%",
        b"/%zz/../..",
        BASE.encode() + b"/mounts/%",
        b"/druva-phoenix/v1/mounts/\xff/backup",
    ):
        with socket.create_connection(address, timeout=10) as line:
            line.sendall(
                b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 200", b"HTTP/1.1 400")


# --- uploads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("rman.log", "rman.log"), ("/etc/passwd", "passwd"), ("..\\..\\boot.ini", "boot.ini"), ("..", "log"),
     ("", "log"), (".hidden", "hidden"), ("a b\x00\n\x1b[2Jc", "a_b_2Jc"), ("\u00e9.log", "log"),
     ("x" * 300, "x" * 100)],
)  # fmt: skip
def test_a_files_name_is_a_label(sent: str, kept: str) -> None:
    assert safe_name(sent) == kept


def test_an_upload_at_its_limit_and_over_it(rig: Rig) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    most = 1 << 18  # the listener reads on for 1 MiB, so that who sends too much sees the answer
    rig.settings = Settings(max_upload=most)
    assert rig.log(b"x" * most)[1] == 0
    assert len(rig.memory.logs[-1][2]) == most
    for extra in (1, 200_000):
        status, code, _, _ = rig.log(b"x" * (most + extra))
        assert (status, code) == (413, rules.OWN_CODES + 2)

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(12):
            yield b"x" * 65536

    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = rig.client.post(f"{MOUNT}/uploadlog", content=endless(), headers=kind)
    assert (answer.status_code, answer.json()["error_code"]) == (413, rules.OWN_CODES + 2)
    assert len(rig.memory.logs) == 2
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == 0


def test_what_the_listener_refuses_has_the_same_form(rig: Rig) -> None:
    """Too large for any upload, a header without end, a host that is not ours: before the interface is asked."""
    for status, headers in (
        (413, {"content-length": str(1 << 40)}), (431, {"x-large": "x" * 40_000}), (421, {"host": "else.example"}),
    ):  # fmt: skip
        found, body = as_it_is(rig, "POST", f"{MOUNT}/backup", headers)
        assert (found, list(body)) == (status, ["error_code", "error_msg", "result"])
        assert body["error_code"] > rules.OWN_CODES
        assert body["result"] == {}


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhello\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART[:-4]),  # cut off
        ("multipart/form-data; boundary=b", b"no boundary here at all"),
        ("multipart/form-data; boundary=b", PART + PART + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART.replace(b'; filename="f"', b"") + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", PART.replace(b'"file"', b'"other"') + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nz\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nX: " + b"y" * 10_000 + b"\r\n\r\nz\r\n--b--\r\n",
        ),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n" * 30 + b"--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            PART.replace(b"hello", b"x" * 5000).replace(b'; filename="f"', b""),
        ),
        ("multipart/form-data; boundary=" + "b" * 300, PART),
        ("multipart/form-data", PART + b"--b--\r\n"),
        ("multipart/form-data; boundary=", PART),
        ("application/json", b"{}"),
        ("application/x-www-form-urlencoded", b"file=x"),
        ("", b"x"),
    ],
)
def test_a_broken_upload_is_refused_and_keeps_nothing(rig: Rig, kind: str, body: bytes) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    headers = {"content-type": kind} if kind else {}
    answer = rig.client.post(f"{MOUNT}/uploadlog", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (400, rules.OWN_CODES + 2)
    assert rig.memory.logs == []


SNIPPETS = [PART, b"--b", b"--b--", b"\r\n", b"\r\n\r\n", b'name="file"']
LETTERS = "multipart/form-data;boundary=\"*'%b "


@settings(max_examples=60)
@given(
    st.lists(st.one_of(st.sampled_from(SNIPPETS), st.binary(max_size=40))),
    st.one_of(st.just("multipart/form-data; boundary=b"), st.text(LETTERS, max_size=40).map(str.strip)),
)  # fmt: skip
def test_no_upload_is_ever_a_500(served: Rig, parts: list[bytes], kind: str) -> None:
    if not served.memory.infos["testmount"].session:
        served.memory.begin("testmount")
    headers = {"content-type": kind}
    answer = served.client.post(f"{MOUNT}/uploadlog", content=b"".join(parts), headers=headers)
    assert answer.status_code in (200, 400, 413)


def test_an_upload_that_is_cut_off_leaves_the_session(rig: Rig) -> None:
    rig.ask("POST", f"{MOUNT}/backup")
    head = f"POST {MOUNT}/uploadlog HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    with socket.create_connection(
        (rig.client.base_url.host, rig.client.base_url.port), timeout=10
    ) as line:
        line.sendall(
            head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART[:-3]
        )
    assert rig.memory.logs == []
    assert rig.ask("PUT", f"{MOUNT}/backup")[1] == 0


# --- who may ask --------------------------------------------------------------------------------


def test_only_addresses_of_the_list(rig: Rig) -> None:
    rig.settings = Settings(allow=("10.0.0.0/8", "::1/128"))
    assert rig.ask("GET", f"{MOUNT}/backup")[:2] == (403, rules.OWN_CODES + 14)
    rig.settings = Settings(allow=("127.0.0.1/32",))
    assert rig.ask("GET", f"{MOUNT}/backup")[0] == 200
    assert within("::ffff:127.0.0.9", ("127.0.0.0/8",)) and not within("", ("0.0.0.0/0",))
    assert not within("fe80::1", ("127.0.0.0/8",))


def test_no_web_page_may_ask(rig: Rig) -> None:
    origin = str(rig.client.base_url).rstrip("/")
    assert rig.ask("POST", f"{MOUNT}/backup", headers={"origin": origin})[0] == 403
    assert not rig.memory.known


class Book:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = []

    def write(self, who: str, origin: str, act: str, about: str, result: str) -> None:
        self.lines.append((who, origin, act, about, result))


def test_tokens_where_they_are_required(tmp_path: Path) -> None:
    rig, book, now = Rig(), Book(), [10**18]
    rig.memory.restores[7] = "done"
    rig.settings = Settings(token_required=True)
    Store.init(str(tmp_path / "store"))
    with State.open(str(tmp_path / "store"), lambda: now[0]) as state, ExitStack() as stack:
        make = state.tokens.create
        tokens = {
            "w": make("writer", ["testmount"], label="w"), "v": make("writer", [], label="v"),
            "o": make("writer", ["other"]), "r": make("restorer", [], label="r"),
            "e": make("writer", [], lifetime_s=1), "x": make("writer", []),
        }  # fmt: skip
        state.tokens.revoke(tokens["x"][0].id)
        now[0] += 2 * 10**9
        gate = Gate(state.tokens, book, clock=lambda: now[0], failures_per_minute=100)
        app = phoenix.app(rig.memory, lambda: rig.settings, gate=gate)  # type: ignore[arg-type]
        url = stack.enter_context(listening(app))
        rig.client = stack.enter_context(httpx.Client(base_url=url, timeout=20))

        def ask(token: str, method: str, rest: str = "backup") -> int:
            secret = tokens[token][1] if token in tokens else "hf_0123456789ab_" + "0" * 64
            headers = {"authorization": f"Bearer {secret}"} if token else {}
            return rig.ask(method, f"{MOUNT}/{rest}", headers=headers)[0]

        assert [ask(one, "GET") for one in ("", "?", "e", "x", "o", "w", "r")] == [
            401,
            401,
            401,
            401,
            403,
            200,
            200,
        ]
        assert [ask(one, "POST") for one in ("r", "w", "v", "w")] == [403, 200, 403, 200]
        assert [ask(one, "PUT") for one in ("r", "v", "w")] == [403, 403, 200]
        assert [ask(one, "DELETE", "restores/7") for one in ("w", "r")] == [403, 200]
        rig.settings = Settings()
        assert [ask(one, "GET") for one in ("", "w", "?")] == [200, 200, 401]
    lines = {(who.split("(")[-1][0], *rest) for who, *rest in book.lines}
    assert ("w", "127.0.0.1", "begin session", "mount testmount", "ok") in lines
    assert ("v", "127.0.0.1", "commit session", "mount testmount", "permission_denied") in lines
    assert ("r", "127.0.0.1", "delete restore", "mount testmount", "ok") in lines
