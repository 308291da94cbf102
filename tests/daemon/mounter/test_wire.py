"""What root reads from others: every datagram is a request of the right form, or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.mounter import wire
from daemon.mounter.places import Allowed, allowed
from daemon.mounter.wire import Refused, Request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NAMES = st.sampled_from(["verb", "path", "source", "options", "bytes", "more"])
VALUES = JSON | st.sampled_from([*wire.VERBS, "/a", "/a/../b", ["ro"], ["suid"], 0, -1, 1 << 40])


def check(data: bytes) -> None:
    try:
        request = wire.decode(data)
    except Refused:
        return
    assert request.verb in wire.VERBS and request.path.startswith("/")
    assert not {"", ".", ".."} & set(request.path[1:].split("/"))
    assert "\0" not in request.path + request.source
    assert all(one == "ro" or one.startswith("max_read=") for one in request.options)
    assert "," not in "".join(request.options)
    assert wire.decode(wire.encode(request)) == request


@given(st.binary(max_size=5000))
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(JSON)
def test_any_json(value: object) -> None:
    check(json.dumps(value).encode())


@given(st.dictionaries(NAMES, VALUES))
def test_any_fields(fields: dict[str, object]) -> None:
    check(json.dumps(fields).encode())


@given(
    st.sampled_from(sorted(wire.VERBS)),
    VALUES | st.text().map(lambda text: f"/{text}"),
    VALUES,
    st.lists(st.sampled_from(["ro", "max_read=4096", "max_read=0", "suid", "ro,dev", "fd=3"])),
    VALUES,
)
def test_the_right_fields_with_any_values(
    verb: str, path: object, source: object, options: list[str], number: object
) -> None:
    given = {"path": path, "source": source, "options": options, "bytes": number}
    fields = {name: given[name] for name in wire.VERBS[verb]}
    check(json.dumps({"verb": verb, **fields}).encode())


@pytest.mark.parametrize(
    "data",
    [b"[" * 4000, b'{"verb":"mount"}', b'{"verb":["mount"]}', b"9" * 4096, b'{"verb":NaN}', b" " * 4097],
)  # fmt: skip
def test_what_breaks_other_decoders(data: bytes) -> None:
    with pytest.raises(Refused):
        wire.decode(data)


def test_a_request_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(Refused):
        wire.encode(Request("unmount", "/" + "\x01" * 2000))


def test_where_is_allowed() -> None:
    where = Allowed(5, 5, ("/mnt/holdfast",), ("/srv/db",))
    for path in ("/mnt/holdfast/a", "/mnt/holdfast/a/b", "/srv/db"):
        assert where.covers(path)
    for path in ("/mnt/holdfast", "/mnt/holdfast2/a", "/srv/db/x", "/srv", "/", "/etc"):
        assert not where.covers(path)


@pytest.mark.parametrize(
    ("uid", "gid", "root"), [(0, 5, "/a"), (5, 0, "/a"), (5, 5, "/"), (5, 5, "a"), (5, 5, "/..")]
)
def test_what_is_never_allowed(uid: int, gid: int, root: str) -> None:
    with pytest.raises(ValueError):
        allowed(uid, gid, [root], [])
