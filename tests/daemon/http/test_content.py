"""Content: files of points and their parts, their names, logs that are sent."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from engine.errors import InvalidRequest
from tests.daemon.http.test_native import is_problem
from tests.daemon.http.world import FILES, World, world

# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_and_its_parts(client: httpx.Client, point: str) -> None:
    content = FILES["d/b.bin"]
    url = f"/v1/points/{point}/file?path=d/b.bin"
    whole = client.get(url)
    assert whole.content == content and whole.headers["content-length"] == str(len(content))
    assert (
        whole.headers["content-disposition"]
        == "attachment; filename=\"b.bin\"; filename*=UTF-8''b.bin"
    )
    mark = whole.headers["etag"]
    assert client.get(url, headers={"If-None-Match": mark}).status_code == 304
    for wanted, part in (("bytes=0-0", content[:1]), ("bytes=100-299", content[100:300]),
                         ("bytes=-5", content[-5:]),
                         (f"bytes={len(content) - 2}-", content[-2:]),
                         ("bytes=5-99999999999", content[5:])):  # fmt: skip
        answer = client.get(url, headers={"Range": wanted, "If-Range": mark})
        assert answer.status_code == 206 and answer.content == part, wanted
        assert re.fullmatch(rf"bytes \d+-\d+/{len(content)}", answer.headers["content-range"])
    for wanted in ("bytes=9-1", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=x-", "nonsense"):
        assert client.get(url, headers={"Range": wanted}).content == content
    assert client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    for wanted in (f"bytes={len(content)}-", "bytes=-0"):
        answer = client.get(url, headers={"Range": wanted})
        is_problem(answer, 416, "invalid_request")
        assert answer.headers["content-range"] == f"bytes */{len(content)}"
    assert client.get(f"{url}&offset=10&length=5").content == content[10:15]
    is_problem(client.get(f"/v1/points/{point}/file"), 400, "invalid_request")
    is_problem(client.get(f"/v1/points/{point}/file?path=d"), 400, "invalid_request")


def test_names_in_answers(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        odd = {
            'q"\r\nX: y': b"1", "ä/ö ü": b"2", "\udcff\udcfe": b"3", "…": b"4", "x" * 255: b"5",
            ";=": b"6", ".hid": b"7",
        }  # fmt: skip
        made = one.fill("m", odd)
        client = one.client()
        for name, content in odd.items():
            raw = quote(name.encode("utf-8", "surrogateescape"))
            answer = client.get(f"/v1/points/{made}/file?path={raw}")
            assert answer.content == content and "x" not in {
                key for key in answer.headers if key == "x"
            }
            told = answer.headers["content-disposition"]
            assert re.fullmatch(
                r"attachment; filename=\"[A-Za-z0-9_-][A-Za-z0-9._-]*\"; filename\*=UTF-8''[!-~]+",
                told,
            )
            assert "/" not in told.partition("''")[2]


def test_a_file_that_is_damaged_on_the_way(
    one: World, client: httpx.Client, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, _ = one.service.file(point, "a.txt")

    def broken(*_args: object, **_more: object) -> object:
        def pieces() -> Iterator[bytes]:
            yield b"fir"
            raise InvalidRequest("no more")

        return entry, pieces()

    monkeypatch.setattr(one.service, "file", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(f"/v1/points/{point}/file?path=a.txt")
    monkeypatch.undo()
    assert client.get(f"/v1/points/{point}/file?path=a.txt").content == b"first"


# --- uploads --------------------------------------------------------------------------------------------------


def test_uploads(one: World, client: httpx.Client) -> None:
    session = one.service.begin("m")
    url = f"/v1/sessions/{session.id}/logs"
    try:
        made = client.post(url, files={"file": ("../../x/rman.log", b"text")}).json()
        assert made["name"] == "rman.log" and made["size"] == 4
        is_problem(client.post(url, files={"file": ("a", bytes(300_001))}), 413, "invalid_request")
        is_problem(client.post(url, files={"other": ("a", b"x")}), 400, "invalid_request")
        is_problem(client.post(url, json={}), 400, "invalid_request")
        form = {"Content-Type": "multipart/form-data; boundary=B"}
        head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for body in (b"", b"nonsense", b"--B\r\n", head, head + b"text", head + b"text\r\n--C--", b"--B" * 1000,
                     head + b"x\r\n--B\r\n" + head[5:] + b"y\r\n--B--\r\n"):  # fmt: skip
            is_problem(client.post(url, content=body, headers=form), 400, "invalid_request")
        for kind in (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=B",
        ):
            answer = client.post(url, content=head, headers={"Content-Type": kind})
            assert answer.status_code in (400, 413), answer.text
        assert [each.name for each in one.service.commit(session.id).detail.attachments] == [
            "rman.log"
        ]
        is_problem(client.post(url, files={"file": ("a", b"x")}), 400, "invalid_request")
    finally:
        if one.service.session(session.id).state == "open":
            one.service.abandon(session.id)


def test_an_upload_that_breaks_off(one: World, client: httpx.Client) -> None:
    session = one.service.begin("m")
    try:
        with socket.create_connection(("127.0.0.1", one.served.port)) as sock:
            head = (
                f"POST /v1/sessions/{session.id}/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                f"Authorization: Bearer {one.token()}\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n"
            )
            part = '--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
            sock.sendall((head + part).encode())
            time.sleep(0.2)
        time.sleep(0.3)
        assert client.get("/v1/health").status_code == 200
    finally:
        assert one.service.commit(session.id).detail.attachments == []
